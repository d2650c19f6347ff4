"""How many messages went that rules which are only watched would have stopped.

Revision ID: 0041
Revises: 0040
"""

from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE IF NOT EXISTS trial_counts (
  slot TIMESTAMP WITH TIME ZONE NOT NULL,
  rule TEXT NOT NULL,
  shard SMALLINT NOT NULL,
  messages BIGINT NOT NULL,
  CONSTRAINT trial_counts_pkey PRIMARY KEY (slot, rule, shard)
);
COMMENT ON TABLE trial_counts IS
  'How many messages went that rules which are only watched would have stopped, for knocktwice trial.';
COMMENT ON COLUMN trial_counts.slot IS 'When the ten minutes begin in which it was decided.';
COMMENT ON COLUMN trial_counts.rule IS 'What would have stopped them, in the words of the ledger. any: each message once.';
COMMENT ON COLUMN trial_counts.shard IS 'One of several rows for the same, so that workers do not wait for each other.';
COMMENT ON COLUMN trial_counts.messages IS 'How many messages.';
"""


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("DROP TABLE trial_counts")
