"""Tags on people, marketing consent with phones, saved segments.

Revision ID: 0002
"""

import phonenumbers
from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = """
ALTER TABLE users
  ADD COLUMN tags JSONB DEFAULT '{}' NOT NULL,
  ADD COLUMN locale TEXT,
  ADD COLUMN time_zone TEXT,
  ADD COLUMN field_times JSONB DEFAULT '{}' NOT NULL,
  ADD COLUMN updated_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL;

CREATE INDEX users_tags_idx ON users USING gin (tags jsonb_path_ops);

CREATE INDEX devices_enabled_idx ON devices (user_id) WHERE notifications_enabled;

CREATE INDEX devices_last_seen_at_idx ON devices (last_seen_at, user_id) WHERE user_id IS NOT NULL;

ALTER TABLE phones
  ADD COLUMN region TEXT,
  ADD COLUMN consented_at TIMESTAMP WITH TIME ZONE,
  ADD COLUMN consent_source TEXT,
  ADD COLUMN consent_changed_at TIMESTAMP WITH TIME ZONE;

CREATE INDEX phones_bound_idx ON phones (user_id, number) WHERE number IS NOT NULL;

CREATE INDEX phones_consented_idx ON phones (user_id) WHERE consented_at IS NOT NULL;

CREATE TABLE segments (
  name TEXT NOT NULL,
  filter JSONB NOT NULL,
  description TEXT DEFAULT '' NOT NULL,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT knocktwice_now() NOT NULL,
  CONSTRAINT segments_pkey PRIMARY KEY (name)
);
"""

#: Numbers that get their region in one statement.
PAGE = 10_000

# Regions are looked up in Python, and a script of SQL (alembic upgrade --sql) has none.
NO_NUMBERS = """
DO $$ BEGIN
  IF EXISTS (SELECT FROM phones WHERE number IS NOT NULL) THEN
    RAISE EXCEPTION 'SQL alone cannot fill phones.region: run "knocktwice migrate" instead of this script';
  END IF;
END $$
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    if op.get_context().as_sql:
        op.execute(NO_NUMBERS)
    else:
        _fill_regions()


def downgrade() -> None:
    op.execute("DROP TABLE segments")
    op.execute("DROP INDEX devices_enabled_idx, devices_last_seen_at_idx")
    op.execute(
        "ALTER TABLE phones DROP COLUMN region, DROP COLUMN consented_at, DROP COLUMN consent_source, "
        "DROP COLUMN consent_changed_at"
    )
    op.execute("DROP INDEX phones_bound_idx")
    op.execute(
        "ALTER TABLE users DROP COLUMN tags, DROP COLUMN locale, DROP COLUMN time_zone, DROP COLUMN field_times, "
        "DROP COLUMN updated_at"
    )


def _fill_regions() -> None:
    """Give the numbers that are there already their region; from now on each gets it when it is bound."""
    conn, after = op.get_bind(), ""
    page = text(
        "SELECT user_id, number FROM phones WHERE number IS NOT NULL AND user_id > :after ORDER BY user_id LIMIT :page"
    )
    fill = text(
        "UPDATE phones p SET region = r.region FROM unnest(CAST(:ids AS text[]), CAST(:regions AS text[])) "
        "AS r(id, region) WHERE p.user_id = r.id"
    )
    while rows := conn.execute(page, {"after": after, "page": PAGE}).all():
        after = rows[-1].user_id
        regions = [_region(row.number) for row in rows]
        conn.execute(fill, {"ids": [row.user_id for row in rows], "regions": regions})


def _region(number: str) -> str | None:
    # A copy of audience.region(): a migration does what it did on the day it was written.
    try:
        found = phonenumbers.region_code_for_number(phonenumbers.parse(number))
    except phonenumbers.NumberParseException:
        return None
    return found if found and found.isalpha() else None
