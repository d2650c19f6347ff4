"""Each phone has one spelling; numbers that texts do not reach are remembered; a blast texts a number once.

Revision ID: 0023
Revises: 0022
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import phonenumbers
from alembic import op
from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Mapping

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE untextable (
  number TEXT NOT NULL,
  channel TEXT NOT NULL,
  reason TEXT NOT NULL,
  failures INTEGER NOT NULL DEFAULT 1,
  first_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT knocktwice_now(),
  last_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT knocktwice_now(),
  CONSTRAINT untextable_pkey PRIMARY KEY (number, channel)
);
COMMENT ON TABLE untextable IS 'Numbers that messages of a channel do not reach, as providers tell it.';
COMMENT ON COLUMN untextable.number IS 'The number in E.164.';
COMMENT ON COLUMN untextable.channel IS 'The channel, like sms.';
COMMENT ON COLUMN untextable.reason IS 'Why; lifecycle.Untextable.';
COMMENT ON COLUMN untextable.failures IS 'How many messages failed since the first.';
COMMENT ON COLUMN untextable.first_at IS 'When a message failed first.';
COMMENT ON COLUMN untextable.last_at IS 'When a message failed last.';

CREATE TABLE blast_numbers (
  blast_id UUID NOT NULL,
  number BYTEA NOT NULL,
  notification_id UUID NOT NULL,
  CONSTRAINT blast_numbers_pkey PRIMARY KEY (blast_id, number),
  CONSTRAINT blast_numbers_blast_id_fkey FOREIGN KEY (blast_id) REFERENCES blasts (id) ON DELETE CASCADE
);
COMMENT ON TABLE blast_numbers IS 'The numbers that a blast texts: each of them once, whoever shares it.';
COMMENT ON COLUMN blast_numbers.blast_id IS 'The blast.';
COMMENT ON COLUMN blast_numbers.number IS 'A keyed hash of channel and number.';
COMMENT ON COLUMN blast_numbers.notification_id IS 'Which notification has it.';

ALTER TABLE provider_reports ADD COLUMN untextable TEXT;
COMMENT ON COLUMN provider_reports.untextable IS
  'Why the number cannot be texted, where the report says so; lifecycle.Untextable.';
"""

BACK = """
ALTER TABLE provider_reports DROP COLUMN untextable;
DROP TABLE blast_numbers;
DROP TABLE untextable;
"""

# Numbers that may be in another spelling than their one: Mexico, Argentina, Brazil, Benin, and a trunk prefix behind the
# country code. Only these are judged in Python. A number that the number plan does not know stays as it is.
SUSPECT = r"^\+(52|54|55|229|11|78|[1-9][0-9]{0,2}0)"
PAGE = 5_000

_RESPELL = (
    (re.compile(r"\+521(\d{10})"), r"+52\1"),
    (re.compile(r"\+54(?!9)(\d{10})"), r"+549\1"),
    (re.compile(r"\+55(\d\d)([6-9]\d{7})"), r"+55\g<1>9\2"),
    (re.compile(r"\+229(\d{8})"), r"+22901\1"),
)
_MOBILE = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE)

# Of each table a page of suspects behind a key.
PHONES = """
SELECT user_id AS key, number FROM phones
WHERE user_id > :seen AND number ~ :suspect ORDER BY 1 LIMIT :page
"""
OPT_OUTS = """
SELECT number AS key, number FROM opt_outs
WHERE number > :seen AND number ~ :suspect ORDER BY 1 LIMIT :page
"""
INBOUND = """
SELECT provider_id AS key, number FROM inbound_texts
WHERE provider_id > :seen AND number ~ :suspect ORDER BY 1 LIMIT :page
"""
OPEN = """
SELECT CAST(d.notification_id AS text) AS key, n.phone AS number
FROM deliveries d JOIN notifications n ON n.id = d.notification_id
WHERE d.wake_at IS NOT NULL AND d.notification_id > CAST(:seen AS uuid) AND n.phone ~ :suspect
ORDER BY d.notification_id, d.step LIMIT :page
"""

SET_PHONES = """
UPDATE phones p SET number = r.one, region = r.region
FROM unnest(CAST(:old AS text[]), CAST(:one AS text[]), CAST(:region AS text[]), CAST(:key AS text[])) AS r(old, one, region, key)
WHERE p.user_id = r.key AND p.number = r.old
"""
# An opt-out is never lost: of two spellings the older row's time and source stay.
SET_OPT_OUTS = """
WITH old AS (
  DELETE FROM opt_outs o
  USING unnest(CAST(:old AS text[]), CAST(:one AS text[])) AS r(old, one)
  WHERE o.number = r.old
  RETURNING r.one, o.source, o.created_at
)
INSERT INTO opt_outs AS o (number, source, created_at)
SELECT DISTINCT ON (one) one, source, created_at FROM old ORDER BY one, created_at
ON CONFLICT (number) DO UPDATE SET
  created_at = excluded.created_at,
  source = excluded.source
WHERE o.created_at > excluded.created_at
"""
SET_INBOUND = """
UPDATE inbound_texts t SET number = r.one
FROM unnest(CAST(:old AS text[]), CAST(:one AS text[]), CAST(:key AS text[])) AS r(old, one, key)
WHERE t.provider_id = r.key AND t.number = r.old
"""
SET_OPEN = """
WITH r AS (
  SELECT * FROM unnest(CAST(:old AS text[]), CAST(:one AS text[]), CAST(:key AS text[])) AS r(old, one, key)
), reserved AS (
  UPDATE deliveries d SET number = r.one
  FROM r
  WHERE d.notification_id = CAST(r.key AS uuid) AND d.number = r.old AND d.state IN ('scheduled', 'reserved')
)
UPDATE notifications n SET phone = r.one
FROM r
WHERE n.id = CAST(r.key AS uuid) AND n.phone = r.old AND n.state = 'active'
"""


def one_spelling(number: str) -> str:
    """Return the spelling that the number plan calls a valid number, if another one does not."""
    for pattern, replacement in _RESPELL:
        if pattern.fullmatch(number):
            candidate = _parse(pattern.sub(replacement, number))
            if candidate is not None and phonenumbers.number_type(candidate) in _MOBILE:
                return _e164(candidate)
    parsed = _parse(number)
    return _e164(parsed) if parsed is not None and phonenumbers.is_valid_number(parsed) else number


def _parse(number: str) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None


def _e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _region(number: str) -> str | None:
    parsed = _parse(number)
    found = parsed and phonenumbers.region_code_for_number(parsed)
    return found if found and found.isalpha() else None


def _respell(page: str, change: str, first: str = "") -> None:
    """Walk a table once, a page in a transaction of its own, so that no lock is held for long and a kill loses nothing."""
    bind, seen = op.get_bind(), first
    while suspects := bind.execute(text(page), {"seen": seen, "suspect": SUSPECT, "page": PAGE}).all():
        seen = suspects[-1].key
        wrong = [(row.key, row.number, one) for row in suspects if (one := one_spelling(row.number)) != row.number]
        if wrong:
            keys, olds, ones = (list(column) for column in zip(*wrong, strict=True))
            values: Mapping[str, Any] = {"key": keys, "old": olds, "one": ones, "region": [_region(n) for n in ones]}
            statement = text(change)
            bind.execute(statement, {name: values[name] for name in statement.compile().params})


def upgrade() -> None:
    """Make the tables in one transaction; then respell, page by page, while everything goes on."""
    op.execute(TABLES)
    if op.get_context().as_sql:
        return
    with op.get_context().autocommit_block():
        _respell(OPT_OUTS, SET_OPT_OUTS)
        _respell(PHONES, SET_PHONES)
        _respell(INBOUND, SET_INBOUND)
        _respell(OPEN, SET_OPEN, "00000000-0000-0000-0000-000000000000")


def downgrade() -> None:
    """Drop the tables. Numbers keep their one spelling, which earlier releases take, too."""
    op.execute(BACK)
