"""How long a batch's push and messages are of use, where the application says so.

Revision ID: 0026
Revises: 0025
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# A column without a default does not rewrite the table.
COLUMN = """
ALTER TABLE batches ADD COLUMN valid_for INTERVAL;
COMMENT ON COLUMN batches.valid_for IS
  'How long after it was due a push or a message is of use. NULL: the category''s setting.';
"""


def upgrade() -> None:
    op.execute(COLUMN)


def downgrade() -> None:
    op.execute("ALTER TABLE batches DROP COLUMN valid_for")
