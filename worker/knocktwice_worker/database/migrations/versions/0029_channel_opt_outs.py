"""Opt-outs from one channel only; those of the table opt_outs concern all texts.

Revision ID: 0029
Revises: 0028
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# A column without a default does not rewrite the table.
TABLES = """
CREATE TABLE IF NOT EXISTS channel_opt_outs (
  number TEXT NOT NULL,
  channel TEXT NOT NULL,
  source TEXT NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  PRIMARY KEY (number, channel)
);

ALTER TABLE opt_out_changes ADD COLUMN IF NOT EXISTS channel TEXT;

COMMENT ON TABLE channel_opt_outs IS 'Numbers that must not be texted over one channel.';
COMMENT ON COLUMN channel_opt_outs.number IS 'The number in E.164.';
COMMENT ON COLUMN channel_opt_outs.channel IS 'The channel, like sms.';
COMMENT ON COLUMN channel_opt_outs.source IS 'Who says so.';
COMMENT ON COLUMN channel_opt_outs.created_at IS 'Since when it must not be texted.';
COMMENT ON COLUMN opt_out_changes.channel IS 'The only channel that it concerns. NULL: all texts.';
"""


def upgrade() -> None:
    op.execute(TABLES)


def downgrade() -> None:
    op.execute("ALTER TABLE opt_out_changes DROP COLUMN channel")
    op.execute("DROP TABLE channel_opt_outs")
