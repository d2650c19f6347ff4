"""Projects: several applications share an installation, and each sees only its own.

Revision ID: 0034
Revises: 0033
"""

from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

# Columns without a default, or with a constant one, do not rewrite their tables.
SCHEMA = """
ALTER TABLE notifications ADD COLUMN IF NOT EXISTS project TEXT;
ALTER TABLE api_keys ADD COLUMN IF NOT EXISTS project TEXT;
ALTER TABLE blasts ADD COLUMN IF NOT EXISTS project TEXT;
ALTER TABLE webhook_endpoints ADD COLUMN IF NOT EXISTS project TEXT;
ALTER TABLE webhook_events ADD COLUMN IF NOT EXISTS project TEXT;
ALTER TABLE rollups ADD COLUMN IF NOT EXISTS project TEXT DEFAULT '' NOT NULL;
COMMENT ON COLUMN notifications.project IS
  'The application to which it belongs, where one installation serves several. NULL: none.';
COMMENT ON COLUMN api_keys.project IS 'The only project that it sees and acts in. NULL: it sees all.';
COMMENT ON COLUMN blasts.id IS 'Made of project and key, so a key starts once.';
COMMENT ON COLUMN blasts.key IS 'The same key starts once in its project.';
COMMENT ON COLUMN blasts.project IS 'The project to which it belongs. NULL: none.';
COMMENT ON COLUMN webhook_endpoints.project IS 'The only project of which it is told. NULL: it is told of all.';
COMMENT ON COLUMN webhook_events.project IS 'The project that it concerns. NULL: none.';
COMMENT ON COLUMN rollups.project IS 'The project. Empty: none.';
"""

# The new index of keys is there before the old one goes, so that a key notifies once all the time.
INDEXES = (
    """
    CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS notifications_project_key_idx ON notifications (key, project)
    NULLS NOT DISTINCT WHERE key IS NOT NULL
    """,
    """
    CREATE INDEX CONCURRENTLY IF NOT EXISTS notifications_project_idx ON notifications (project, id)
    WHERE project IS NOT NULL
    """,
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS blasts_key_idx ON blasts (key)",
    """
    CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS rollups_project_idx
    ON rollups (day, slice, template, blast, country, category, project)
    """,
    "DROP INDEX CONCURRENTLY IF EXISTS notifications_key_idx",
)

# The id of a blast is made of its key, so the primary key lets a key start once.
KEYS = """
ALTER TABLE blasts DROP CONSTRAINT IF EXISTS blasts_key_key;
ALTER TABLE rollups DROP CONSTRAINT rollups_pkey, ADD CONSTRAINT rollups_pkey PRIMARY KEY USING INDEX rollups_project_idx;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    with op.get_context().autocommit_block():
        for index in INDEXES:
            op.execute(index)
    op.execute(KEYS)


def downgrade() -> None:
    op.execute("""
    DELETE FROM rollups WHERE project <> '';
    ALTER TABLE rollups DROP CONSTRAINT rollups_pkey;
    ALTER TABLE rollups DROP COLUMN project, ADD PRIMARY KEY (day, slice, template, blast, country, category);
    DROP INDEX notifications_project_key_idx, notifications_project_idx, blasts_key_idx;
    DELETE FROM blasts WHERE project IS NOT NULL;
    ALTER TABLE blasts DROP COLUMN project, ADD UNIQUE (key);
    UPDATE notifications SET key = NULL WHERE project IS NOT NULL;
    ALTER TABLE notifications DROP COLUMN project;
    CREATE UNIQUE INDEX notifications_key_idx ON notifications (key) WHERE key IS NOT NULL;
    ALTER TABLE api_keys DROP COLUMN project;
    ALTER TABLE webhook_endpoints DROP COLUMN project;
    ALTER TABLE webhook_events DROP COLUMN project;
    """)
