"""Every message of a later step names its provider, and roll-ups count any channel.

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

from uuid import UUID

from alembic import op
from sqlalchemy import text

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# Until now a delivery without a provider was Twilio's. Only what was tried has one; what nobody has tried yet gets one when it
# is claimed. The table may be large: it is walked once along its primary key, 5,000 rows in a transaction, so no lock is held
# for long and a kill loses nothing. Run again, it finds only what is left.
NAME = """
WITH part AS (
  SELECT notification_id, step
  FROM deliveries
  WHERE notification_id >= :seen
    AND step > 0
    AND provider IS NULL
    AND (claimed_at IS NOT NULL OR provider_id IS NOT NULL)
  ORDER BY notification_id, step
  LIMIT 5000
), named AS (
  UPDATE deliveries d
  SET provider = 'twilio'
  FROM part p
  WHERE d.notification_id = p.notification_id AND d.step = p.step
  RETURNING d.notification_id
)
SELECT (array_agg(notification_id ORDER BY notification_id DESC))[1] FROM named
"""

# The same in one go, for those who read the SQL and run it themselves.
NAME_ALL = """
UPDATE deliveries
SET provider = 'twilio'
WHERE step > 0 AND provider IS NULL AND (claimed_at IS NOT NULL OR provider_id IS NOT NULL)
"""

# Both tables are small: reports wait for seconds, and roll-ups have a line for each template, country and day.
TABLES = """
ALTER TABLE provider_reports ADD COLUMN provider TEXT;
UPDATE provider_reports
SET provider = CASE WHEN strpos(provider_id, ':') > 0 THEN split_part(provider_id, ':', 1) ELSE 'twilio' END;
ALTER TABLE provider_reports ALTER COLUMN provider SET NOT NULL;

ALTER TABLE rollups ADD COLUMN channels JSONB NOT NULL DEFAULT '{}';
UPDATE rollups
SET channels = jsonb_build_object('whatsapp', jsonb_build_object(
  'sent', whatsapp_sent,
  'delivered', whatsapp_delivered,
  'read', whatsapp_read,
  'unknown', whatsapp_unknown,
  'unpriced', unpriced_whatsapp,
  'price', whatsapp_price
))
WHERE whatsapp_sent > 0 OR whatsapp_unknown > 0;
ALTER TABLE rollups
  ALTER COLUMN channels DROP DEFAULT,
  DROP COLUMN whatsapp_sent,
  DROP COLUMN whatsapp_delivered,
  DROP COLUMN whatsapp_read,
  DROP COLUMN whatsapp_unknown,
  DROP COLUMN unpriced_whatsapp,
  DROP COLUMN whatsapp_price;

COMMENT ON COLUMN provider_reports.provider IS 'The provider that reports.';
COMMENT ON COLUMN rollups.channels IS 'By channel, SMS apart: messages sent, delivered, read, unknown and unpriced, and the known prices.';
COMMENT ON COLUMN rollups.reached IS 'Notifications with a receipt, an SMS that is not known to be lost, or another message that arrived.';
COMMENT ON COLUMN deliveries.text IS 'The text, or what else the channel says, as its wording wrote it.';
COMMENT ON COLUMN deliveries.parts IS 'How many SMS parts it is paid by; 0: its channel has no parts. NULL: not reserved yet.';
COMMENT ON COLUMN deliveries.provider IS 'Which provider has it. NULL: no sender has claimed it yet.';
COMMENT ON COLUMN deliveries.number IS 'The recipient''s number in E.164, or what else the channel has. NULL: not reserved, a push, or erased.';
"""

BACK = """
ALTER TABLE rollups
  ADD COLUMN whatsapp_sent BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN whatsapp_delivered BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN whatsapp_read BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN whatsapp_unknown BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN unpriced_whatsapp BIGINT NOT NULL DEFAULT 0,
  ADD COLUMN whatsapp_price NUMERIC NOT NULL DEFAULT 0;
UPDATE rollups
SET whatsapp_sent = CAST(channels -> 'whatsapp' ->> 'sent' AS bigint),
  whatsapp_delivered = CAST(channels -> 'whatsapp' ->> 'delivered' AS bigint),
  whatsapp_read = CAST(channels -> 'whatsapp' ->> 'read' AS bigint),
  whatsapp_unknown = CAST(channels -> 'whatsapp' ->> 'unknown' AS bigint),
  unpriced_whatsapp = CAST(channels -> 'whatsapp' ->> 'unpriced' AS bigint),
  whatsapp_price = CAST(channels -> 'whatsapp' ->> 'price' AS numeric)
WHERE channels ? 'whatsapp';
ALTER TABLE rollups
  DROP COLUMN channels,
  ALTER COLUMN whatsapp_sent DROP DEFAULT,
  ALTER COLUMN whatsapp_delivered DROP DEFAULT,
  ALTER COLUMN whatsapp_read DROP DEFAULT,
  ALTER COLUMN whatsapp_unknown DROP DEFAULT,
  ALTER COLUMN unpriced_whatsapp DROP DEFAULT,
  ALTER COLUMN whatsapp_price DROP DEFAULT;
ALTER TABLE provider_reports DROP COLUMN provider;
"""


def upgrade() -> None:
    """Name the providers first, in transactions of their own; then change the small tables in one."""
    if op.get_context().as_sql:
        op.execute(NAME_ALL)
    else:
        with op.get_context().autocommit_block():
            seen: UUID | None = UUID(int=0)
            while seen is not None:
                seen = op.get_bind().execute(text(NAME), {"seen": seen}).scalar()
    op.execute(TABLES)


def downgrade() -> None:
    """Bring the columns back; names of providers may stay, and counts of other channels are lost."""
    op.execute(BACK)
