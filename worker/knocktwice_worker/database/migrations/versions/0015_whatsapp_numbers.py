"""Roll-ups know WhatsApp messages of which nobody can tell, and what they cost.

Revision ID: 0015
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# What is closed cannot be counted again: all of its messages are taken to have no price of their own. The rest is.
SCHEMA = """
ALTER TABLE rollups
  ADD COLUMN whatsapp_unknown BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN unpriced_whatsapp BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN whatsapp_price NUMERIC NOT NULL DEFAULT 0;

UPDATE rollups SET unpriced_whatsapp = whatsapp_sent WHERE whatsapp_sent > 0;
UPDATE rollup_slices SET dirty = true WHERE starts_at IN (SELECT slice FROM rollups WHERE whatsapp_sent > 0);

ALTER TABLE rollups
  ALTER COLUMN whatsapp_unknown DROP DEFAULT,
  ALTER COLUMN unpriced_whatsapp DROP DEFAULT,
  ALTER COLUMN whatsapp_price DROP DEFAULT;
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to the version before: what WhatsApp messages cost is lost."""
    op.execute(
        "ALTER TABLE rollups DROP COLUMN whatsapp_unknown, DROP COLUMN unpriced_whatsapp, DROP COLUMN whatsapp_price"
    )
