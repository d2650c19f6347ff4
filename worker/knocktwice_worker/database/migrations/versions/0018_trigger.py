"""A step's trigger is called ``trigger``: ``when`` is a word of SQL's own, and every query had to quote it.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rename the column. Workers of the release before do not know the new name: stop them first."""
    op.execute('ALTER TABLE deliveries RENAME COLUMN "when" TO trigger')


def downgrade() -> None:
    """Give it back its old name."""
    op.execute('ALTER TABLE deliveries RENAME COLUMN trigger TO "when"')
