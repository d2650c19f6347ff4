"""Messages that wait because an operator paused them: read, let wait, and woken when their pause is over.

A paused message is an open row whose ``wake_at`` lies at the end of the pause or of its use, whichever comes first. A
click, a cancellation or an opt-out ends it as always.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

from knocktwice_shared.messages import Category
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import Delay
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from knocktwice_shared.messages import Recipient


#: The channel of the first step, as a pause names it.
PUSH = "push"


@dataclass(frozen=True, slots=True)
class Scope:
    """The messages that a pause covers; a field that is ``None`` does not matter.

    Attributes:
        channel: messages of this channel: ``push``, ``sms`` and so on.
        provider: messages that this provider would carry.
        sender: messages from this sender.
        country: messages to numbers of this country, as ISO 3166 has it.
        template: messages with this template.
        category: messages of this category.
    """

    channel: str | None = None
    provider: str | None = None
    sender: str | None = None
    country: str | None = None
    template: str | None = None
    category: str | None = None

    def __str__(self) -> str:
        """Return it in words, like ``sms, country DE``."""
        narrower = [(f.name, value) for f in fields(self)[1:] if (value := getattr(self, f.name)) is not None]
        return ", ".join([self.channel or "all channels", *(f"{name} {value}" for name, value in narrower)])


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that is on.

    Attributes:
        id: its number.
        scope: what it covers.
        drains: whether messages that are already decided still go.
        since: when it was set.
        until: when it ends by itself; ``None``: it does not.
        reason: why, in the operator's words.
    """

    id: int
    scope: Scope
    drains: bool
    since: datetime
    until: datetime | None
    reason: str


_ACTIVE = text("""
SELECT id, channel, provider, sender, country, template, category, drains, since, until, reason
FROM pauses
WHERE NOT settled AND ended_at IS NULL AND (until IS NULL OR until > knocktwice_now())
ORDER BY id
""")


def active(conn: Connection) -> tuple[Pause, ...]:
    """Return the pauses that are on, the oldest first."""
    return tuple(
        Pause(
            row.id,
            Scope(row.channel, row.provider, row.sender, row.country, row.template, row.category),
            row.drains,
            row.since,
            row.until,
            row.reason,
        )
        for row in conn.execute(_ACTIVE)
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a message that may be paused, which only its rows know.

    Attributes:
        step: the number of the step.
        category: its category.
        template: its template; ``None``: it has none.
        useful_from: since when its use is counted.
        valid_for: for how long it is of use; ``None`` is the category's setting.
        paused: the pause for which it waits already.
        decided: it is a push that was taken up before, so that a pause that drains lets its next try go.
        goes_nowhere: it is a push and no device would show it; nothing of it could leave, and the step behind it is due.
    """

    step: int
    category: Category
    template: str | None
    useful_from: datetime
    valid_for: timedelta | None
    paused: int | None
    decided: bool
    goes_nowhere: bool


# A push has a device if an open attempt has one: one that the application gave and that is not known to show nothing,
# or one that is still the person's. Before its first try, the person's own devices are not written down yet.
_FACTS = text("""
SELECT
  d.notification_id,
  d.step,
  b.category,
  b.content ->> 'template',
  coalesce(d.due_at, n.created_at),
  b.valid_for,
  d.paused,
  d.step = 0 AND d.claimed_at IS NOT NULL,
  d.step = 0 AND NOT EXISTS (
    SELECT FROM attempts a
    LEFT JOIN devices v ON v.registration = a.registration AND v.user_id IS NOT NULL
    WHERE a.notification_id = d.notification_id AND a.state = 'open'
      AND CASE
        WHEN a.place IS NULL THEN n.user_id IS NULL OR v.user_id = n.user_id
        ELSE d.claimed_at IS NOT NULL OR coalesce(v.notifications_enabled, true)
      END
  ) AND NOT (d.claimed_at IS NULL AND EXISTS (
    SELECT FROM devices v WHERE v.user_id = n.user_id AND v.notifications_enabled
  ) AND NOT EXISTS (
    SELECT FROM attempts a WHERE a.notification_id = d.notification_id AND a.place IS NOT NULL
  ))
FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.wake_at IS NOT NULL AND (d.step = 0) = :pushes
""")


def facts(conn: Connection, ids: Sequence[str], *, pushes: bool) -> dict[str, Facts]:
    """Return notification id → the facts about its open push, or else about its open later step."""
    found = conn.execute(_FACTS, {"ids": list(ids), "pushes": pushes}).all()
    return {str(id_): Facts(step, Category(category), *rest) for id_, step, category, *rest in found}


_WITH_DEVICE = text(f"""
SELECT g.id
FROM {rows("g", id="text", user_id="text", registrations="jsonb")}
WHERE EXISTS (SELECT FROM devices d WHERE d.user_id = g.user_id AND d.notifications_enabled)
  OR EXISTS (
    SELECT FROM jsonb_array_elements_text(g.registrations) AS given(registration)
    LEFT JOIN devices d ON d.registration = given.registration AND d.user_id IS NOT NULL
    WHERE coalesce(d.notifications_enabled, true))
""")


def with_device(conn: Connection, recipients: Sequence[Recipient]) -> set[str]:
    """Return the ids of those recipients, not yet written, who have a device that would show a push."""
    given = {
        "id": [str(r.id) for r in recipients],
        "user_id": [r.user for r in recipients],
        "registrations": [json.dumps(list(r.registrations)) for r in recipients],
    }
    return {row.id for row in conn.execute(_WITH_DEVICE, given)}


@dataclass(frozen=True, slots=True)
class Stopped:
    """A message that a pause is to stop.

    Attributes:
        notification_id: the notification that it belongs to.
        step: the number of the step.
        pause: the pause.
        until: when the message is of no use any more.
        known: it waits for this pause already.
    """

    notification_id: str
    step: int
    pause: Pause
    until: datetime
    known: bool


# The share lock on the pause closes a gap: a worker that saw the pause half a second ago would let a message sleep that
# the end of the pause has passed over. Either the end waits for this row, or this statement sees the end, and looks
# again at once.
_WAIT = text(f"""
WITH r AS (
  SELECT w.notification_id, w.step, g.pause, g.until
  FROM {rows("g", id="uuid", step="smallint", pause="bigint", until="timestamptz")}
  JOIN deliveries w ON w.notification_id = g.id AND w.step = g.step AND w.state IN ('scheduled', 'reserved')
  ORDER BY w.notification_id FOR UPDATE OF w
),
p AS (
  SELECT id, until FROM pauses WHERE id = ANY(:pauses) AND ended_at IS NULL ORDER BY id FOR SHARE
)
UPDATE deliveries d SET
  paused = p.id,
  wake_at = CASE
    WHEN p.id IS NULL THEN knocktwice_now()
    ELSE greatest(least(r.until, p.until), knocktwice_now() + interval '1 second')
  END
FROM r
LEFT JOIN p ON p.id = r.pause
WHERE d.notification_id = r.notification_id AND d.step = r.step
RETURNING d.notification_id, d.paused
""")


def wait(conn: Connection, stopped: Sequence[Stopped]) -> None:
    """Let these messages wait for their pauses, and write that to the ledger."""
    if not stopped:
        return
    given = {
        "id": [s.notification_id for s in stopped],
        "step": [s.step for s in stopped],
        "pause": [s.pause.id for s in stopped],
        "until": [s.until for s in stopped],
    }
    found = conn.execute(_WAIT, {**given, "pauses": sorted({s.pause.id for s in stopped})})
    waiting = {str(row.notification_id) for row in found if row.paused is not None}
    write_ledger(
        conn,
        [
            Decision(s.notification_id, Delay.PAUSED, _told(s.pause), s.step)
            for s in stopped
            if s.notification_id in waiting and not s.known
        ],
    )


def _told(pause: Pause) -> Mapping[str, object]:
    return {
        "pause": pause.id,
        "what": str(pause.scope),
        "since": f"{pause.since:%Y-%m-%d %H:%M:%S} UTC",
        "reason": pause.reason,
    }


#: When the last pause or quiet hours of a row were over; NULL: it never waited for them.
RESUMED = f"""
(
  SELECT max(least(coalesce(was.ended_at, was.until, CAST(l.inputs ->> 'until' AS timestamptz), l.at), knocktwice_now()))
  FROM decisions l
  LEFT JOIN pauses was ON l.verdict = '{Delay.PAUSED}' AND was.id = CAST(l.inputs ->> 'pause' AS bigint)
  WHERE l.notification_id = {{row}}.notification_id
    AND l.step = {{row}}.step
    AND l.verdict IN ('{Delay.PAUSED}', '{Delay.QUIET_HOURS}')
)
"""

_FREE_FOR = text(f"""
SELECT
  d.notification_id,
  knocktwice_now() - greatest(d.due_at, {RESUMED.format(row="d")}) AS free_for
FROM deliveries d
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sending'
""")


def free_for(conn: Connection, ids: Sequence[str]) -> dict[str, timedelta]:
    """Return notification id → how long ago its claimed message was due, or its last pause or quiet hours were over."""
    return {str(row.notification_id): row.free_for for row in conn.execute(_FREE_FOR, {"ids": list(ids)})}


#: How many messages are woken in one transaction.
_PAGE = 500

# A row that somebody holds is left for the next round.
_WAKE = text(f"""
WITH over AS MATERIALIZED (
  SELECT w.notification_id, w.step
  FROM deliveries w
  JOIN pauses p ON p.id = w.paused AND NOT p.settled AND (p.ended_at IS NOT NULL OR p.until <= knocktwice_now())
  WHERE w.paused IS NOT NULL AND w.wake_at IS NOT NULL AND w.state IN ('scheduled', 'reserved')
  ORDER BY w.notification_id LIMIT {_PAGE} FOR UPDATE OF w SKIP LOCKED
)
UPDATE deliveries d SET
  paused = NULL,
  wake_at = knocktwice_now()
FROM over
WHERE d.notification_id = over.notification_id AND d.step = over.step
""")

_OVER = text("""
SELECT true FROM pauses WHERE NOT settled AND (ended_at IS NOT NULL OR until <= knocktwice_now()) LIMIT 1
""")

_SETTLE = text("""
UPDATE pauses p SET
  settled = true,
  ended_at = coalesce(ended_at, until)
WHERE NOT settled AND (ended_at IS NOT NULL OR until <= knocktwice_now())
  AND NOT EXISTS (
    SELECT FROM deliveries d
    WHERE d.paused = p.id AND d.wake_at IS NOT NULL AND d.state IN ('scheduled', 'reserved'))
""")


def wake(engine: Engine) -> int:
    """Wake the messages whose pause is over, page by page, and return how many. Any number of workers may do it at once.

    A pause is settled when nothing waits for it any more, so a worker that dies on the way leaves the rest to the next round.
    """
    with engine.connect() as conn:
        if not conn.execute(_OVER).first():
            return 0
    woken = 0
    while True:
        with engine.begin() as conn:
            count = conn.execute(_WAKE).rowcount
        woken += count
        if count < _PAGE:
            break
    with engine.begin() as conn:
        conn.execute(_SETTLE)
    return woken


# From the index alone: a million may wait.
_COUNT = text("SELECT count(*) FROM deliveries WHERE paused = :pause AND wake_at IS NOT NULL")


def count(conn: Connection, pause: int) -> int:
    """Return how many messages wait for a pause."""
    return int(conn.execute(_COUNT, {"pause": pause}).scalar_one())
