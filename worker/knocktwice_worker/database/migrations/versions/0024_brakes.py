"""Brakes: the outcomes of pushes by kind of device, the brakes that trip, the SMS that they hold, and alarms.

Revision ID: 0024
Revises: 0023
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

# Neither column rewrites the table: one has no default, the other a constant one.
SCHEMA = """
ALTER TABLE deliveries
  ADD COLUMN IF NOT EXISTS brake BIGINT,
  ADD COLUMN IF NOT EXISTS brake_waived BOOLEAN NOT NULL DEFAULT false;

CREATE TABLE IF NOT EXISTS push_counts (
  slot TIMESTAMP WITH TIME ZONE NOT NULL,
  template TEXT NOT NULL,
  platform TEXT NOT NULL,
  app_version TEXT NOT NULL,
  refused BIGINT NOT NULL,
  sent BIGINT NOT NULL,
  delivered BIGINT NOT NULL,
  clicked BIGINT NOT NULL,
  troubled BOOLEAN DEFAULT false NOT NULL,
  CONSTRAINT push_counts_pkey PRIMARY KEY (slot, template, platform, app_version)
);
COMMENT ON TABLE push_counts IS 'What became of pushes within half a minute, for the brake, by template and kind of device.';
COMMENT ON COLUMN push_counts.slot IS 'When the slot begins in which the pushes were handed over: 15 seconds, later an hour, later a day.';
COMMENT ON COLUMN push_counts.template IS 'The template. Empty: none.';
COMMENT ON COLUMN push_counts.platform IS 'android, ios, web or unknown.';
COMMENT ON COLUMN push_counts.app_version IS 'The version of the app. Empty: not known.';
COMMENT ON COLUMN push_counts.refused IS 'Pushes that the provider refused for a reason that is not the device''s.';
COMMENT ON COLUMN push_counts.sent IS 'Pushes that the provider took.';
COMMENT ON COLUMN push_counts.delivered IS 'Of these, reported as delivered within half a minute.';
COMMENT ON COLUMN push_counts.clicked IS 'Of these, clicked within half a minute.';
COMMENT ON COLUMN push_counts.troubled IS 'Whether a brake was on, so that this says nothing of what is usual.';
CREATE TABLE IF NOT EXISTS brakes (
  id BIGINT GENERATED ALWAYS AS IDENTITY,
  kind TEXT NOT NULL,
  template TEXT,
  platform TEXT,
  app_version TEXT,
  state TEXT DEFAULT 'on' NOT NULL,
  since TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  counted_from TIMESTAMP WITH TIME ZONE NOT NULL,
  ended_at TIMESTAMP WITH TIME ZONE,
  grace_until TIMESTAMP WITH TIME ZONE,
  pushes BIGINT NOT NULL,
  share NUMERIC NOT NULL,
  usual NUMERIC NOT NULL,
  why TEXT NOT NULL,
  passed BIGINT DEFAULT 0 NOT NULL,
  CONSTRAINT brakes_pkey PRIMARY KEY (id),
  CONSTRAINT brakes_kind_check CHECK (kind IN ('refused', 'undelivered', 'unclicked')),
  CONSTRAINT brakes_state_check CHECK (state IN ('on', 'over', 'released')),
  CONSTRAINT brakes_ended_check CHECK ((state = 'on') = (ended_at IS NULL))
);
CREATE INDEX IF NOT EXISTS brakes_on_idx ON brakes (id) WHERE state = 'on';
COMMENT ON TABLE brakes IS 'Brakes: each holds the SMS of one kind of people whose share that falls back has jumped.';
COMMENT ON COLUMN brakes.id IS 'In the order in which they tripped.';
COMMENT ON COLUMN brakes.kind IS 'What is wrong with the pushes: refused, undelivered or unclicked.';
COMMENT ON COLUMN brakes.template IS 'The template whose SMS it holds. NULL: any; empty: none.';
COMMENT ON COLUMN brakes.platform IS 'The platform. NULL: any.';
COMMENT ON COLUMN brakes.app_version IS 'The version of the app. NULL: any; empty: not known.';
COMMENT ON COLUMN brakes.state IS 'on; over: the share is usual again; released: by an operator.';
COMMENT ON COLUMN brakes.since IS 'When it tripped.';
COMMENT ON COLUMN brakes.counted_from IS 'From when on the pushes that it covers say nothing of what is usual.';
COMMENT ON COLUMN brakes.ended_at IS 'Since when it holds nothing new. NULL: it is on.';
COMMENT ON COLUMN brakes.grace_until IS 'Until when nothing that it covered is held again. NULL: no operator released it.';
COMMENT ON COLUMN brakes.pushes IS 'The pushes by which it tripped.';
COMMENT ON COLUMN brakes.share IS 'The share of these that nobody answers or nobody can.';
COMMENT ON COLUMN brakes.usual IS 'The usual share.';
COMMENT ON COLUMN brakes.why IS 'The same in words.';
COMMENT ON COLUMN brakes.passed IS 'SMS that went although it was on, because the settings only watch their kind.';
CREATE TABLE IF NOT EXISTS alarms (
  type TEXT NOT NULL,
  subject UUID NOT NULL,
  at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  data JSONB NOT NULL,
  count BIGINT DEFAULT 1 NOT NULL,
  CONSTRAINT alarms_pkey PRIMARY KEY (type, subject)
);
CREATE INDEX IF NOT EXISTS alarms_at_idx ON alarms (at);
COMMENT ON TABLE alarms IS 'What an operator must know and no notification tells, for webhooks and doctor.';
COMMENT ON COLUMN alarms.type IS 'What happened, like brake.on.';
COMMENT ON COLUMN alarms.subject IS 'About what; an alarm about the same is raised once.';
COMMENT ON COLUMN alarms.at IS 'When it happened first.';
COMMENT ON COLUMN alarms.data IS 'What the webhook says.';
COMMENT ON COLUMN alarms.count IS 'How often it happened.';
COMMENT ON COLUMN deliveries.brake IS 'The brake that held it last. NULL: none has.';
COMMENT ON COLUMN deliveries.brake_waived IS 'Whether it was released from a brake, so that no brake holds it again.';
"""


INDEX = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS deliveries_brake_idx ON deliveries (brake, notification_id)
WHERE brake IS NOT NULL AND wake_at IS NOT NULL AND NOT brake_waived
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    with op.get_context().autocommit_block():
        op.execute(INDEX)


def downgrade() -> None:
    op.execute("""
    ALTER TABLE deliveries DROP COLUMN brake, DROP COLUMN brake_waived;
    DROP TABLE push_counts, brakes, alarms;
    """)
