"""Answers: replies to messages, and receipts that a person has seen elsewhere what a notification says.

Revision ID: 0039
Revises: 0038
"""

from alembic import op

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None

# A constraint that is not valid yet is checked for new rows only, so the table is not read while it is locked.
SCHEMA = """
ALTER TABLE events DROP CONSTRAINT IF EXISTS events_kind_check;
ALTER TABLE events ADD CONSTRAINT events_kind_check
  CHECK (kind IN ('delivered', 'clicked', 'seen', 'replied', 'cancelled')) NOT VALID;
ALTER TABLE inbound_texts ADD COLUMN IF NOT EXISTS answers UUID;
COMMENT ON COLUMN events.kind IS 'delivered, clicked, seen, replied or cancelled.';
COMMENT ON COLUMN events.registration IS
  'The device that reported it; of a later step, the provider''s message; of a reply, its id. Empty: not told.';
COMMENT ON COLUMN rollups.responded IS 'A device reported a click, somebody wrote back, or saw it elsewhere.';
COMMENT ON COLUMN inbound_texts.answers IS 'The notification that it answers. NULL: none that is known.';
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE events VALIDATE CONSTRAINT events_kind_check")


def downgrade() -> None:
    op.execute("""
    DELETE FROM events WHERE kind IN ('seen', 'replied');
    ALTER TABLE events DROP CONSTRAINT events_kind_check;
    ALTER TABLE events ADD CONSTRAINT events_kind_check CHECK (kind IN ('delivered', 'clicked', 'cancelled'));
    ALTER TABLE inbound_texts DROP COLUMN answers;
    COMMENT ON COLUMN events.kind IS 'delivered, clicked or cancelled.';
    """)
