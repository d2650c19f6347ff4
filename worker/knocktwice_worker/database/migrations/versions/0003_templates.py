"""Templates, and which of a template's contents a notification has.

Revision ID: 0003
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE templates (
  name TEXT NOT NULL,
  definition JSONB NOT NULL,
  version INTEGER NOT NULL,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT templates_pkey PRIMARY KEY (name)
);

ALTER TABLE notifications ADD COLUMN locale TEXT;
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to 0002; what templates said is lost."""
    op.execute("DROP TABLE templates")
    op.execute("ALTER TABLE notifications DROP COLUMN locale")
