"""Roll-ups count the notifications that somebody answered with a text.

Revision ID: 0035
Revises: 0034
"""

from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

# A constant default rewrites nothing. It stays, for workers of the release before.
COLUMNS = """
ALTER TABLE rollups ADD COLUMN IF NOT EXISTS replied BIGINT NOT NULL DEFAULT 0;
ALTER TABLE rollups ADD COLUMN IF NOT EXISTS responded BIGINT NOT NULL DEFAULT 0;

COMMENT ON COLUMN rollups.replied IS 'Somebody wrote back to a message of a later step.';
COMMENT ON COLUMN rollups.responded IS 'A device reported a click, or somebody wrote back.';
"""

# Until now a response was a click. The table has a few lines for each day, template and country.
CLICKS = "UPDATE rollups SET responded = clicked WHERE responded = 0 AND clicked > 0"


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(CLICKS)


def downgrade() -> None:
    op.execute("ALTER TABLE rollups DROP COLUMN replied, DROP COLUMN responded")
