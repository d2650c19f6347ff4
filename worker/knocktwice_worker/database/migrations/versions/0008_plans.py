"""Plans of any length: what follows which step, and what providers report of it.

Revision ID: 0008
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE batches ADD COLUMN plan JSONB;

ALTER TABLE deliveries
  ADD COLUMN after_step SMALLINT DEFAULT 0 NOT NULL,
  ADD COLUMN steps_left SMALLINT DEFAULT 0 NOT NULL,
  ADD COLUMN provider_status TEXT,
  ADD COLUMN provider_error INTEGER,
  ADD COLUMN provider_status_at TIMESTAMP WITH TIME ZONE,
  ADD CONSTRAINT deliveries_provider_status_check
    CHECK (provider_status IN ('sent', 'failed', 'undelivered', 'delivered', 'read'));

ALTER TABLE events ADD COLUMN step SMALLINT DEFAULT 0 NOT NULL;
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to 0006; later steps that are planned and what providers reported is lost."""
    op.execute("DELETE FROM events WHERE step > 0")
    op.execute("ALTER TABLE events DROP COLUMN step")
    op.execute(
        "ALTER TABLE deliveries DROP COLUMN after_step, DROP COLUMN steps_left, "
        "DROP COLUMN provider_status, DROP COLUMN provider_error, DROP COLUMN provider_status_at"
    )
    op.execute("ALTER TABLE batches DROP COLUMN plan")
