"""The push: taken up again after a wait, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, text

from knocktwice_worker.lifecycle import DeliveryState
from knocktwice_worker.notifications.store.intake import INSERT_ATTEMPTS, PushWork
from knocktwice_worker.notifications.store.receipts import settle_cancelled
from knocktwice_worker.notifications.store.transitions import finish, is_in, outcome_of_push

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of one push attempt. ``state`` is ``sent``, ``rejected``, or ``open`` to try again."""

    notification_id: str
    registration: str
    state: str
    reason: str | None = None
    provider_id: str | None = None
    retry_after: timedelta | None = None
    address_dead: bool = False


# The first claim of a push that waited for its time looks up its devices and starts the countdown.
_CLAIM_PUSH = text("""
UPDATE deliveries d SET state = 'sending', tries = d.tries + 1, claimed_at = knocktwice_now(), wake_at = knocktwice_now() + :lease
FROM (
  SELECT p.notification_id, p.claimed_at IS NULL AS first FROM deliveries p
  JOIN notifications n ON n.id = p.notification_id AND n.state = 'active'
  WHERE p.notification_id = ANY(CAST(:ids AS uuid[])) AND p.step = 0 AND p.state = 'scheduled'
    AND coalesce(p.due_at <= knocktwice_now(), true) AND NOT EXISTS (
      SELECT FROM deliveries s WHERE s.notification_id = p.notification_id AND s.step > 0 AND s.state IN ('sent', 'unknown'))
  ORDER BY p.notification_id FOR UPDATE OF p
) due
WHERE d.notification_id = due.notification_id AND d.step = 0
RETURNING d.notification_id, due.first
""")

# All of it and first of all: whoever cancels, decides or ends locks a notification's open step before its push, and
# notifications in this order.
_LOCK_WAITING = text("""
SELECT FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND (state = 'scheduled' OR step > 0 AND state = 'reserved')
ORDER BY notification_id, step DESC FOR UPDATE
""")

# A push that comes late, after an outage, gets its whole time all the same.
_START_COUNTDOWNS = text("""
UPDATE deliveries s SET due_at = s.due_at + (p.claimed_at - p.due_at), wake_at = s.due_at + (p.claimed_at - p.due_at)
FROM deliveries p
WHERE s.notification_id = ANY(CAST(:ids AS uuid[])) AND s.step > 0 AND s.state = 'scheduled'
  AND p.notification_id = s.notification_id AND p.step = 0
""")

#: Whether a step is behind the push ``d``.
_HAS_STEPS = "EXISTS (SELECT FROM deliveries s WHERE s.notification_id = d.notification_id AND s.step = 1)"

_END_UNPUSHABLE = text(f"""
UPDATE deliveries d SET state = s.state, reason = CASE s.state WHEN 'skipped' THEN 'notifications_disabled' ELSE 'no_device' END,
  wake_at = NULL, finished_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[])) AS r(id)
CROSS JOIN LATERAL (SELECT CASE WHEN EXISTS (
    SELECT FROM notifications n JOIN devices v ON v.user_id = n.user_id WHERE n.id = r.id
  ) THEN 'skipped' ELSE 'failed' END AS state) s
WHERE d.notification_id = r.id AND d.step = 0 AND d.state = 'sending'
RETURNING d.notification_id, d.state, d.reason, NOT {_HAS_STEPS} AS last
""")

#: Whether it was cancelled; a plain EXISTS may become a look at all receipts there are.
_CANCELLED = "(SELECT true FROM events e WHERE e.notification_id = d.notification_id AND e.kind = 'cancelled' LIMIT 1)"

# Its fallback went out while it waited for somebody to take it up.
_DROP_ENDED_PUSH = text("""
UPDATE deliveries d SET state = 'skipped', reason = 'superseded', wake_at = NULL, finished_at = knocktwice_now()
FROM notifications n
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step = 0 AND d.state = 'scheduled'
  AND n.id = d.notification_id AND (n.state <> 'active' OR EXISTS (
    SELECT FROM deliveries s WHERE s.notification_id = d.notification_id AND s.step > 0 AND s.state IN ('sent', 'unknown')))
""")

# Somebody else may hold the phone by now. What an application gave inline is its own to know.
_REJECT_MOVED = text("""
UPDATE attempts a SET state = 'rejected', reason = 'device_moved'
FROM notifications n
WHERE a.notification_id = ANY(CAST(:ids AS uuid[])) AND a.state = 'open' AND n.id = a.notification_id AND n.user_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM devices d WHERE d.registration = a.registration AND d.user_id = n.user_id)
""")

_OPEN_ATTEMPTS = text("""
SELECT notification_id, registration FROM attempts
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND state = 'open'
""")

_RECORD_ATTEMPTS = text(f"""
UPDATE attempts a SET state = r.state, reason = r.reason, provider_id = r.provider_id
FROM unnest(CAST(:ids AS uuid[]), CAST(:registrations AS text[]), CAST(:states AS text[]), CAST(:reasons AS text[]),
            CAST(:provider_ids AS text[])) AS r(id, registration, state, reason, provider_id)
WHERE a.notification_id = r.id AND a.registration = r.registration AND {is_in("a.state", "open")}
""")

# A device that answered is enough; one that asks for patience is tried again until the time for retries is over.
_RECORD_PUSH = text(f"""
UPDATE deliveries d SET (state, reason, wake_at, finished_at) = (
  SELECT f.state, CASE f.state WHEN 'failed' THEN s.reason END,
         CASE f.state WHEN 'scheduled' THEN knocktwice_now() + s.retry_after * (0.5 + random()) END,
         CASE WHEN f.state <> 'scheduled' THEN knocktwice_now() END
  FROM (SELECT CASE
      WHEN s.open AND s.ended THEN 'skipped'
      WHEN s.open AND coalesce(d.due_at, s.created_at) + :retry_for > knocktwice_now() THEN 'scheduled'
      WHEN s.sent THEN 'sent' ELSE 'failed' END AS state) f
)
FROM (
  SELECT o.*, n.state <> 'active' AS ended, n.created_at
  FROM (
    SELECT a.notification_id AS id, bool_or(a.state = 'open') AS open, bool_or(a.state = 'sent') AS sent,
           max(a.reason) FILTER (WHERE a.state <> 'sent') AS reason, r.retry_after
    FROM unnest(CAST(:ids AS uuid[]), CAST(:retry_after AS interval[])) AS r(id, retry_after)
    JOIN attempts a ON a.notification_id = r.id GROUP BY a.notification_id, r.retry_after
  ) o JOIN notifications n ON n.id = o.id
) s
WHERE d.notification_id = s.id AND d.step = 0 AND {is_in("d.state", "sending")}
RETURNING d.notification_id, d.state, d.reason, NOT {_HAS_STEPS} AS last, {_CANCELLED} AS cancelled
""")

# A push of which every device has answered at the first attempt, as nearly all do. What became of it is known without a
# look at the rows, which takes most of the time of the general case.
_RECORD_ANSWERED = text(f"""
UPDATE deliveries d SET state = r.state, reason = r.reason, wake_at = NULL, finished_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[])) AS r(id, state, reason)
WHERE d.notification_id = r.id AND d.step = 0 AND {is_in("d.state", "sending")}
RETURNING d.notification_id, d.state, d.reason, NOT {_HAS_STEPS} AS last, {_CANCELLED} AS cancelled
""")

# Locked in the order in which receipts lock.
_FALL_BACK_NOW = text("""
UPDATE deliveries d SET due_at = knocktwice_now(), wake_at = knocktwice_now()
FROM (
  SELECT notification_id FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 1 AND state = 'scheduled' AND due_at > knocktwice_now()
  ORDER BY notification_id FOR UPDATE
) waiting
WHERE d.notification_id = waiting.notification_id AND d.step = 1
""")


def claim_push(conn: Connection, ids: Sequence[str], lease: timedelta) -> list[PushWork]:
    """Take up pushes that a provider asked to repeat or a dead worker left behind; return what is still to be sent.

    A device that was registered for somebody else meanwhile gets nothing any more.
    """
    conn.execute(_LOCK_WAITING, {"ids": list(ids)})
    settle_cancelled(conn, ids)
    conn.execute(_DROP_ENDED_PUSH, {"ids": list(ids)})
    claimed = conn.execute(_CLAIM_PUSH, {"ids": list(ids), "lease": lease}).all()
    if not claimed:
        return []
    first = sorted(str(row.notification_id) for row in claimed if row.first)
    if first:
        conn.execute(_START_COUNTDOWNS, {"ids": first})
        conn.execute(INSERT_ATTEMPTS, {"ids": first, "inline_ids": [], "inline": []})
    taken = [str(row.notification_id) for row in claimed]
    conn.execute(_REJECT_MOVED, {"ids": taken})
    rows = conn.execute(_OPEN_ATTEMPTS, {"ids": taken}).all()
    over = set(taken) - {str(row.notification_id) for row in rows}
    _end_unpushable(conn, over & set(first))
    if rest := sorted(over - set(first)):
        record_push(conn, [PushResult(i, "", state="rejected") for i in rest], retry_for=timedelta())
    return [PushWork(str(row.notification_id), row.registration) for row in rows]


def _end_unpushable(conn: Connection, ids: set[str]) -> None:
    if ids:
        _settle_pushes(conn, conn.execute(_END_UNPUSHABLE, {"ids": sorted(ids)}).all())


def record_push(
    conn: Connection, results: Sequence[PushResult], *, retry_for: timedelta, complete: bool = False
) -> list[str]:
    """Write the providers' answers. A push that failed on every device makes its fallback due at once.

    Args:
        retry_for: how long after the time it was to go out a push is still retried.
        complete: these are the results of all devices of each push, and no earlier attempts were made.

    Returns:
        The ids that :func:`settle_cancelled` wants when this is committed: a cancellation made while the rows were written,
        or while the push was on its way, has found nothing to stop.
    """
    # Of two that record the same pushes, as after a lease that was too short, one waits for the other.
    results = sorted(results, key=lambda r: (r.notification_id, r.registration))
    conn.execute(
        _RECORD_ATTEMPTS,
        {
            "ids": [r.notification_id for r in results],
            "registrations": [r.registration for r in results],
            "states": [r.state for r in results],
            "reasons": [r.reason for r in results],
            "provider_ids": [r.provider_id for r in results],
        },
    )
    dead = [r.registration for r in results if r.address_dead]
    if dead:
        conn.execute(text("DELETE FROM devices WHERE registration = ANY(:dead)"), {"dead": dead})
    by_push: dict[str, list[PushResult]] = {}
    for r in results:
        by_push.setdefault(r.notification_id, []).append(r)
    answered = {i: _answer(own) for i, own in by_push.items()} if complete else {}
    known = {i: answer for i, answer in answered.items() if answer is not None}
    done: list[Row[Any]] = []
    if known:
        states, reasons = (list(column) for column in zip(*known.values(), strict=True))
        done += conn.execute(_RECORD_ANSWERED, {"ids": list(known), "states": states, "reasons": reasons})
    rest = {i: max(r.retry_after or timedelta() for r in own) for i, own in by_push.items() if i not in known}
    if rest:
        given = {"ids": list(rest), "retry_after": list(rest.values()), "retry_for": retry_for}
        done += conn.execute(_RECORD_PUSH, given)
    _settle_pushes(conn, done)
    return [str(row.notification_id) for row in done if row.cancelled or row.state == DeliveryState.SCHEDULED]


def _answer(results: Sequence[PushResult]) -> tuple[str, str | None] | None:
    """Return state and reason of a push from the results of all its devices; ``None`` if one is to be tried again."""
    states = {r.state for r in results}
    if "open" in states:
        return None
    if "sent" in states:
        return str(DeliveryState.SENT), None
    return str(DeliveryState.FAILED), max((r.reason for r in results if r.reason), default=None)


def _settle_pushes(conn: Connection, done: Sequence[Row[Any]]) -> None:
    """Draw the consequences of pushes that were made, or could not be.

    Args:
        done: rows of ``notification_id, state, reason, last``; the last step has none behind it.
    """
    failed = [str(row.notification_id) for row in done if row.state == DeliveryState.FAILED]
    if failed:
        conn.execute(_FALL_BACK_NOW, {"ids": failed})
    finish(
        conn,
        [
            (str(row.notification_id), outcome_of_push(DeliveryState(row.state)), row.reason or "no fallback planned")
            for row in done
            if row.last and row.state != DeliveryState.SCHEDULED
        ],
    )


def push_contents(conn: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Return notification id → row of ``params, locale, batch_id`` for pushes that are taken up again."""
    query = text("SELECT id, params, locale, batch_id FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))")
    return {str(row.id): row for row in conn.execute(query, {"ids": list(ids)})}
