"""Names that another product's apps give their installations.

Revision ID: 0033
Revises: 0032
"""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE IF NOT EXISTS hwids (
  hwid TEXT NOT NULL,
  registration TEXT NOT NULL,
  user_id TEXT NOT NULL,
  changed_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT hwids_pkey PRIMARY KEY (hwid)
);
CREATE INDEX IF NOT EXISTS hwids_user_id_idx ON hwids (user_id);
COMMENT ON TABLE hwids IS 'Names that another product''s apps give their installations: whose devices they are.';
COMMENT ON COLUMN hwids.hwid IS 'The name, unique among all installations.';
COMMENT ON COLUMN hwids.registration IS 'FCM''s address of the installation. Its device may be written later, or be gone.';
COMMENT ON COLUMN hwids.user_id IS 'Whose it is. The person may be written later, or be gone.';
COMMENT ON COLUMN hwids.changed_at IS 'When the app said so last.';
"""


def upgrade() -> None:
    op.execute(SCHEMA)


def downgrade() -> None:
    op.execute("DROP TABLE hwids")
