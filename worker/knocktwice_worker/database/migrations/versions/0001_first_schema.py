"""The first schema.

Revision ID: 0001
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = """
CREATE FUNCTION knocktwice_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS 'SELECT now()';

CREATE TABLE batches (
  id UUID NOT NULL,
  content JSONB NOT NULL,
  category TEXT NOT NULL,
  ttl INTERVAL NOT NULL,
  reference JSONB NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT batches_pkey PRIMARY KEY (id)
);

CREATE TABLE dead_letters (
  id BIGINT GENERATED ALWAYS AS IDENTITY,
  message_id TEXT,
  task TEXT,
  reason TEXT NOT NULL,
  payload TEXT NOT NULL,
  at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT dead_letters_pkey PRIMARY KEY (id)
);

CREATE TABLE decisions (
  notification_id UUID NOT NULL,
  id BIGINT GENERATED ALWAYS AS IDENTITY,
  step SMALLINT NOT NULL,
  verdict TEXT NOT NULL,
  inputs JSONB NOT NULL,
  at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT decisions_pkey PRIMARY KEY (notification_id, id)
);

CREATE TABLE events (
  notification_id UUID NOT NULL,
  kind TEXT NOT NULL,
  registration TEXT NOT NULL,
  at TIMESTAMP WITH TIME ZONE NOT NULL,
  received_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT events_pkey PRIMARY KEY (notification_id, kind, registration),
  CONSTRAINT events_kind_check CHECK (kind IN ('delivered', 'clicked', 'cancelled'))
);

CREATE TABLE opt_outs (
  number TEXT NOT NULL,
  source TEXT NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT opt_outs_pkey PRIMARY KEY (number)
);

CREATE TABLE users (
  id TEXT NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT users_pkey PRIMARY KEY (id)
);

CREATE TABLE devices (
  registration TEXT NOT NULL,
  user_id TEXT,
  platform TEXT,
  notifications_enabled BOOLEAN DEFAULT true NOT NULL,
  locale TEXT,
  time_zone TEXT,
  app_version TEXT,
  changed_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  last_seen_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT devices_pkey PRIMARY KEY (registration),
  CONSTRAINT devices_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE INDEX devices_user_id_idx ON devices (user_id);

CREATE TABLE notifications (
  id UUID NOT NULL,
  batch_id UUID NOT NULL,
  user_id TEXT,
  phone TEXT,
  params JSONB NOT NULL,
  key TEXT,
  state TEXT NOT NULL,
  reason TEXT,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  finished_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT notifications_pkey PRIMARY KEY (id),
  CONSTRAINT notifications_state_check CHECK (state IN ('active', 'reached', 'pushed', 'texted', 'suppressed', 'failed', 'unknown', 'cancelled', 'duplicate')),
  CONSTRAINT notifications_finished_check CHECK ((state = 'active') = (finished_at IS NULL)),
  CONSTRAINT notifications_reason_check CHECK (state = 'active' OR reason IS NOT NULL),
  CONSTRAINT notifications_batch_id_fkey FOREIGN KEY(batch_id) REFERENCES batches (id)
);

CREATE UNIQUE INDEX notifications_key_idx ON notifications (key) WHERE key IS NOT NULL AND state <> 'duplicate';

CREATE TABLE phones (
  user_id TEXT NOT NULL,
  number TEXT,
  changed_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT phones_pkey PRIMARY KEY (user_id),
  CONSTRAINT phones_user_id_fkey FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE TABLE attempts (
  notification_id UUID NOT NULL,
  registration TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT,
  provider_id TEXT,
  CONSTRAINT attempts_pkey PRIMARY KEY (notification_id, registration),
  CONSTRAINT attempts_state_check CHECK (state IN ('open', 'sent', 'rejected')),
  CONSTRAINT attempts_notification_id_fkey FOREIGN KEY(notification_id) REFERENCES notifications (id) ON DELETE CASCADE
);

CREATE TABLE deliveries (
  notification_id UUID NOT NULL,
  step SMALLINT NOT NULL,
  channel TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT,
  "when" TEXT,
  due_at TIMESTAMP WITH TIME ZONE,
  wake_at TIMESTAMP WITH TIME ZONE,
  tries SMALLINT DEFAULT 0 NOT NULL,
  number TEXT,
  text TEXT,
  fingerprint BYTEA,
  counted_at TIMESTAMP WITH TIME ZONE,
  claimed_at TIMESTAMP WITH TIME ZONE,
  provider_id TEXT,
  finished_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT deliveries_pkey PRIMARY KEY (notification_id, step),
  CONSTRAINT deliveries_state_check CHECK (state IN ('scheduled', 'reserved', 'sending', 'sent', 'failed', 'unknown', 'skipped', 'cancelled')),
  CONSTRAINT deliveries_wake_at_check CHECK ((state IN ('reserved', 'scheduled', 'sending')) = (wake_at IS NOT NULL)),
  CONSTRAINT deliveries_finished_check CHECK ((wake_at IS NULL) = (finished_at IS NOT NULL)),
  CONSTRAINT deliveries_notification_id_fkey FOREIGN KEY(notification_id) REFERENCES notifications (id) ON DELETE CASCADE
);

CREATE INDEX deliveries_number_idx ON deliveries (number, counted_at) WHERE number IS NOT NULL;

CREATE UNIQUE INDEX deliveries_provider_id_idx ON deliveries (provider_id) WHERE step > 0;

CREATE INDEX deliveries_wake_at_idx ON deliveries (wake_at) WHERE wake_at IS NOT NULL;
"""

TABLES = (
    "decisions, dead_letters, events, attempts, deliveries, notifications, batches, opt_outs, phones, devices, users"
)


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute(f"DROP TABLE {TABLES}")
    op.execute("DROP FUNCTION knocktwice_now()")
