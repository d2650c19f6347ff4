"""Short links: which token stands for which address.

Revision ID: 0012
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE links (
  token TEXT NOT NULL,
  notification_id UUID NOT NULL,
  step SMALLINT NOT NULL,
  target TEXT,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT links_pkey PRIMARY KEY (token)
);

CREATE INDEX links_notification_id_idx ON links (notification_id);
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to 0014; links that were sent lead nowhere."""
    op.execute("DROP TABLE links")
