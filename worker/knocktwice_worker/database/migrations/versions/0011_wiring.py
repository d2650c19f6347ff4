"""When a provider's reports were written down, for those who count and tell; WhatsApp counted; blasts outlive their pages.

Revision ID: 0011
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE deliveries ADD COLUMN heard_at TIMESTAMP WITH TIME ZONE;

CREATE INDEX deliveries_heard_at_idx ON deliveries USING brin (heard_at)
  WITH (pages_per_range = 32, autosummarize = on);

ALTER TABLE rollups
  ADD COLUMN whatsapp_sent BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN whatsapp_delivered BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN whatsapp_read BIGINT NOT NULL DEFAULT 0;

ALTER TABLE rollups
  ALTER COLUMN whatsapp_sent DROP DEFAULT,
  ALTER COLUMN whatsapp_delivered DROP DEFAULT,
  ALTER COLUMN whatsapp_read DROP DEFAULT;

ALTER TABLE blasts ADD COLUMN purged INTEGER DEFAULT 0 NOT NULL;
"""


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("""
    ALTER TABLE blasts DROP COLUMN purged;
    ALTER TABLE rollups DROP COLUMN whatsapp_sent, DROP COLUMN whatsapp_delivered, DROP COLUMN whatsapp_read;
    DROP INDEX deliveries_heard_at_idx;
    ALTER TABLE deliveries DROP COLUMN heard_at;
    """)
