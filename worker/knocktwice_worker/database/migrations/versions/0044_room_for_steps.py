"""Room where rows change: a step's next version stays on its page. A push to one device is written once and needs none.

Revision ID: 0044
Revises: 0043
"""

from alembic import op

revision = "0044"
down_revision = "0043"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
    ALTER TABLE deliveries SET (fillfactor = 50);
    ALTER TABLE attempts RESET (fillfactor);
    """)


def downgrade() -> None:
    op.execute("""
    ALTER TABLE deliveries RESET (fillfactor);
    ALTER TABLE attempts SET (fillfactor = 50);
    """)
