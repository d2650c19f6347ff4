"""Which SMS provider has a message, where there are several to choose from.

Revision ID: 0013
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE deliveries ADD COLUMN provider TEXT;
"""


def upgrade() -> None:
    """Build it."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Take it away."""
    op.execute("ALTER TABLE deliveries DROP COLUMN provider")
