"""A number's messages and a person's notifications are found by indexes whose first column is a time.

Over numbers or people alone each new entry goes to a page of its own, which with a long history is not in memory.

Revision ID: 0048
Revises: 0047
"""

from alembic import op

revision = "0048"
down_revision = "0047"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_number_by_day_idx
          ON deliveries ((CAST(counted_at AT TIME ZONE 'UTC' AS date)), number, counted_at) WHERE counted_at IS NOT NULL
        """)
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_person_by_time_idx
          ON notifications (substr(uuid_send(id), 1, 3), coalesce(user_id, phone), id)
          WHERE coalesce(user_id, phone) IS NOT NULL
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_number_idx")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_counted_at_idx")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS notifications_of_person_idx")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_of_person_idx ON notifications (coalesce(user_id, phone), id)
          WHERE coalesce(user_id, phone) IS NOT NULL
        """)
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_counted_at_idx ON deliveries USING brin (counted_at)
          WHERE parts IS NOT NULL
        """)
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_number_idx ON deliveries (number, counted_at)
          WHERE number IS NOT NULL
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS notifications_person_by_time_idx")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS deliveries_number_by_day_idx")
