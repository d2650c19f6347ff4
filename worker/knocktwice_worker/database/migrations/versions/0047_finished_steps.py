"""Steps are found exactly by the times at which they ended and were heard of.

An index that keeps the span of 32 pages has all those read on which old and new rows lie side by side.

Revision ID: 0047
Revises: 0046
"""

from alembic import op

revision = "0047"
down_revision = "0046"
branch_labels = None
depends_on = None

_SUMMARY = "WITH (pages_per_range = 32, autosummarize = on)"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_finished_idx ON deliveries (finished_at, number)
          WHERE finished_at IS NOT NULL
        """)
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_reports_idx ON deliveries (heard_at)
          WHERE heard_at IS NOT NULL
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_ended_idx")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_heard_idx")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(f"""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_ended_idx ON deliveries USING brin (finished_at) {_SUMMARY}
          WHERE finished_at IS NOT NULL
        """)
        op.execute(f"""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_heard_idx ON deliveries USING brin (heard_at) {_SUMMARY}
          WHERE heard_at IS NOT NULL
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_reports_idx")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_finished_idx")
