"""Blasts: one notification to everybody in a segment, and the recurring ones.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE blasts (
  id UUID NOT NULL,
  key TEXT NOT NULL,
  segment TEXT,
  filter JSONB NOT NULL,
  message JSONB NOT NULL,
  throttle_per_min INTEGER,
  schedule TEXT,
  state TEXT NOT NULL,
  reason TEXT,
  cursor TEXT,
  total INTEGER DEFAULT 0 NOT NULL,
  next_at TIMESTAMP WITH TIME ZONE,
  wake_at TIMESTAMP WITH TIME ZONE,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  started_at TIMESTAMP WITH TIME ZONE,
  expanded_at TIMESTAMP WITH TIME ZONE,
  finished_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT blasts_pkey PRIMARY KEY (id),
  CONSTRAINT blasts_key_key UNIQUE (key),
  CONSTRAINT blasts_state_check CHECK (state IN ('running', 'paused', 'finished', 'aborted')),
  CONSTRAINT blasts_wake_at_check CHECK (state <> 'running' OR wake_at IS NOT NULL),
  CONSTRAINT blasts_finished_check CHECK ((state IN ('finished', 'aborted')) = (finished_at IS NOT NULL))
);

CREATE INDEX blasts_wake_at_idx ON blasts (wake_at) WHERE wake_at IS NOT NULL;

CREATE TABLE blast_pages (
  id UUID NOT NULL,
  last_id UUID NOT NULL,
  blast_id UUID NOT NULL,
  count INTEGER NOT NULL,
  users TEXT[],
  wake_at TIMESTAMP WITH TIME ZONE,
  released_at TIMESTAMP WITH TIME ZONE,
  sent_at TIMESTAMP WITH TIME ZONE,
  cancelled_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT blast_pages_pkey PRIMARY KEY (id),
  CONSTRAINT blast_pages_blast_id_fkey FOREIGN KEY (blast_id) REFERENCES blasts (id) ON DELETE CASCADE,
  CONSTRAINT blast_pages_sent_check CHECK (users IS NULL OR sent_at IS NULL)
);

CREATE INDEX blast_pages_waiting_idx ON blast_pages (blast_id, id) WHERE users IS NOT NULL;

CREATE INDEX blast_pages_released_idx ON blast_pages (blast_id, released_at) WHERE released_at IS NOT NULL;

CREATE INDEX blast_pages_sent_idx ON blast_pages (blast_id, id) WHERE sent_at IS NOT NULL;

CREATE TABLE blast_schedules (
  name TEXT NOT NULL,
  definition JSONB NOT NULL,
  next_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  last_at TIMESTAMP WITH TIME ZONE,
  outcome TEXT,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT blast_schedules_pkey PRIMARY KEY (name)
);

CREATE INDEX blast_schedules_next_at_idx ON blast_schedules (next_at);
"""


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("DROP TABLE blast_schedules, blast_pages, blasts")
