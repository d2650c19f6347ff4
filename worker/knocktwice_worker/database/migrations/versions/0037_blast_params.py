"""Blasts may have values of their own for each person.

Revision ID: 0037
Revises: 0036
"""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE blasts ADD COLUMN IF NOT EXISTS own_params BOOLEAN NOT NULL DEFAULT false;
COMMENT ON COLUMN blasts.own_params IS 'Whether only people who have values in blast_params are notified.';

CREATE TABLE IF NOT EXISTS blast_params (
  user_id TEXT NOT NULL,
  blast_id UUID NOT NULL REFERENCES blasts (id) ON DELETE CASCADE,
  params JSONB NOT NULL,
  CONSTRAINT blast_params_pkey PRIMARY KEY (user_id, blast_id)
);
COMMENT ON TABLE blast_params IS 'Values of one person in the texts of a blast, until the person is notified.';
COMMENT ON COLUMN blast_params.user_id IS 'The person.';
COMMENT ON COLUMN blast_params.blast_id IS 'The blast.';
COMMENT ON COLUMN blast_params.params IS 'Value by name, beside those that all have.';
"""


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("DROP TABLE blast_params; ALTER TABLE blasts DROP COLUMN own_params")
