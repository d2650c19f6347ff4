"""Phone numbers of people, and whether marketing may be texted to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.notation import phone_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import ConsentSet, PhoneBound

# Consent was given for the number that was there: another number, or none, ends what was given before. That counts as a
# change of the consent, so that one given before and arriving late does not come back for the new number.
#
# Who binds a number says that it is right: what was learned of it before is forgotten.
_BIND = text("""
WITH forgotten AS (
  DELETE FROM untextable
  WHERE number = :number AND last_at <= :at
)
INSERT INTO phones AS p (
  user_id,
  number,
  region,
  changed_at
)
SELECT
  :user,
  :number,
  :region,
  least(CAST(:at AS timestamptz), knocktwice_now())
ON CONFLICT (user_id) DO UPDATE SET
  number = excluded.number,
  region = excluded.region,
  changed_at = excluded.changed_at,
  (consented_at, consent_source, consent_changed_at) = (
    SELECT
      CASE WHEN NOT ends THEN p.consented_at END,
      CASE WHEN ends THEN 'number changed' ELSE p.consent_source END,
      CASE WHEN ends THEN excluded.changed_at ELSE p.consent_changed_at END
    FROM (
      SELECT
        p.number IS NOT NULL
        AND p.number IS DISTINCT FROM excluded.number
        AND coalesce(p.consent_changed_at < excluded.changed_at, true) AS ends
    ) change
  )
WHERE p.changed_at <= excluded.changed_at
""")


def bind(conn: Connection, changes: Sequence[PhoneBound]) -> None:
    """Give users their numbers, or take them away."""
    if changes:
        conn.execute(_BIND, [_bound(c) for c in sorted(changes, key=lambda c: (c.user, c.at))])


def _bound(change: PhoneBound) -> dict[str, object]:
    number = None if change.phone is None else phone_numbers.spelled(change.phone)
    region = None if number is None else phone_numbers.country(number)
    return {"user": change.user, "number": number, "region": region, "at": change.at}


# Consent may come before the number; the row then waits for it, and any number is newer than none at all.
_CONSENT = text("""
INSERT INTO phones AS p (
  user_id,
  number,
  changed_at,
  consented_at,
  consent_source,
  consent_changed_at
)
SELECT
  :user,
  NULL,
  to_timestamp(0),
  CASE WHEN :marketing THEN at END,
  :source,
  at
FROM (SELECT least(CAST(:at AS timestamptz), knocktwice_now()) AS at) clock
ON CONFLICT (user_id) DO UPDATE SET
  consented_at = excluded.consented_at,
  consent_source = excluded.consent_source,
  consent_changed_at = excluded.consent_changed_at
WHERE coalesce(p.consent_changed_at <= excluded.consent_changed_at, true)
""")


def consent(conn: Connection, changes: Sequence[ConsentSet]) -> None:
    """Note who agrees to marketing and who no longer does."""
    ordered = sorted(changes, key=lambda c: (c.user, c.at))
    if ordered:
        conn.execute(
            _CONSENT,
            [{"user": c.user, "marketing": c.marketing, "source": c.source, "at": c.at} for c in ordered],
        )
