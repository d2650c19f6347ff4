"""A page of a person's history ends after its own rows, however many the person has.

Revision ID: 0043
Revises: 0042
"""

from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_of_person_idx ON notifications (coalesce(user_id, phone), id)
          WHERE coalesce(user_id, phone) IS NOT NULL
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS notifications_person_idx")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_person_idx ON notifications (coalesce(user_id, phone))
          WHERE coalesce(user_id, phone) IS NOT NULL
        """)
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS notifications_of_person_idx")
