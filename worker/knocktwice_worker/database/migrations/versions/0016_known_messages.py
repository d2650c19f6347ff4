"""The index over providers' ids holds the messages that have one: every change of a row that had none yet wrote an entry.

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Leave out what has no id."""
    op.execute("DROP INDEX deliveries_provider_id_idx")
    op.execute(
        "CREATE UNIQUE INDEX deliveries_provider_id_idx ON deliveries (provider_id) "
        "WHERE step > 0 AND provider_id IS NOT NULL"
    )


def downgrade() -> None:
    """Take all in again."""
    op.execute("DROP INDEX deliveries_provider_id_idx")
    op.execute("CREATE UNIQUE INDEX deliveries_provider_id_idx ON deliveries (provider_id) WHERE step > 0")
