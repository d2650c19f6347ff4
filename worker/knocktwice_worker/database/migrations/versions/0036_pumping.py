"""Pumping: messages by the first digits of their numbers, and brakes that hold what goes to such numbers.

Revision ID: 0036
Revises: 0035
"""

from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE IF NOT EXISTS text_counts (
  template TEXT NOT NULL,
  project TEXT NOT NULL,
  slot TIMESTAMP WITH TIME ZONE NOT NULL,
  prefix TEXT NOT NULL,
  messages BIGINT NOT NULL,
  settled BIGINT DEFAULT 0 NOT NULL,
  answered BIGINT DEFAULT 0 NOT NULL,
  delivered BIGINT DEFAULT 0 NOT NULL,
  CONSTRAINT text_counts_pkey PRIMARY KEY (template, project, slot, prefix)
);
CREATE INDEX IF NOT EXISTS text_counts_slot_idx ON text_counts (slot);
COMMENT ON TABLE text_counts IS
  'How many single messages went to which numbers, and what became of them within two minutes, for the pumping guard.';
COMMENT ON COLUMN text_counts.template IS 'The template. Empty: none.';
COMMENT ON COLUMN text_counts.project IS 'The project. Empty: none.';
COMMENT ON COLUMN text_counts.slot IS 'When the slot begins in which the providers took them: 5 seconds, later an hour.';
COMMENT ON COLUMN text_counts.prefix IS 'The first seven digits of the number, behind a plus.';
COMMENT ON COLUMN text_counts.messages IS 'Messages that providers took.';
COMMENT ON COLUMN text_counts.settled IS 'Of these, those whose two minutes are over.';
COMMENT ON COLUMN text_counts.answered IS 'Of these, those that somebody answered in time.';
COMMENT ON COLUMN text_counts.delivered IS 'Of these, those that the provider reports as delivered by then.';
ALTER TABLE brakes
  ADD COLUMN IF NOT EXISTS prefix TEXT,
  ADD COLUMN IF NOT EXISTS project TEXT,
  ADD COLUMN IF NOT EXISTS next_turn_at TIMESTAMP WITH TIME ZONE;
COMMENT ON COLUMN brakes.kind IS 'What is wrong: refused, undelivered or unclicked pushes, or pumping.';
COMMENT ON COLUMN brakes.prefix IS 'The first digits of the numbers whose SMS it holds. NULL: any.';
COMMENT ON COLUMN brakes.project IS 'The project whose SMS it holds. NULL: any; empty: none.';
COMMENT ON COLUMN brakes.next_turn_at IS 'Where it only slows down: when the next message may go. NULL: none has gone so.';
COMMENT ON COLUMN brakes.pushes IS 'The pushes, or messages, by which it tripped.';
ALTER TABLE brakes DROP CONSTRAINT brakes_kind_check;
ALTER TABLE brakes
  ADD CONSTRAINT brakes_kind_check CHECK (kind IN ('refused', 'undelivered', 'unclicked', 'pumping'));
"""


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("""
    DROP TABLE text_counts;
    UPDATE deliveries SET brake_waived = true, wake_at = knocktwice_now()
    WHERE brake IN (SELECT id FROM brakes WHERE kind = 'pumping') AND wake_at IS NOT NULL AND NOT brake_waived;
    DELETE FROM brakes WHERE kind = 'pumping';
    ALTER TABLE brakes DROP CONSTRAINT brakes_kind_check;
    ALTER TABLE brakes ADD CONSTRAINT brakes_kind_check CHECK (kind IN ('refused', 'undelivered', 'unclicked'));
    ALTER TABLE brakes DROP COLUMN prefix, DROP COLUMN project, DROP COLUMN next_turn_at;
    """)
