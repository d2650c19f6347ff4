"""Pauses that operators set, the settings that they change without a restart, and the record of both.

Revision ID: 0031
Revises: 0030
"""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

# A column without a default does not rewrite the table.
SCHEMA = """
ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS paused BIGINT;
COMMENT ON COLUMN deliveries.paused IS 'The pause for which it waits. NULL: none.';

CREATE TABLE IF NOT EXISTS pauses (
  id BIGINT GENERATED ALWAYS AS IDENTITY,
  channel TEXT,
  provider TEXT,
  sender TEXT,
  country TEXT,
  template TEXT,
  category TEXT,
  drains BOOLEAN DEFAULT false NOT NULL,
  reason TEXT NOT NULL,
  since TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  until TIMESTAMP WITH TIME ZONE,
  ended_at TIMESTAMP WITH TIME ZONE,
  settled BOOLEAN DEFAULT false NOT NULL,
  CONSTRAINT pauses_pkey PRIMARY KEY (id),
  CONSTRAINT pauses_settled_check CHECK (NOT settled OR ended_at IS NOT NULL)
);
CREATE INDEX IF NOT EXISTS pauses_open_idx ON pauses (id) WHERE NOT settled;
COMMENT ON TABLE pauses IS 'Pauses: what an operator lets wait, until it is resumed or its time is over.';
COMMENT ON COLUMN pauses.id IS 'In the order in which they were set.';
COMMENT ON COLUMN pauses.channel IS 'The channel that waits: push, sms and so on. NULL: any.';
COMMENT ON COLUMN pauses.provider IS 'Whose messages wait. NULL: any provider''s.';
COMMENT ON COLUMN pauses.sender IS 'The sender whose messages wait. NULL: any.';
COMMENT ON COLUMN pauses.country IS 'The country whose numbers wait, as ISO 3166 has it. NULL: any.';
COMMENT ON COLUMN pauses.template IS 'The template whose messages wait. NULL: any.';
COMMENT ON COLUMN pauses.category IS 'The category whose messages wait. NULL: any.';
COMMENT ON COLUMN pauses.drains IS 'Whether messages that are already decided still go.';
COMMENT ON COLUMN pauses.reason IS 'Why, in the operator''s words.';
COMMENT ON COLUMN pauses.since IS 'When it was set.';
COMMENT ON COLUMN pauses.until IS 'When it ends by itself. NULL: it does not.';
COMMENT ON COLUMN pauses.ended_at IS 'When it ended. NULL: it is on.';
COMMENT ON COLUMN pauses.settled IS 'Whether everything that waited for it was woken after its end.';

CREATE TABLE IF NOT EXISTS overrides (
  name TEXT NOT NULL,
  value TEXT NOT NULL,
  since TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT overrides_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE overrides IS 'Settings that operators have changed without a restart; each counts instead of its variable.';
COMMENT ON COLUMN overrides.name IS 'The setting''s environment variable.';
COMMENT ON COLUMN overrides.value IS 'Its value, as the variable would have it.';
COMMENT ON COLUMN overrides.since IS 'When it was set.';

CREATE TABLE IF NOT EXISTS audit (
  id BIGINT GENERATED ALWAYS AS IDENTITY,
  at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  actor TEXT NOT NULL,
  action TEXT NOT NULL,
  subject JSONB NOT NULL,
  reason TEXT NOT NULL,
  CONSTRAINT audit_pkey PRIMARY KEY (id)
);
COMMENT ON TABLE audit IS 'What operators did: who, when, what and why.';
COMMENT ON COLUMN audit.id IS 'In the order in which it was done.';
COMMENT ON COLUMN audit.at IS 'When.';
COMMENT ON COLUMN audit.actor IS 'Who: an account on a machine, a key of the gateway, or who had logged in to Flower.';
COMMENT ON COLUMN audit.action IS 'What was done, like pause or set.';
COMMENT ON COLUMN audit.subject IS 'To what it was done.';
COMMENT ON COLUMN audit.reason IS 'Why, in the operator''s words.';
"""

INDEX = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_paused_idx ON deliveries (paused, notification_id)
WHERE paused IS NOT NULL AND wake_at IS NOT NULL
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    with op.get_context().autocommit_block():
        op.execute(INDEX)


def downgrade() -> None:
    op.execute("""
    ALTER TABLE deliveries DROP COLUMN paused;
    DROP TABLE pauses, overrides, audit;
    """)
