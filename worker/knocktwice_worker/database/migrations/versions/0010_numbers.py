"""Roll-ups: what happened, counted. Webhooks: what happened, told. And how far these followers have read.

Revision ID: 0010
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE INDEX notifications_times_idx ON notifications USING brin (created_at, finished_at)
  WITH (pages_per_range = 32, autosummarize = on);

CREATE INDEX deliveries_finished_at_idx ON deliveries USING brin (finished_at)
  WITH (pages_per_range = 32, autosummarize = on);

CREATE INDEX events_received_at_idx ON events USING brin (received_at)
  WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE followers (
  name TEXT NOT NULL,
  seen_until TIMESTAMP WITH TIME ZONE NOT NULL,
  CONSTRAINT followers_pkey PRIMARY KEY (name)
);

CREATE TABLE rollup_slices (
  starts_at TIMESTAMP WITH TIME ZONE NOT NULL,
  dirty BOOLEAN NOT NULL,
  counted_at TIMESTAMP WITH TIME ZONE,
  rows BIGINT DEFAULT 0 NOT NULL,
  CONSTRAINT rollup_slices_pkey PRIMARY KEY (starts_at)
);

CREATE INDEX rollup_slices_dirty_idx ON rollup_slices (starts_at) WHERE dirty;

CREATE TABLE rollups (
  day DATE NOT NULL,
  slice TIMESTAMP WITH TIME ZONE NOT NULL,
  template TEXT NOT NULL,
  blast TEXT NOT NULL,
  country TEXT NOT NULL,
  category TEXT NOT NULL,
  accepted BIGINT NOT NULL,
  duplicates BIGINT NOT NULL,
  cancelled BIGINT NOT NULL,
  failed BIGINT NOT NULL,
  pushed BIGINT NOT NULL,
  delivered BIGINT NOT NULL,
  clicked BIGINT NOT NULL,
  fell_back BIGINT NOT NULL,
  sms_sent BIGINT NOT NULL,
  sms_delivered BIGINT NOT NULL,
  sms_undelivered BIGINT NOT NULL,
  sms_unknown BIGINT NOT NULL,
  sms_wasted BIGINT NOT NULL,
  sms_parts BIGINT NOT NULL,
  unpriced_parts BIGINT NOT NULL,
  price NUMERIC NOT NULL,
  reached BIGINT NOT NULL,
  suppressed JSONB NOT NULL,
  CONSTRAINT rollups_pkey PRIMARY KEY (day, slice, template, blast, country, category)
);

CREATE INDEX rollups_slice_idx ON rollups (slice);

CREATE TABLE webhook_endpoints (
  id TEXT NOT NULL,
  url TEXT NOT NULL,
  events TEXT[] DEFAULT '{}' NOT NULL,
  personal BOOLEAN DEFAULT false NOT NULL,
  since TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  failures INTEGER DEFAULT 0 NOT NULL,
  failing_since TIMESTAMP WITH TIME ZONE,
  resume_at TIMESTAMP WITH TIME ZONE,
  last_error TEXT,
  disabled_at TIMESTAMP WITH TIME ZONE,
  disabled_reason TEXT,
  CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id),
  CONSTRAINT webhook_endpoints_url_key UNIQUE (url)
);

CREATE TABLE webhook_events (
  id BIGINT GENERATED ALWAYS AS IDENTITY,
  notification_id UUID NOT NULL,
  step SMALLINT NOT NULL,
  type TEXT NOT NULL,
  at TIMESTAMP WITH TIME ZONE NOT NULL,
  data JSONB NOT NULL,
  CONSTRAINT webhook_events_pkey PRIMARY KEY (id),
  CONSTRAINT webhook_events_notification_id_key UNIQUE (notification_id, step, type)
);

CREATE INDEX webhook_events_at_idx ON webhook_events (at);

CREATE TABLE webhook_deliveries (
  endpoint_id TEXT NOT NULL,
  event_id BIGINT NOT NULL,
  notification_id UUID NOT NULL,
  tries SMALLINT DEFAULT 0 NOT NULL,
  next_at TIMESTAMP WITH TIME ZONE,
  delivered_at TIMESTAMP WITH TIME ZONE,
  error TEXT,
  CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (endpoint_id, event_id),
  CONSTRAINT webhook_deliveries_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES webhook_endpoints (id) ON DELETE CASCADE,
  CONSTRAINT webhook_deliveries_event_id_fkey FOREIGN KEY (event_id) REFERENCES webhook_events (id) ON DELETE CASCADE
);

CREATE INDEX webhook_deliveries_event_id_idx ON webhook_deliveries (event_id);

CREATE INDEX webhook_deliveries_next_at_idx ON webhook_deliveries (endpoint_id, next_at) WHERE next_at IS NOT NULL;

CREATE INDEX webhook_deliveries_open_idx ON webhook_deliveries (endpoint_id, notification_id, event_id)
  WHERE next_at IS NOT NULL;
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to the version before; what was counted, and what was to be told, is lost."""
    op.execute("DROP TABLE webhook_deliveries, webhook_events, webhook_endpoints, rollups, rollup_slices, followers")
    op.execute("DROP INDEX notifications_times_idx, deliveries_finished_at_idx, events_received_at_idx")
