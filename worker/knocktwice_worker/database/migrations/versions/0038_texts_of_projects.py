"""What people write to a project's own sender belongs to the project.

Revision ID: 0038
Revises: 0037
"""

from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

# A column without a default does not rewrite the table.
SCHEMA = """
ALTER TABLE inbound_texts ADD COLUMN IF NOT EXISTS project TEXT;
COMMENT ON COLUMN inbound_texts.project IS 'The project whose own sender it was written to. NULL: none.';
"""

INDEX = """
CREATE INDEX CONCURRENTLY IF NOT EXISTS inbound_texts_project_idx ON inbound_texts (project, id)
WHERE project IS NOT NULL
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    with op.get_context().autocommit_block():
        op.execute(INDEX)


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS inbound_texts_project_idx")
    op.execute("ALTER TABLE inbound_texts DROP COLUMN IF EXISTS project")
