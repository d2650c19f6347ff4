"""Who logged out of a device last, and when: a logout concerns one person, not whoever has the device now.

And of a push to a device that the application named itself: at which place.

Revision ID: 0028
Revises: 0027
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# Columns without a default do not rewrite the tables.
COLUMNS = """
ALTER TABLE devices
  ADD COLUMN IF NOT EXISTS left_user TEXT,
  ADD COLUMN IF NOT EXISTS left_at TIMESTAMP WITH TIME ZONE;

ALTER TABLE attempts ADD COLUMN IF NOT EXISTS place SMALLINT;

COMMENT ON COLUMN devices.left_user IS 'Who logged out of it last. NULL: nobody by name.';
COMMENT ON COLUMN devices.left_at IS
  'When that was, so that an older registration of the same person, arriving late, has no effect.';
COMMENT ON COLUMN attempts.place IS
  'Its place among the registrations that the application gave, from 0. NULL: it is one of the person''s devices.';
"""
INDEX = (
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS devices_left_user_idx ON devices (left_user) WHERE left_user IS NOT NULL"
)


def upgrade() -> None:
    op.execute(COLUMNS)
    with op.get_context().autocommit_block():
        op.execute(INDEX)


def downgrade() -> None:
    op.execute("ALTER TABLE devices DROP COLUMN left_user, DROP COLUMN left_at")
    op.execute("ALTER TABLE attempts DROP COLUMN place")
