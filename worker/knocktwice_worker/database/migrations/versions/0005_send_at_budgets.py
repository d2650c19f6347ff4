"""Parts and sender of each SMS: what budgets count, and whose list of messages to ask.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE deliveries ADD COLUMN parts SMALLINT;
ALTER TABLE deliveries ADD COLUMN sender TEXT;

CREATE INDEX deliveries_counted_at_idx ON deliveries USING brin (counted_at) WHERE parts IS NOT NULL;
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to before; what was counted today counts for no budget any more."""
    op.execute("DROP INDEX deliveries_counted_at_idx")
    op.execute("ALTER TABLE deliveries DROP COLUMN parts")
    op.execute("ALTER TABLE deliveries DROP COLUMN sender")
