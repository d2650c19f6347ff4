"""Messages that failed after their provider had taken them, for what the operator must mend, and are sent again.

Revision ID: 0040
Revises: 0039
"""

from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS lost_ids TEXT[];
ALTER TABLE provider_reports ADD COLUMN IF NOT EXISTS operators TEXT;
COMMENT ON COLUMN deliveries.lost_ids IS
  'The provider''s ids of earlier messages of this step, which it had taken and then failed. NULL: none.';
COMMENT ON COLUMN provider_reports.operators IS 'What the operator must mend, where the report says so.';
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    with op.get_context().autocommit_block():
        op.execute("""
        CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_lost_ids_idx ON deliveries USING gin (lost_ids)
          WHERE lost_ids IS NOT NULL
        """)


def downgrade() -> None:
    op.execute("""
    DROP INDEX deliveries_lost_ids_idx;
    ALTER TABLE deliveries DROP COLUMN lost_ids;
    ALTER TABLE provider_reports DROP COLUMN operators;
    """)
