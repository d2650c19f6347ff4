"""Roll-ups: what happened, counted; and how far their followers have read.

Revision ID: 0010
"""

from alembic import op

revision = "0010"
down_revision = "0003"
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
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to the version before; what was counted is lost."""
    op.execute("DROP TABLE rollups, rollup_slices, followers")
    op.execute("DROP INDEX notifications_times_idx, deliveries_finished_at_idx, events_received_at_idx")
