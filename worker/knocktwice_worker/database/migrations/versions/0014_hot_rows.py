"""Rows that change a moment after they were written: room for their next version, and no look at their parents.

A batch, its notifications and what belongs to them are written by one function in one transaction and deleted by one; asking
PostgreSQL for each row whether its parent is there took a fifth of the database's time.

Revision ID: 0014
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE notifications DROP CONSTRAINT notifications_batch_id_fkey;
ALTER TABLE deliveries DROP CONSTRAINT deliveries_notification_id_fkey;
ALTER TABLE attempts DROP CONSTRAINT attempts_notification_id_fkey;
ALTER TABLE notifications SET (fillfactor = 50);
ALTER TABLE attempts SET (fillfactor = 50);
DROP INDEX notifications_key_idx;
CREATE UNIQUE INDEX notifications_key_idx ON notifications (key) WHERE key IS NOT NULL;
"""


def upgrade() -> None:
    op.execute("UPDATE notifications SET key = NULL WHERE state = 'duplicate' AND key IS NOT NULL")
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("""
    DROP INDEX notifications_key_idx;
    CREATE UNIQUE INDEX notifications_key_idx ON notifications (key) WHERE key IS NOT NULL AND state <> 'duplicate';
    ALTER TABLE notifications RESET (fillfactor);
    ALTER TABLE attempts RESET (fillfactor);
    ALTER TABLE attempts ADD FOREIGN KEY (notification_id) REFERENCES notifications (id) ON DELETE CASCADE;
    ALTER TABLE deliveries ADD FOREIGN KEY (notification_id) REFERENCES notifications (id) ON DELETE CASCADE;
    ALTER TABLE notifications ADD FOREIGN KEY (batch_id) REFERENCES batches (id);
    """)
