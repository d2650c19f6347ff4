"""Counts single messages by the first digits of their numbers: when they go, and two minutes later by their outcome.

Blasts and marketing are left out: nobody outside can make them go to numbers of their choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_worker.brake import place
from knocktwice_worker.database import planner
from knocktwice_worker.database.test_rows import real_message
from knocktwice_worker.lifecycle import ProviderState

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

SLOT = timedelta(seconds=5)
#: What comes within this time after the hand-over counts, so that new messages are compared with old ones.
SETTLE = timedelta(minutes=2)
#: A transaction that has written a hand-over in time is committed a moment later.
_MARGIN = timedelta(seconds=3)
#: What is older says nothing of what is usual.
HISTORY = timedelta(days=3)
#: Numbers are counted together that have so many first characters in common, the plus included.
WIDTH = 8
_SENT = "sms messages went"
_SETTLED = "sms messages settled"

# Single messages to phone numbers that a provider took in a span. Each finds its notification and batch by their keys,
# whatever the planner expects: LIMIT keeps it from joining these first, which with many takes it minutes.
TAKEN = f"""
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
  left(d.number, {WIDTH}),
  count(*)
{TAKEN}
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
  {TAKEN}
), known AS (
  SELECT
    m.template,
    m.project,
    date_bin(:slot, m.at, :origin) AS slot,
    left(m.number, {WIDTH}) AS prefix,
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
    conn.execute(_FORGET, {"history": HISTORY})
