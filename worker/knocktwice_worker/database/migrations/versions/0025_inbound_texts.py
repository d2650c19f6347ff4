"""What people write is kept, and who said what about a number, opting out or in.

Revision ID: 0025
Revises: 0024
"""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

# Each statement may find its work done: the indexes are made outside of the transaction.
TABLES = """
ALTER TABLE inbound_texts
  ADD COLUMN IF NOT EXISTS id UUID,
  ADD COLUMN IF NOT EXISTS words TEXT,
  ADD COLUMN IF NOT EXISTS characters INTEGER,
  ADD COLUMN IF NOT EXISTS provider TEXT,
  ADD COLUMN IF NOT EXISTS channel TEXT,
  ADD COLUMN IF NOT EXISTS sender TEXT;

COMMENT ON TABLE inbound_texts IS 'What people wrote to one of our senders.';
COMMENT ON COLUMN inbound_texts.number IS 'Who wrote: in E.164, a short code or a name. Empty: they were erased.';
COMMENT ON COLUMN inbound_texts.id IS
  'A UUIDv7 by which lists and webhooks name it. NULL: it came before texts were kept.';
COMMENT ON COLUMN inbound_texts.words IS 'The text. NULL: not kept, or no longer.';
COMMENT ON COLUMN inbound_texts.characters IS 'The length of the text. NULL: not known.';
COMMENT ON COLUMN inbound_texts.provider IS 'The provider that brought it. NULL: not known.';
COMMENT ON COLUMN inbound_texts.channel IS 'The channel by which it came, like sms. NULL: not known.';
COMMENT ON COLUMN inbound_texts.sender IS 'Our sender to which it was written. NULL: not told.';

CREATE TABLE IF NOT EXISTS opt_out_changes (
  id UUID DEFAULT gen_random_uuid() NOT NULL,
  number TEXT NOT NULL,
  opted_out BOOLEAN NOT NULL,
  source TEXT NOT NULL,
  inbound_id UUID,
  changed BOOLEAN NOT NULL,
  at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  noted_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT opt_out_changes_pkey PRIMARY KEY (id)
);
CREATE INDEX IF NOT EXISTS opt_out_changes_number_idx ON opt_out_changes (number, at);
CREATE INDEX IF NOT EXISTS opt_out_changes_noted_at_idx ON opt_out_changes
  USING brin (noted_at) WITH (pages_per_range = 32, autosummarize = on);

COMMENT ON TABLE opt_out_changes IS 'Who said what about a number, opting out or in.';
COMMENT ON COLUMN opt_out_changes.id IS 'By which webhooks name it.';
COMMENT ON COLUMN opt_out_changes.number IS 'The number in E.164. Empty: the person was erased.';
COMMENT ON COLUMN opt_out_changes.opted_out IS 'Whether it must not be texted from then on, or may be again.';
COMMENT ON COLUMN opt_out_changes.source IS 'Who said so: sms, provider, or what was told.';
COMMENT ON COLUMN opt_out_changes.inbound_id IS 'The text that says so. NULL: none.';
COMMENT ON COLUMN opt_out_changes.changed IS 'Whether the list changed by it; only then it is told.';
COMMENT ON COLUMN opt_out_changes.at IS 'When it was said; what was said before is ignored.';
COMMENT ON COLUMN opt_out_changes.noted_at IS 'When it was written down.';
"""

INDEXES = (
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS inbound_texts_of_number_idx ON inbound_texts (number, received_at)",
    "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS inbound_texts_id_idx ON inbound_texts (id)",
    """
    CREATE INDEX CONCURRENTLY IF NOT EXISTS inbound_texts_received_at_idx ON inbound_texts
      USING brin (received_at) WITH (pages_per_range = 32, autosummarize = on)
    """,
    "DROP INDEX CONCURRENTLY IF EXISTS inbound_texts_number_idx",
)


def upgrade() -> None:
    op.execute(TABLES)
    with op.get_context().autocommit_block():
        for index in INDEXES:
            op.execute(index)


def downgrade() -> None:
    op.execute("""
    DROP TABLE opt_out_changes;
    ALTER TABLE inbound_texts
      DROP COLUMN id,
      DROP COLUMN words,
      DROP COLUMN characters,
      DROP COLUMN provider,
      DROP COLUMN channel,
      DROP COLUMN sender;
    DROP INDEX inbound_texts_of_number_idx;
    DROP INDEX inbound_texts_received_at_idx;
    CREATE INDEX inbound_texts_number_idx ON inbound_texts (number, received_at) WHERE wish IS NOT NULL;
    COMMENT ON TABLE inbound_texts IS 'What people wrote to one of our senders: that they did, and not the words.';
    COMMENT ON COLUMN inbound_texts.number IS 'Who wrote, in E.164. Empty: the person was erased.';
    """)
