"""Roll-ups count the notifications of a single message that follows nothing: no fallback rate is about them.

Revision ID: 0027
Revises: 0026
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# A constant default rewrites nothing. It goes again, so that whoever writes a line has to say it.
COLUMN = """
ALTER TABLE rollups ADD COLUMN alone BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollups ALTER COLUMN alone DROP DEFAULT;

COMMENT ON COLUMN rollups.alone IS
  'Notifications of a single message that follows nothing, such as an SMS without a push.';
COMMENT ON COLUMN rollups.fell_back IS
  'A step was due because the one before it was not enough, whatever then became of it.';
"""


def upgrade() -> None:
    op.execute(COLUMN)


def downgrade() -> None:
    op.execute("ALTER TABLE rollups DROP COLUMN alone")
