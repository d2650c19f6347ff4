"""What providers report of SMS, texts that came in, and which kinds of devices confirm pushes.

Revision ID: 0009
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE deliveries
  ADD COLUMN price NUMERIC,
  ADD COLUMN price_unit TEXT,
  ADD COLUMN reported_at TIMESTAMP WITH TIME ZONE;

CREATE INDEX deliveries_unreported_idx ON deliveries (finished_at)
  WHERE step > 0 AND state = 'sent' AND reported_at IS NULL;

CREATE TABLE provider_reports (
  provider_id TEXT NOT NULL,
  status TEXT NOT NULL,
  notification_id UUID,
  step SMALLINT,
  error INTEGER,
  price NUMERIC,
  price_unit TEXT,
  at TIMESTAMP WITH TIME ZONE NOT NULL,
  received_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT provider_reports_pkey PRIMARY KEY (provider_id, status)
);

CREATE TABLE inbound_texts (
  provider_id TEXT NOT NULL,
  number TEXT NOT NULL,
  wish TEXT,
  received_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT inbound_texts_pkey PRIMARY KEY (provider_id)
);

CREATE INDEX inbound_texts_number_idx ON inbound_texts (number, received_at) WHERE wish IS NOT NULL;

CREATE TABLE receipt_health (
  hour TIMESTAMP WITH TIME ZONE NOT NULL,
  platform TEXT NOT NULL,
  app_version TEXT NOT NULL,
  pushes INTEGER NOT NULL,
  delivered INTEGER NOT NULL,
  confirmed INTEGER NOT NULL,
  CONSTRAINT receipt_health_pkey PRIMARY KEY (hour, platform, app_version)
);
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to 0008; what providers and phones reported is lost, opt-outs stay."""
    op.execute("DROP TABLE provider_reports, inbound_texts, receipt_health")
    op.execute("DROP INDEX deliveries_unreported_idx")
    op.execute("ALTER TABLE deliveries DROP COLUMN price, DROP COLUMN price_unit, DROP COLUMN reported_at")
