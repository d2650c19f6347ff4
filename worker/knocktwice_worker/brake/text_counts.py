"""Counts single messages by the first digits of their numbers: when they go, and two minutes later by their outcome.

Blasts and marketing are left out: nobody outside can make them go to numbers of their choice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.brake import place
from knocktwice_worker.brake.pumping import Crowding, History, Numbers, Outcomes
from knocktwice_worker.database import planner
from knocktwice_worker.database.test_rows import real_message
from knocktwice_worker.lifecycle import ProviderState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

SLOT = timedelta(seconds=5)
#: What comes within this time after the hand-over counts, so that new messages are compared with old ones.
SETTLE = timedelta(minutes=2)
#: A transaction that has written a hand-over in time is committed a moment later.
_MARGIN = timedelta(seconds=3)
#: What is older says nothing of what is usual.
_HISTORY = timedelta(days=3)
#: Numbers are counted together that have so many first characters in common, the plus included.
_WIDTH = 8
#: So many messages are looked at one by one.
_GLANCE = 5_000

_SENT = "sms messages went"
_SETTLED = "sms messages settled"

# Single messages to phone numbers that a provider took in a span. Each finds its notification and batch by their keys,
# whatever the planner expects: LIMIT keeps it from joining these first, which with many takes it minutes.
_TAKEN = f"""
  FROM deliveries d
  CROSS JOIN LATERAL (SELECT project, batch_id FROM notifications WHERE id = d.notification_id LIMIT 1) n
  CROSS JOIN LATERAL (SELECT id, category, content FROM batches WHERE id = n.batch_id LIMIT 1) b
  WHERE d.finished_at >= :after AND d.finished_at < :until
    AND d.step > 0
    AND d.state = 'sent'
    AND {real_message("d")}
    AND starts_with(d.number, '+')
    AND b.category <> 'marketing'
    AND NOT EXISTS (SELECT FROM blast_pages g WHERE g.id = b.id)
"""

_COUNT = text(f"""
INSERT INTO text_counts (
  template,
  project,
  slot,
  prefix,
  messages
)
SELECT
  coalesce(b.content ->> 'template', ''),
  coalesce(n.project, ''),
  date_bin(:slot, d.finished_at, :origin),
  left(d.number, {_WIDTH}),
  count(*)
{_TAKEN}
GROUP BY 1, 2, 3, 4
ON CONFLICT DO NOTHING
""")

# An answer is a click, the application's word that it is done with (a code that was entered is a cancellation), a push
# that the app has shown, a text back, or a number that is bound to a person since.
_SETTLE = text(f"""
WITH m AS (
  SELECT
    d.notification_id,
    d.number,
    d.finished_at AS at,
    d.provider_status,
    coalesce(b.content ->> 'template', '') AS template,
    coalesce(n.project, '') AS project
  {_TAKEN}
), known AS (
  SELECT
    m.template,
    m.project,
    date_bin(:slot, m.at, :origin) AS slot,
    left(m.number, {_WIDTH}) AS prefix,
    count(*) AS settled,
    count(*) FILTER (WHERE m.provider_status IN ('{ProviderState.DELIVERED}', '{ProviderState.READ}')) AS delivered,
    count(*) FILTER (WHERE
      EXISTS (
        SELECT FROM events e
        WHERE e.notification_id = m.notification_id
          AND (e.kind IN ('clicked', 'cancelled') OR e.step = 0)
          AND e.received_at <= m.at + :settle)
      OR EXISTS (
        SELECT FROM inbound_texts i
        WHERE i.number = m.number AND i.received_at >= m.at AND i.received_at <= m.at + :settle)
      OR EXISTS (
        SELECT FROM phones f
        WHERE f.number = m.number AND f.changed_at >= m.at AND f.changed_at <= m.at + :settle)
    ) AS answered
  FROM m
  GROUP BY 1, 2, 3, 4
)
UPDATE text_counts c SET
  settled = k.settled,
  answered = k.answered,
  delivered = k.delivered
FROM known k
WHERE c.template = k.template AND c.project = k.project AND c.slot = k.slot AND c.prefix = k.prefix
""")


@dataclass(frozen=True, slots=True)
class Counted:
    """The outcome of a count.

    Attributes:
        all: nothing is left to be counted.
        minute: a minute has ended since the count before.
    """

    all: bool
    minute: bool


def count(conn: Connection) -> Counted | None:
    """Count the next slots, and lock the place of who counts until the end of the transaction.

    Returns:
        What it has come to; ``None``: another worker counts or has counted, or no slot is over since.
    """
    went = place.take(conn, _SENT, slot=SLOT, settle=_MARGIN)
    settled = place.take(conn, _SETTLED, slot=SLOT, settle=SETTLE + _MARGIN)
    if went is None or settled is None or (went.until <= went.after and settled.until <= settled.after):
        return None
    # The planner's statistics lag behind, so it expects many new rows and would scan whole tables.
    planner.by_index(conn)
    given = {"slot": SLOT, "origin": place.ORIGIN}
    if went.until > went.after:
        conn.execute(_COUNT, given | {"after": went.after, "until": went.until})
        place.move_on(conn, _SENT, went.until)
    if settled.until > settled.after:
        conn.execute(_SETTLE, given | {"after": settled.after, "until": settled.until, "settle": SETTLE})
        place.move_on(conn, _SETTLED, settled.until)
    return Counted(went.last and settled.last, _minute(went.until) > _minute(went.after))


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)


#: Whether a brake covers the counts ``c``, or its range was released a while ago.
_BRAKED = """EXISTS (
    SELECT FROM brakes k
    WHERE k.kind = 'pumping'
      AND (k.state = 'on' OR k.grace_until > knocktwice_now())
      AND starts_with(c.prefix, k.prefix)
      AND k.template = c.template
      AND k.project = c.project)"""

# A wide range counts without the narrower ones that are held already, so that these do not stand for their neighbours.
_MANY = text(f"""
SELECT
  left(c.prefix, w.width) AS prefix,
  c.template,
  c.project,
  sum(c.messages) AS messages
FROM text_counts c
CROSS JOIN (VALUES ({_WIDTH}), ({_WIDTH - 2}), ({_WIDTH - 4})) w (width)
WHERE c.slot >= knocktwice_now() - :window
  AND NOT {_BRAKED}
GROUP BY w.width, 1, 2, 3
HAVING sum(c.messages) >= :sample
ORDER BY w.width DESC, messages DESC
LIMIT 30
""")


def many(conn: Connection, window: timedelta, sample: int) -> list[Numbers]:
    """Return the ranges of numbers to which many messages of one template went, the narrowest first."""
    found = conn.execute(_MANY, {"window": window, "sample": sample})
    return [Numbers(row.prefix, row.template, row.project) for row in found]


# All ranges of a template are summed up in one pass: its counts of three days are many. The empty range is everybody.
_HISTORIES = text(f"""
WITH counted AS MATERIALIZED (
  SELECT
    c.prefix,
    c.slot >= knocktwice_now() - :window AS lately,
    sum(c.messages) AS messages,
    sum(c.settled) AS settled,
    sum(c.answered) AS answered,
    sum(c.delivered) AS delivered
  FROM text_counts c
  WHERE c.template = :template
    AND c.project = :project
    AND c.slot >= knocktwice_now() - :history
    AND NOT {_BRAKED}
  GROUP BY 1, 2
)
SELECT
  r.prefix,
  c.lately,
  sum(c.messages) AS messages,
  sum(c.settled) AS settled,
  sum(c.answered) AS answered,
  sum(c.delivered) AS delivered
FROM unnest(CAST(:prefixes AS text[])) AS r(prefix) JOIN counted c ON starts_with(c.prefix, r.prefix)
GROUP BY 1, 2
""")

# Many numbers side by side that were never texted before are a sign of pumping: people of an address book hardly have
# them. Earlier messages are looked for number by number. As a join the planner, which expects a single number, would read
# all earlier messages for each of a thousand.
_CROWDING = text(f"""
WITH m AS (
  SELECT DISTINCT d.number FROM (
    SELECT d.number
    {_TAKEN}
      AND d.number >= :prefix AND d.number < :beyond
      AND coalesce(b.content ->> 'template', '') = :template
      AND coalesce(n.project, '') = :project
    LIMIT :most
  ) d
), fresh AS (
  SELECT m.number FROM m
  CROSS JOIN LATERAL (
    SELECT EXISTS (
      SELECT FROM deliveries o
      WHERE o.number = m.number AND o.counted_at < :after AND {real_message("o")}
    ) AS texted
  ) before
  WHERE NOT before.texted
)
SELECT
  count(*) AS numbers,
  count(DISTINCT left(number, -2)) AS hundreds
FROM fresh
""")

_BEFORE = text("SELECT knocktwice_now() - :window AS after, knocktwice_now() AS until")


def histories(
    conn: Connection, template: str, project: str, prefixes: Sequence[str], window: timedelta
) -> Mapping[str, History]:
    """Return what is known of the messages of one template that no brake covers.

    Args:
        template, project: as :func:`many` tells them.
        prefixes: the ranges of numbers.
        window: what is younger is of now.

    Returns:
        Range → the messages to it; the empty range has all of them.
    """
    scope = {"template": template, "project": project, "prefixes": ["", *prefixes]}
    spans: dict[str, dict[bool, Outcomes]] = defaultdict(dict)
    for row in conn.execute(_HISTORIES, scope | {"window": window, "history": _HISTORY}):
        spans[row.prefix][row.lately] = Outcomes(*map(int, row[2:]))
    return {
        prefix: History(spans[prefix].get(True, Outcomes()), spans[prefix].get(False, Outcomes()))
        for prefix in ("", *prefixes)
    }


def crowding_of(conn: Connection, numbers: Numbers, window: timedelta, *, most: int) -> Crowding:
    """Return how close those numbers of a range are to each other that were never texted before the window.

    Args:
        most: so many messages are looked at, one by one.
    """
    scope = {"prefix": numbers.prefix, "template": numbers.template, "project": numbers.project}
    scope["beyond"] = _beyond(numbers.prefix)
    span = conn.execute(_BEFORE, {"window": window}).one()
    row = conn.execute(_CROWDING, scope | {"after": span.after, "until": span.until, "most": most}).one()
    return Crowding(row.numbers, row.hundreds)


def _beyond(prefix: str) -> str:
    """Return what all numbers with a prefix come before, and no other number behind them does."""
    digits = prefix.removeprefix("+")
    # Behind nines alone there is no number; letters come after digits in every order.
    return f"+{int(digits) + 1}" if digits.strip("9") else "+a"


# What a brake holds counts by when it was due, which is when it was asked for.
_LATELY = text(f"""
SELECT
  (SELECT coalesce(sum(messages), 0) FROM text_counts c
    WHERE c.template = k.template AND c.project = k.project AND c.slot >= knocktwice_now() - :window
      AND starts_with(c.prefix, k.prefix))
  + (SELECT count(*) FROM (
      SELECT FROM deliveries d
      WHERE d.brake = k.id AND d.wake_at IS NOT NULL AND NOT d.brake_waived AND d.due_at >= knocktwice_now() - :window
      LIMIT {_GLANCE}
    ) h)
FROM brakes k WHERE k.id = :id
""")


def asked_lately(conn: Connection, brake: int, window: timedelta) -> int:
    """Return how many messages were asked for in the window that a brake covers, sent or held."""
    return int(conn.execute(_LATELY, {"id": brake, "window": window}).scalar_one())


# Counts that may be in the window, or are still to be settled, stay as they are.
_TO_HOURS = text("""
WITH gone AS (
  DELETE FROM text_counts
  WHERE slot < least(knocktwice_now() - :window, (SELECT seen_until FROM followers WHERE name = :settled))
    AND slot <> date_trunc('hour', slot, 'UTC')
  RETURNING *
)
INSERT INTO text_counts AS c (
  template,
  project,
  slot,
  prefix,
  messages,
  settled,
  answered,
  delivered
)
SELECT
  template,
  project,
  date_trunc('hour', slot, 'UTC'),
  prefix,
  sum(messages),
  sum(settled),
  sum(answered),
  sum(delivered)
FROM gone
GROUP BY 1, 2, 3, 4
ON CONFLICT (template, project, slot, prefix) DO UPDATE SET
  messages = c.messages + excluded.messages,
  settled = c.settled + excluded.settled,
  answered = c.answered + excluded.answered,
  delivered = c.delivered + excluded.delivered
""")
_FORGET = text("DELETE FROM text_counts WHERE slot < knocktwice_now() - :history")


def merge(conn: Connection, window: timedelta) -> None:
    """Merge slots that are older than the window to hours, and forget those that are too old."""
    conn.execute(_TO_HOURS, {"window": window, "settled": _SETTLED})
    conn.execute(_FORGET, {"history": _HISTORY})
