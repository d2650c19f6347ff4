"""An index of the devices whose push is tried again: the brake counts those that FCM refuses for a mistake of ours.

Revision ID: 0046
Revises: 0045
"""

from alembic import op

revision = "0046"
down_revision = "0045"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS attempts_tried_again_idx ON attempts (notification_id)
          WHERE state = 'open' AND reason IS NOT NULL
        """)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS attempts_tried_again_idx")
