"""Who logged out of a device last, and when: a logout concerns one person, not whoever has the device now.

Revision ID: 0023
Revises: 0022
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Columns without a default do not rewrite the table, and the index begins without a row.
COLUMNS = """
ALTER TABLE devices
  ADD COLUMN left_user TEXT,
  ADD COLUMN left_at TIMESTAMP WITH TIME ZONE;

COMMENT ON COLUMN devices.left_user IS 'Who logged out of it last. NULL: nobody by name.';
COMMENT ON COLUMN devices.left_at IS
  'When that was, so that an older registration of the same person, arriving late, has no effect.';

CREATE INDEX devices_left_user_idx ON devices (left_user) WHERE left_user IS NOT NULL;
"""


def upgrade() -> None:
    op.execute(COLUMNS)


def downgrade() -> None:
    op.execute("ALTER TABLE devices DROP COLUMN left_user, DROP COLUMN left_at")
