"""The indexes by the times at which a step ended and was heard of leave out rows that have none.

PostgreSQL writes to such an index for each change of a row among pages on which all rows have none.

Revision ID: 0045
Revises: 0044
"""

from alembic import op

revision = "0045"
down_revision = "0044"
branch_labels = None
depends_on = None

_SUMMARY = "WITH (pages_per_range = 32, autosummarize = on)"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_ended_idx ON deliveries USING brin (finished_at) {_SUMMARY}
          WHERE finished_at IS NOT NULL
        """)
        op.execute(f"""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_heard_idx ON deliveries USING brin (heard_at) {_SUMMARY}
          WHERE heard_at IS NOT NULL
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_finished_at_idx")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_heard_at_idx")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_finished_at_idx ON deliveries USING brin (finished_at) {_SUMMARY}
        """)
        op.execute(f"""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_heard_at_idx ON deliveries USING brin (heard_at) {_SUMMARY}
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_heard_idx")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_ended_idx")
