"""When each field of a device was said: changes that overtake each other may say different things.

Revision ID: 0029
Revises: 0028
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# A column without a default does not rewrite the table.
COLUMN = """
ALTER TABLE devices ADD COLUMN IF NOT EXISTS field_times JSONB;

COMMENT ON COLUMN devices.field_times IS
  'Field by field, when it was said: a message that arrives late changes only older fields. NULL: not known.';
"""


def upgrade() -> None:
    op.execute(COLUMN)


def downgrade() -> None:
    op.execute("ALTER TABLE devices DROP COLUMN field_times")
