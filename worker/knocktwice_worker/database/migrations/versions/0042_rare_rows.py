"""Messages of unknown outcome and draws of an experiment are found without reading the whole history.

Revision ID: 0042
Revises: 0041
"""

from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_unknown_idx ON deliveries (notification_id, step)
          WHERE step > 0 AND state = 'unknown'
        """)
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS decisions_experiment_idx ON decisions (at)
          WHERE inputs ? 'experiment'
        """)


def downgrade() -> None:
    op.execute("""
    DROP INDEX decisions_experiment_idx;
    DROP INDEX deliveries_unknown_idx;
    """)
