"""What erasing people and deleting old notifications needs.

Revision ID: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = """
CREATE TABLE suppressions (
  number BYTEA NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT suppressions_pkey PRIMARY KEY (number)
);

CREATE TABLE erasures (
  person BYTEA NOT NULL,
  erased_at TIMESTAMP WITH TIME ZONE NOT NULL,
  noted_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT erasures_pkey PRIMARY KEY (person)
);

CREATE INDEX erasures_noted_at_idx ON erasures (noted_at);

CREATE INDEX notifications_person_idx ON notifications (coalesce(user_id, phone))
  WHERE coalesce(user_id, phone) IS NOT NULL;

CREATE INDEX phones_number_idx ON phones (number) WHERE number IS NOT NULL;

CREATE INDEX notifications_batch_id_idx ON notifications (batch_id);

-- The first one of a key holds it; a duplicate that repeats it would keep what is erased there.
UPDATE notifications SET key = NULL WHERE state = 'duplicate' AND key IS NOT NULL;
"""


def upgrade() -> None:
    """Create what is missing."""
    op.execute(SCHEMA)


def downgrade() -> None:
    """Back to the version before; who was erased or suppressed is forgotten."""
    op.execute("DROP INDEX notifications_person_idx, notifications_batch_id_idx, phones_number_idx")
    op.execute("DROP TABLE suppressions, erasures")
