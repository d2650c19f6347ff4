"""When a provider's list first answered without a message, and how often it was sent again in a way that is limited.

Revision ID: 0022
Revises: 0021
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# Neither rewrites the table: one column has no default, the other a constant one.
COLUMNS = """
ALTER TABLE deliveries
  ADD COLUMN missed_at TIMESTAMP WITH TIME ZONE,
  ADD COLUMN limited_repeats SMALLINT NOT NULL DEFAULT 0;

COMMENT ON COLUMN deliveries.missed_at IS
  'When the provider''s list first answered without the message, since it was claimed. NULL: it has not.';
COMMENT ON COLUMN deliveries.limited_repeats IS
  'How often it was sent again after its sender had died, or without anybody who could say what became of it.';
"""


def upgrade() -> None:
    op.execute(COLUMNS)


def downgrade() -> None:
    op.execute("ALTER TABLE deliveries DROP COLUMN missed_at, DROP COLUMN limited_repeats")
