"""Aliases: names that other systems have for people and devices.

Revision ID: 0032
Revises: 0031
"""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE IF NOT EXISTS aliases (
  label TEXT NOT NULL,
  value TEXT NOT NULL,
  user_id TEXT NOT NULL,
  registration TEXT,
  since TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT aliases_pkey PRIMARY KEY (label, value)
);
CREATE INDEX IF NOT EXISTS aliases_user_id_idx ON aliases (user_id);
CREATE INDEX IF NOT EXISTS aliases_registration_idx ON aliases (registration) WHERE registration IS NOT NULL;
COMMENT ON TABLE aliases IS 'Names that other systems have for people and devices.';
COMMENT ON COLUMN aliases.label IS 'The kind of name, like onesignal_id.';
COMMENT ON COLUMN aliases.value IS 'The name.';
COMMENT ON COLUMN aliases.user_id IS 'The person. No foreign key: the person''s own row may come later.';
COMMENT ON COLUMN aliases.registration IS 'The device that is meant. NULL: the person, or their number.';
COMMENT ON COLUMN aliases.since IS 'Since when it leads there.';
"""


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("DROP TABLE aliases")
