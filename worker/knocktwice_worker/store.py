"""The one file that changes a state. Every transition is a guarded, set-based UPDATE and leaves its row in the ledger.

A function takes an open transaction and whole batches; what it returns is who won. Nothing is read first and written later:
a receipt and a fallback that come at the same moment would both believe that they won.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Row, text

from knocktwice_shared.messages import Batch, Receipt, ReceiptEvent, Recipient, Step
from knocktwice_worker.content import stored
from knocktwice_worker.lifecycle import NOT_NEEDED, OUTCOMES, DeliveryState, NotificationState, Verdict
from knocktwice_worker.plans import stored_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: A receipt or cancellation ``e`` that makes delivery ``d`` needless. A click does, whatever was clicked; what was delivered
#: counts if it came from the step that ``d`` follows.
_ANSWERS = """
  (e.kind = 'cancelled' OR (e.kind = 'clicked' AND (d."when" IN ('not_delivered', 'not_clicked')))
   OR (d."when" = 'not_delivered' AND e.step >= d.after_step))
"""


def _is(column: str, *states: str) -> str:
    """Return SQL that is true in one of these states, written so that the planner has no idea how rare they are.

    States come and go within seconds, statistics lag behind by minutes. Trusting them, the planner takes ``sending`` for a
    rarity and walks the whole table for it, and all of a batch for each row found: seconds instead of milliseconds.
    """
    wanted = ", ".join(f"'{state}'" for state in states)
    return f"CASE WHEN {column} IN ({wanted}) THEN true END"


class PushWork(NamedTuple):
    """One push to be made: which notification, to which registration."""

    notification_id: str
    registration: str


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


@dataclass(frozen=True, slots=True)
class Decision:
    """A line for the ledger.

    Attributes:
        answered: somebody has clicked, so no later step is needed either.
    """

    notification_id: str
    verdict: Verdict
    inputs: Mapping[str, Any]
    step: int = 1
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Reservation:
    """A message that passed its limits: number, text and sender as they will be sent, and the parts of an SMS."""

    notification_id: str
    number: str
    text: str
    fingerprint: bytes
    parts: int = 1
    sender: str | None = None


@dataclass(frozen=True, slots=True)
class SmsResult:
    """What became of a claimed SMS.

    Attributes:
        state: ``sent``, ``failed``, ``unknown``; ``reserved`` to send again after ``wake_after``; ``sending`` to look for
            it in the provider's list after ``wake_after``.
        provider: who sends it next, if that changes; see :func:`may_move`.
    """

    notification_id: str
    state: DeliveryState
    reason: str | None = None
    provider_id: str | None = None
    wake_after: timedelta | None = None
    provider: str | None = None


class Placement(NamedTuple):
    """The provider chosen for a message, as it was when it had been tried so often."""

    provider: str | None
    tries: int


# -- accepting -----------------------------------------------------------------------------------------------------

# Sorted, so that two transactions with the same batches wait for each other instead of deadlocking.
_INSERT_BATCHES = text("""
INSERT INTO batches (id, content, plan, category, ttl, reference)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:contents AS jsonb[]), CAST(:plans AS jsonb[]), CAST(:categories AS text[]),
                     CAST(:ttls AS interval[]), CAST(:references AS jsonb[]))
ORDER BY 1 ON CONFLICT DO NOTHING
""")

# Sorted by key, so that two batches with the same keys wait for each other instead of deadlocking.
_INSERT_NOTIFICATIONS = text("""
INSERT INTO notifications (id, batch_id, user_id, phone, params, key, locale, state, reason, finished_at)
SELECT r.id, r.batch, r.user_id, r.phone, r.params, r.key, r.locale, s.state,
       CASE s.state WHEN 'failed' THEN r.problem WHEN 'cancelled' THEN 'cancelled' END,
       CASE WHEN s.state <> 'active' THEN knocktwice_now() END
FROM unnest(CAST(:ids AS uuid[]), CAST(:batches AS uuid[]), CAST(:users AS text[]), CAST(:phones AS text[]),
            CAST(:params AS jsonb[]), CAST(:keys AS text[]), CAST(:locales AS text[]), CAST(:problems AS text[]))
  AS r(id, batch, user_id, phone, params, key, locale, problem)
CROSS JOIN LATERAL (SELECT CASE
    WHEN EXISTS (SELECT FROM events e WHERE e.notification_id = r.id AND e.kind = 'cancelled') THEN 'cancelled'
    WHEN r.problem IS NOT NULL THEN 'failed' ELSE 'active' END) AS s(state)
ORDER BY r.key, r.id
ON CONFLICT DO NOTHING
RETURNING id, state
""")

# Without the key: the first one holds it, and there it can be found and erased.
_INSERT_DUPLICATES = text("""
INSERT INTO notifications (id, batch_id, user_id, phone, params, key, state, reason, finished_at)
SELECT r.id, r.batch, NULL, NULL, '{}', NULL, 'duplicate', 'key already used by ' || first.id, knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:batches AS uuid[]), CAST(:keys AS text[])) AS r(id, batch, key)
JOIN notifications first ON first.key = r.key AND first.key IS NOT NULL
ON CONFLICT DO NOTHING
""")

_INSERT_ATTEMPTS = text("""
INSERT INTO attempts (notification_id, registration, state)
SELECT n.id, d.registration, 'open'
FROM notifications n JOIN devices d ON d.user_id = n.user_id AND d.notifications_enabled
WHERE n.id = ANY(CAST(:ids AS uuid[]))
UNION
SELECT i.id, i.registration, 'open' FROM unnest(CAST(:inline_ids AS uuid[]), CAST(:inline AS text[])) AS i(id, registration)
RETURNING notification_id, registration
""")

_INSERT_PUSH = text("""
INSERT INTO deliveries (notification_id, step, channel, state, reason, due_at, wake_at, claimed_at, finished_at)
SELECT r.id, 0, 'push', s.state, CASE s.state WHEN 'skipped' THEN 'notifications_disabled' WHEN 'failed' THEN 'no_device' END,
       r.send_at, CASE s.state WHEN 'scheduled' THEN r.send_at WHEN 'sending' THEN knocktwice_now() + :lease END,
       CASE WHEN s.state <> 'scheduled' THEN knocktwice_now() END,
       CASE WHEN s.state NOT IN ('scheduled', 'sending') THEN knocktwice_now() END
FROM unnest(CAST(:ids AS uuid[]), CAST(:pushable AS boolean[]), CAST(:send_ats AS timestamptz[])) AS r(id, pushable, send_at)
CROSS JOIN LATERAL (SELECT CASE WHEN r.send_at IS NOT NULL THEN 'scheduled' WHEN r.pushable THEN 'sending' WHEN EXISTS (
    SELECT FROM notifications n JOIN devices d ON d.user_id = n.user_id WHERE n.id = r.id
  ) THEN 'skipped' ELSE 'failed' END) AS s(state)
RETURNING notification_id, state, reason
""")

_INSERT_FIRST_STEP = text("""
INSERT INTO deliveries (notification_id, step, channel, state, "when", due_at, wake_at, steps_left)
SELECT r.id, 1, r.channel, 'scheduled', r.trigger, due.at, due.at, r.steps_left
FROM unnest(CAST(:ids AS uuid[]), CAST(:channels AS text[]), CAST(:triggers AS text[]), CAST(:after AS interval[]),
            CAST(:steps_left AS smallint[]), CAST(:send_ats AS timestamptz[]))
  AS r(id, channel, trigger, after, steps_left, send_at)
CROSS JOIN LATERAL (SELECT coalesce(r.send_at, knocktwice_now()) + r.after) AS due(at)
""")


class Intake(NamedTuple):
    """A batch to be accepted.

    Attributes:
        problems: notification id → why it cannot be sent; it is recorded as ``failed``.
        ttl: how long the provider may hold the push.
        content: what a template made of the batch's content; ``None`` takes the batch's own.
        locales: notification id → which part of that content is its own.
        later: notification id → when it goes out, unless at once.
    """

    batch: Batch
    problems: Mapping[str, str]
    ttl: timedelta
    content: Mapping[str, Any] | None = None
    locales: Mapping[str, str] = {}
    later: Mapping[str, datetime] = {}


class _Opened(NamedTuple):
    """A notification whose steps are to be written."""

    recipient: Recipient
    plan: Sequence[Step]
    send_at: datetime | None
    pushed: bool


def accept(conn: Connection, intakes: Sequence[Intake], *, lease: timedelta) -> list[PushWork]:
    """Write the rows of batches, with the countdowns of their fallbacks, and return the pushes to make.

    Recipients that are there already (a redelivered message) are left alone; those whose key was used before become
    ``duplicate``. The countdown starts before the push is sent, so that an early click can cancel it. Many small batches
    cost as many queries as a large one.

    Args:
        lease: how long this worker may take before somebody else makes the pushes.
    """
    conn.execute(
        _INSERT_BATCHES,
        {
            "ids": [str(i.batch.id) for i in intakes],
            "contents": [json.dumps(i.content or _content(i.batch)) for i in intakes],
            "plans": [stored_plan(i.batch.plan or ()) for i in intakes],
            "categories": [i.batch.category for i in intakes],
            "ttls": [i.ttl for i in intakes],
            "references": [json.dumps(i.batch.reference) for i in intakes],
        },
    )
    people = [(i, r) for i in intakes for r in i.batch.recipients]
    ids = [str(r.id) for _, r in people]
    batches = [str(i.batch.id) for i, _ in people]
    keys = [r.key for _, r in people]
    inserted = conn.execute(
        _INSERT_NOTIFICATIONS,
        {
            "ids": ids,
            "batches": batches,
            "users": [r.user for _, r in people],
            "phones": [r.phone for _, r in people],
            "params": [json.dumps(r.values) for _, r in people],
            "keys": keys,
            "locales": [i.locales.get(id_) for id_, (i, _) in zip(ids, people, strict=True)],
            "problems": [i.problems.get(id_) for id_, (i, _) in zip(ids, people, strict=True)],
        },
    ).all()
    if len(inserted) < len(ids) and any(keys):
        conn.execute(_INSERT_DUPLICATES, {"ids": ids, "batches": batches, "keys": keys})
    fresh = {str(row.id) for row in inserted if row.state == NotificationState.ACTIVE}
    if not fresh:
        return []
    # The first of two with one id is the one that was inserted.
    opened = {
        id_: _Opened(r, i.batch.plan or (), i.later.get(id_), _pushes(i.batch))
        for id_, (i, r) in zip(reversed(ids), reversed(people), strict=True)
        if id_ in fresh
    }
    return _open_steps(conn, opened, lease)


def _pushes(batch: Batch) -> bool:
    return batch.push is not None or (batch.template is not None and not batch.sms_only)


def _content(batch: Batch) -> Mapping[str, Any] | None:
    return stored(batch.push, batch.sms_text) if batch.template is None else None


def _open_steps(conn: Connection, opened: Mapping[str, _Opened], lease: timedelta) -> list[PushWork]:
    work, stuck = _open_pushes(conn, {i: o for i, o in opened.items() if o.pushed}, lease)
    falling_back = [i for i in sorted(opened) if opened[i].plan]
    if falling_back:
        steps = [opened[i].plan[0] for i in falling_back]
        at_once = {i for i, row in stuck.items() if row.state == DeliveryState.FAILED}
        conn.execute(
            _INSERT_FIRST_STEP,
            {
                "ids": falling_back,
                "channels": [str(step.channel) for step in steps],
                "triggers": [step.when and str(step.when) for step in steps],
                "after": [
                    timedelta() if i in at_once else step.after for i, step in zip(falling_back, steps, strict=True)
                ],
                "steps_left": [len(opened[i].plan) - 1 for i in falling_back],
                "send_ats": [opened[i].send_at for i in falling_back],
            },
        )
    _finish(
        conn,
        [
            (i, _without_fallback(DeliveryState(row.state)), row.reason)
            for i, row in stuck.items()
            if not opened[i].plan
        ],
    )
    return work


def _open_pushes(
    conn: Connection, opened: Mapping[str, _Opened], lease: timedelta
) -> tuple[list[PushWork], dict[str, Row[Any]]]:
    """Write the pushes and return those to be made now, and the rows of those that cannot be made."""
    if not opened:
        return [], {}
    ids = sorted(opened)
    inline = [(i, registration) for i in ids for registration in opened[i].recipient.registrations]
    attempts = conn.execute(
        _INSERT_ATTEMPTS,
        {
            # A user's devices are looked up when the push goes out: by then they may be somebody else's.
            "ids": [i for i in ids if opened[i].send_at is None],
            "inline_ids": [i for i, _ in inline],
            "inline": [registration for _, registration in inline],
        },
    ).all()
    pushable = {str(row.notification_id) for row in attempts}
    pushes = conn.execute(
        _INSERT_PUSH,
        {
            "ids": ids,
            "pushable": [i in pushable for i in ids],
            "send_ats": [opened[i].send_at for i in ids],
            "lease": lease,
        },
    ).all()
    work = (PushWork(str(row.notification_id), row.registration) for row in attempts)
    return (
        [w for w in work if opened[w.notification_id].send_at is None],
        {str(row.notification_id): row for row in pushes if row.state in (DeliveryState.SKIPPED, DeliveryState.FAILED)},
    )


def _without_fallback(push: DeliveryState) -> NotificationState:
    match push:
        case DeliveryState.SENT:
            return NotificationState.PUSHED
        case DeliveryState.SKIPPED:
            return NotificationState.SUPPRESSED
        case _:
            return NotificationState.FAILED


# -- the push ------------------------------------------------------------------------------------------------------

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

# Before the claim, because whoever cancels locks in this order, too.
_LOCK_COUNTDOWNS = text("""
SELECT FROM deliveries s
WHERE s.notification_id = ANY(CAST(:ids AS uuid[])) AND s.step > 0 AND s.state = 'scheduled'
  AND EXISTS (SELECT FROM deliveries p WHERE p.notification_id = s.notification_id AND p.step = 0 AND p.claimed_at IS NULL)
ORDER BY s.notification_id, s.step FOR UPDATE
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
WHERE a.notification_id = r.id AND a.registration = r.registration AND {_is("a.state", "open")}
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
WHERE d.notification_id = s.id AND d.step = 0 AND {_is("d.state", "sending")}
RETURNING d.notification_id, d.state, d.reason, NOT {_HAS_STEPS} AS last
""")

# A push of which every device has answered at the first attempt, as nearly all do. What became of it is known without a
# look at the rows, which takes most of the time of the general case.
_RECORD_ANSWERED = text(f"""
UPDATE deliveries d SET state = r.state, reason = r.reason, wake_at = NULL, finished_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[])) AS r(id, state, reason)
WHERE d.notification_id = r.id AND d.step = 0 AND {_is("d.state", "sending")}
RETURNING d.notification_id, d.state, d.reason, NOT {_HAS_STEPS} AS last
""")

_FALL_BACK_NOW = text("""
UPDATE deliveries SET due_at = knocktwice_now(), wake_at = knocktwice_now()
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 1 AND state = 'scheduled' AND due_at > knocktwice_now()
""")


def claim_push(conn: Connection, ids: Sequence[str], lease: timedelta) -> list[PushWork]:
    """Take up pushes that a provider asked to repeat or a dead worker left behind; return what is still to be sent.

    A device that was registered for somebody else meanwhile gets nothing any more.
    """
    settle_cancelled(conn, ids)
    conn.execute(_LOCK_COUNTDOWNS, {"ids": list(ids)})
    conn.execute(_DROP_ENDED_PUSH, {"ids": list(ids)})
    claimed = conn.execute(_CLAIM_PUSH, {"ids": list(ids), "lease": lease}).all()
    if not claimed:
        return []
    first = sorted(str(row.notification_id) for row in claimed if row.first)
    if first:
        conn.execute(_START_COUNTDOWNS, {"ids": first})
        conn.execute(_INSERT_ATTEMPTS, {"ids": first, "inline_ids": [], "inline": []})
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
) -> None:
    """Write the providers' answers. A push that failed on every device makes its fallback due at once.

    Args:
        retry_for: how long after the time it was to go out a push is still retried.
        complete: these are the results of all devices of each push, and no earlier attempts were made.
    """
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
    _finish(
        conn,
        [
            (str(row.notification_id), _without_fallback(DeliveryState(row.state)), row.reason or "no fallback planned")
            for row in done
            if row.last and row.state != DeliveryState.SCHEDULED
        ],
    )


# -- the dispatcher ------------------------------------------------------------------------------------------------

# A push whose sender's lease ran out goes back to "scheduled", so that exactly one claims it again.
_RING = text("""
UPDATE deliveries d SET wake_at = knocktwice_now() + :lease,
  state = CASE WHEN d.step = 0 AND d.state = 'sending' THEN 'scheduled' ELSE d.state END
FROM (
  SELECT notification_id, step FROM deliveries WHERE wake_at <= knocktwice_now() AND (step = 0 OR :sms)
  ORDER BY wake_at LIMIT :limit FOR UPDATE SKIP LOCKED
) due
WHERE d.notification_id = due.notification_id AND d.step = due.step
RETURNING d.notification_id, d.step, d.state
""")


def ring(conn: Connection, *, limit: int, lease: timedelta, sms: bool = True) -> Sequence[Row[Any]]:
    """Claim up to ``limit`` deliveries whose time has come; rows of ``notification_id, step, state``.

    Each is claimed for ``lease``: if what is published for it gets lost, it rings again.

    Args:
        sms: whether SMS steps may ring, too, or only pushes.
    """
    return conn.execute(_RING, {"limit": limit, "lease": lease, "sms": sms}).all()


# -- the decision --------------------------------------------------------------------------------------------------

# Locked in the order in which receipts lock, so that the two wait for each other and never deadlock.
_DUE = text("""
WITH d AS (
  SELECT * FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'scheduled' AND due_at <= knocktwice_now()
  ORDER BY notification_id FOR UPDATE
)
SELECT d.notification_id, d.step, d.channel, d."when", d.due_at, d.after_step, p.state AS before,
       p.channel AS before_channel, p.provider_status, n.params, n.locale, n.batch_id, n.user_id,
       coalesce(n.phone, ph.number) AS number, o.number IS NOT NULL AS opted_out,
       n.phone IS NOT NULL OR ph.consented_at IS NOT NULL AS consented, e.delivered, e.clicked, e.cancelled, knocktwice_now() AS now
FROM d
JOIN notifications n ON n.id = d.notification_id AND n.state = 'active'
LEFT JOIN deliveries p ON p.notification_id = d.notification_id AND p.step = d.after_step
LEFT JOIN phones ph ON ph.user_id = n.user_id
LEFT JOIN opt_outs o ON o.number = coalesce(n.phone, ph.number)
LEFT JOIN LATERAL (
  SELECT min(received_at) FILTER (WHERE kind = 'delivered' AND step >= d.after_step) AS delivered,
         min(received_at) FILTER (WHERE kind = 'clicked') AS clicked,
         min(received_at) FILTER (WHERE kind = 'cancelled') AS cancelled
  FROM events WHERE notification_id = d.notification_id
) e ON true
-- A push that is late itself starts the countdown anew when it goes out.
WHERE p.state IS NULL OR p.step > 0 OR p.claimed_at IS NOT NULL
ORDER BY d.due_at, d.notification_id
""")

_RESERVE = text(f"""
UPDATE deliveries d SET state = 'reserved', number = r.number, text = r.text, fingerprint = r.fingerprint,
  parts = r.parts, sender = r.sender, counted_at = knocktwice_now(), wake_at = knocktwice_now() + :lease
FROM unnest(CAST(:ids AS uuid[]), CAST(:numbers AS text[]), CAST(:texts AS text[]), CAST(:fingerprints AS bytea[]),
            CAST(:parts AS smallint[]), CAST(:senders AS text[])) AS r(id, number, text, fingerprint, parts, sender)
WHERE d.notification_id = r.id AND d.step > 0 AND {_is("d.state", "scheduled")}
  AND NOT EXISTS (SELECT FROM events e WHERE e.notification_id = d.notification_id AND {_ANSWERS})
RETURNING d.notification_id
""")

_SKIP = text(f"""
UPDATE deliveries d SET state = r.state, reason = r.verdict, wake_at = NULL, finished_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:verdicts AS text[])) AS r(id, state, verdict)
WHERE d.notification_id = r.id AND d.step > 0 AND {_is("d.state", "scheduled", "reserved")}
RETURNING d.notification_id, d.step, d.after_step, d.steps_left
""")

_POSTPONE = text("""
UPDATE deliveries SET wake_at = knocktwice_now() + :delay
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = ANY(:states)
""")


def due(conn: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Lock fallbacks that are due by the database's clock and return the facts about them; the others are left out."""
    return conn.execute(_DUE, {"ids": list(ids)}).all()


def contents(conn: Connection, ids: Iterable[Any]) -> dict[str, Row[Any]]:
    """Return batch id → row of ``content, plan, category, ttl``."""
    wanted = sorted({str(i) for i in ids})
    query = text("SELECT id, content, plan, category, ttl FROM batches WHERE id = ANY(CAST(:ids AS uuid[]))")
    return {str(row.id): row for row in conn.execute(query, {"ids": wanted})}


def push_contents(conn: Connection, ids: Sequence[str]) -> dict[str, Row[Any]]:
    """Return notification id → row of ``params, locale, batch_id`` for pushes that are taken up again."""
    query = text("SELECT id, params, locale, batch_id FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))")
    return {str(row.id): row for row in conn.execute(query, {"ids": list(ids)})}


def reserve(conn: Connection, reservations: Sequence[Reservation], lease: timedelta) -> set[str]:
    """Reserve SMS that passed their limits; return the ids that won against a receipt arriving just now."""
    if not reservations:
        return set()
    rows = conn.execute(
        _RESERVE,
        {
            "ids": [r.notification_id for r in reservations],
            "numbers": [r.number for r in reservations],
            "texts": [r.text for r in reservations],
            "fingerprints": [r.fingerprint for r in reservations],
            "parts": [r.parts for r in reservations],
            "senders": [r.sender for r in reservations],
            "lease": lease,
        },
    )
    return {str(row.notification_id) for row in rows}


def skip(conn: Connection, decisions: Sequence[Decision]) -> None:
    """End steps that will not be taken, with the verdicts as reasons, and go on to the next ones or end the notifications."""
    if not decisions:
        return
    by_id = {d.notification_id: d for d in decisions}
    rows = conn.execute(
        _SKIP,
        {
            "ids": list(by_id),
            "states": [
                DeliveryState.CANCELLED if d.verdict is Verdict.CANCELLED else DeliveryState.SKIPPED
                for d in by_id.values()
            ],
            "verdicts": [d.verdict for d in by_id.values()],
        },
    ).all()
    won = [(replace(by_id[str(row.notification_id)], step=row.step), row) for row in rows]
    write_ledger(conn, [d for d, _ in won])
    going_on = [(d, row) for d, row in won if row.steps_left and d.verdict is not Verdict.CANCELLED and not d.answered]
    over = {d.notification_id for d, _ in won} - {d.notification_id for d, _ in going_on}
    _finish(
        conn,
        [
            (d.notification_id, OUTCOMES.get(d.verdict, NotificationState.SUPPRESSED), str(d.verdict))
            for d, _ in won
            if d.notification_id in over
        ],
    )
    _go_on(
        conn,
        [
            _Onward(d.notification_id, d.step, row.after_step, at_once=False)
            if d.verdict in NOT_NEEDED
            else _Onward(d.notification_id, d.step, d.step, at_once=True)
            for d, row in going_on
        ],
    )


_HOLD_UNTIL = text("""
UPDATE deliveries d SET wake_at = r.at
FROM unnest(CAST(:ids AS uuid[]), CAST(:times AS timestamptz[])) AS r(id, at)
WHERE d.notification_id = r.id AND d.step > 0 AND d.state IN ('scheduled', 'reserved')
RETURNING d.notification_id, d.step
""")


def hold_until(conn: Connection, until: Mapping[str, datetime]) -> None:
    """Look at these again when their recipients' quiet hours are over, and say so in the ledger."""
    if not until:
        return
    rows = conn.execute(_HOLD_UNTIL, {"ids": list(until), "times": list(until.values())}).all()
    held = ((str(row.notification_id), row.step) for row in rows)
    write_ledger(conn, [Decision(i, Verdict.QUIET_HOURS, {"until": until[i]}, step) for i, step in held])


def time_zones(conn: Connection, users: Sequence[str]) -> dict[str, str]:
    """Return user → the time zone that the device they used last has reported, or else what the application says."""
    query = text("""
    SELECT u.id, coalesce((
        SELECT time_zone FROM devices WHERE user_id = u.id AND time_zone IS NOT NULL ORDER BY last_seen_at DESC LIMIT 1
      ), u.time_zone) AS time_zone
    FROM users u WHERE u.id = ANY(:users)
    """)
    return {row.id: row.time_zone for row in conn.execute(query, {"users": list(users)}) if row.time_zone}


def postpone(conn: Connection, ids: Sequence[str], delay: timedelta) -> None:
    """Look at these again after ``delay``; nothing about them changes."""
    if ids:
        states = [DeliveryState.SCHEDULED, DeliveryState.RESERVED, DeliveryState.SENDING]
        conn.execute(_POSTPONE, {"ids": list(ids), "delay": delay, "states": [str(s) for s in states]})


# -- receipts ------------------------------------------------------------------------------------------------------

_INSERT_EVENTS = text("""
INSERT INTO events (notification_id, kind, registration, at, step)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:kinds AS text[]), CAST(:registrations AS text[]), CAST(:times AS timestamptz[]),
                     CAST(:steps AS smallint[]))
ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
RETURNING notification_id, kind
""")

_ANSWERED = text(f"""
SELECT d.notification_id, jsonb_object_agg(e.kind, e.received_at) AS events, bool_or(e.kind = 'cancelled') AS cancelled
FROM deliveries d JOIN events e ON e.notification_id = d.notification_id AND {_ANSWERS}
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state IN ('scheduled', 'reserved')
GROUP BY d.notification_id
""")

# Taking the locks first makes the UPDATE that follows see every receipt and every reservation committed until then. What a
# sender has claimed is left alone: its lock is held for as long as the provider takes, and nothing can end it any more.
_LOCK = text("""
SELECT FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state IN ('scheduled', 'reserved')
ORDER BY notification_id FOR UPDATE
""")

_WASTED = text(f"""
SELECT d.notification_id, max(d.step) AS step FROM deliveries d
JOIN events e ON e.notification_id = d.notification_id AND e.kind <> 'cancelled' AND e.step < d.step AND {_ANSWERS}
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sent'
  AND NOT EXISTS (SELECT FROM decisions l WHERE l.notification_id = d.notification_id AND l.verdict = 'wasted_sms')
GROUP BY d.notification_id
""")


def record_receipts(conn: Connection, receipts: Sequence[ReceiptEvent]) -> None:
    """Write receipts, once each, and end the fallbacks they make needless, also those reserved but not yet claimed.

    A receipt for a notification that is not there yet is kept. One that
    would have made the SMS needless but comes after it is noted as a wasted SMS.
    """
    fresh = _insert_events(
        conn, [(str(r.notification), r.kind.value, r.registration or "", r.at, r.step) for r in receipts]
    )
    if not fresh:
        return
    settle_answered(conn, fresh)
    note_wasted(conn, fresh, {str(r.notification): r.kind for r in receipts})


def note_wasted(conn: Connection, ids: Sequence[str], kinds: Mapping[str, Receipt]) -> None:
    """Note the messages among ``ids`` that a receipt shows to have been needless; ``kinds`` says which receipt came."""
    wasted = conn.execute(_WASTED, {"ids": list(ids)}).all()
    write_ledger(
        conn,
        [
            Decision(i, Verdict.WASTED_SMS, {"receipt": kinds.get(i, Receipt.DELIVERED)}, step)
            for i, step in ((str(row.notification_id), row.step) for row in wasted)
        ],
    )


def settle_answered(conn: Connection, ids: Sequence[str]) -> None:
    """End every fallback among ``ids`` that a receipt or a cancellation has made needless and no sender has claimed."""
    conn.execute(_LOCK, {"ids": list(ids)})
    rows = conn.execute(_ANSWERED, {"ids": list(ids)}).all()
    skip(
        conn,
        [
            Decision(
                str(row.notification_id),
                Verdict.CANCELLED if row.cancelled else Verdict.REACHED_IN_TIME,
                {"events": row.events},
                answered="clicked" in row.events,
            )
            for row in rows
        ],
    )


def cancel(conn: Connection, ids: Sequence[str], keys: Sequence[str], now: datetime) -> None:
    """Stop notifications at whatever point before the provider call they are. Unknown ids are remembered.

    An SMS that a sender has claimed is no longer stopped; a push that is on its way is not called back.
    """
    found = conn.execute(text("SELECT id FROM notifications WHERE key = ANY(:keys)"), {"keys": list(keys)}).all()
    wanted = sorted({*ids, *(str(row.id) for row in found)})
    _insert_events(conn, [(i, "cancelled", "", now, 0) for i in wanted])
    _stop(conn, wanted)


def settle_cancelled(conn: Connection, ids: Sequence[str]) -> None:
    """Stop those that were cancelled while their rows were being written: neither transaction saw the other."""
    query = text(
        "SELECT notification_id FROM events WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND kind = 'cancelled'"
    )
    if found := sorted({str(row.notification_id) for row in conn.execute(query, {"ids": list(ids)})}):
        _stop(conn, found)


def _stop(conn: Connection, ids: Sequence[str]) -> None:
    settle_answered(conn, ids)
    # Without a fallback there is only the push to stop, and only while it waits for its time or to be tried again.
    waiting = conn.execute(_CANCEL_PUSH, {"ids": list(ids)}).all()
    _finish(conn, [(str(row.notification_id), NotificationState.CANCELLED, "cancelled") for row in waiting])


_CANCEL_PUSH = text("""
UPDATE deliveries d SET state = 'cancelled', reason = 'cancelled', wake_at = NULL, finished_at = knocktwice_now()
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step = 0 AND d.state = 'scheduled'
  AND NOT EXISTS (SELECT FROM deliveries s WHERE s.notification_id = d.notification_id AND s.step = 1)
RETURNING d.notification_id
""")


def _insert_events(conn: Connection, events: Sequence[tuple[str, str, str, datetime, int]]) -> list[str]:
    names = ("ids", "kinds", "registrations", "times", "steps")
    columns = zip(*events, strict=True) if events else [()] * len(names)
    rows = conn.execute(_INSERT_EVENTS, {n: list(column) for n, column in zip(names, columns, strict=True)})
    return sorted({str(row.notification_id) for row in rows})


# -- the SMS -------------------------------------------------------------------------------------------------------

_RESERVED = text("""
SELECT d.notification_id, d.step, d.channel, n.user_id, d.number, d.text, d.fingerprint, d.parts, d.sender, d.provider, d.tries, b.category, o.number IS NOT NULL AS opted_out, knocktwice_now() AS now
FROM deliveries d JOIN notifications n ON n.id = d.notification_id JOIN batches b ON b.id = n.batch_id
LEFT JOIN opt_outs o ON o.number = d.number
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'reserved'
ORDER BY d.counted_at, d.notification_id
""")

_CLAIM_SMS = text(f"""
UPDATE deliveries d SET state = 'sending', reason = NULL, tries = d.tries + 1,
  claimed_at = knocktwice_now(), counted_at = knocktwice_now(), wake_at = knocktwice_now() + :lease
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'reserved'
  AND NOT EXISTS (SELECT FROM events e WHERE e.notification_id = d.notification_id AND {_ANSWERS})
  AND NOT EXISTS (SELECT FROM opt_outs o WHERE o.number = d.number)
RETURNING d.notification_id, d.claimed_at
""")

# With their providers. One that somebody else has tried since the choice was made is left to the next look at it: its
# outcome there may be unknown.
_CLAIM_SMS_BY = text(f"""
UPDATE deliveries d SET state = 'sending', reason = NULL, tries = d.tries + 1, provider = r.provider,
  claimed_at = knocktwice_now(), counted_at = knocktwice_now(), wake_at = knocktwice_now() + :lease
FROM unnest(CAST(:ids AS uuid[]), CAST(:providers AS text[]), CAST(:tries AS smallint[])) AS r(id, provider, tries)
WHERE d.notification_id = r.id AND d.step > 0 AND {_is("d.state", "reserved")} AND d.tries = r.tries
  AND NOT EXISTS (SELECT FROM events e WHERE e.notification_id = d.notification_id AND {_ANSWERS})
  AND NOT EXISTS (SELECT FROM opt_outs o WHERE o.number = d.number)
RETURNING d.notification_id, d.claimed_at
""")

# What was sent again because its outcome was lost may be at its provider already.
_PINNED = text("""
SELECT l.notification_id FROM decisions l
JOIN deliveries d ON d.notification_id = l.notification_id AND d.step = l.step AND d.state = 'sending'
WHERE l.notification_id = ANY(CAST(:ids AS uuid[])) AND l.verdict = 'sent_again'
""")

_MOVE = text("""
UPDATE deliveries d SET provider = r.provider
FROM unnest(CAST(:ids AS uuid[]), CAST(:providers AS text[])) AS r(id, provider)
WHERE d.notification_id = r.id AND d.step > 0 AND d.state = 'reserved'
""")

_HOLD = text("""
SELECT notification_id, step, channel, number, text, sender, provider, tries, knocktwice_now() - due_at AS age FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'sending' AND claimed_at = :claimed_at
ORDER BY notification_id FOR UPDATE
""")

_UNRESOLVED = text("""
SELECT d.notification_id, d.step, d.channel, d.number, d.text, d.sender, d.provider, d.tries, d.reason, d.due_at, d.claimed_at, b.category, knocktwice_now() AS now
FROM deliveries d JOIN notifications n ON n.id = d.notification_id JOIN batches b ON b.id = n.batch_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sending'
  AND (d.reason IS NOT NULL OR d.claimed_at + :lease <= knocktwice_now())
ORDER BY d.claimed_at, d.notification_id FOR UPDATE OF d SKIP LOCKED
""")

_RECORD_SMS = text(f"""
UPDATE deliveries d SET state = r.state, reason = r.reason, provider_id = r.provider_id,
  wake_at = CASE WHEN r.state IN ('reserved', 'sending') THEN knocktwice_now() + r.wake_after END,
  finished_at = CASE WHEN r.state NOT IN ('reserved', 'sending') THEN knocktwice_now() END
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[]), CAST(:provider_ids AS text[]),
            CAST(:wake_after AS interval[])) AS r(id, state, reason, provider_id, wake_after)
WHERE d.notification_id = r.id AND d.step > 0 AND {_is("d.state", "sending")}
RETURNING d.notification_id, d.step, d.channel, d.steps_left, d.state, d.reason, d.number
""")

#: What a finished SMS makes of its notification.
_SMS_OUTCOMES = {
    DeliveryState.SENT: NotificationState.TEXTED,
    DeliveryState.UNKNOWN: NotificationState.UNKNOWN,
    DeliveryState.FAILED: NotificationState.FAILED,
}


def reserved(conn: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return the reserved SMS among ``ids``, oldest first, for the last look before the provider call."""
    return conn.execute(_RESERVED, {"ids": list(ids)}).all()


def claim_sms(
    conn: Connection, ids: Sequence[str], lease: timedelta, placements: Mapping[str, Placement] | None = None
) -> tuple[list[str], datetime | None]:
    """Claim reserved SMS for sending unless a receipt, a cancellation or an opt-out came first. What was answered ends here.

    Args:
        placements: of all of ``ids``, where there are several providers.

    Returns:
        The claimed ids and the claim's time, which :func:`hold` asks for: a sender that lost its claim cannot send.
    """
    conn.execute(_LOCK, {"ids": list(ids)})
    if placements is None:
        rows = conn.execute(_CLAIM_SMS, {"ids": list(ids), "lease": lease}).all()
    else:
        places = {
            "providers": [placements[i].provider for i in ids],
            "tries": [placements[i].tries for i in ids],
        }
        rows = conn.execute(_CLAIM_SMS_BY, {"ids": list(ids), "lease": lease, **places}).all()
    claimed = [str(row.notification_id) for row in rows]
    if missed := set(ids).difference(claimed):
        settle_answered(conn, sorted(missed))
    return claimed, rows[0].claimed_at if rows else None


def hold(conn: Connection, ids: Sequence[str], claimed_at: datetime) -> Sequence[Row[Any]]:
    """Lock claimed SMS for the time of the provider call: while the lock is held, their sender lives."""
    return conn.execute(_HOLD, {"ids": list(ids), "claimed_at": claimed_at}).all()


def may_move(conn: Connection, ids: Sequence[str]) -> list[str]:
    """Return which claimed SMS that their providers did not take may go by another: no earlier try of them got lost."""
    pinned = {str(row.notification_id) for row in conn.execute(_PINNED, {"ids": list(ids)})}
    return [i for i in ids if i not in pinned]


def unresolved(conn: Connection, ids: Sequence[str], lease: timedelta) -> Sequence[Row[Any]]:
    """Lock and return claimed SMS whose sender is gone or got no clear answer."""
    return conn.execute(_UNRESOLVED, {"ids": list(ids), "lease": lease}).all()


def with_ids_of_their_own(conn: Connection, results: Sequence[SmsResult]) -> list[SmsResult]:
    """Take away the ids of messages that another delivery has, too: a provider's id is read where a file says it is.

    One wrong word in that file must not make it impossible to record what was sent.
    """
    query = text("SELECT provider_id FROM deliveries WHERE provider_id = ANY(:ids) AND step > 0")
    taken = {row.provider_id for row in conn.execute(query, {"ids": [r.provider_id for r in results if r.provider_id]})}
    own: list[SmsResult] = []
    for result in results:
        known = result.provider_id in taken
        own.append(replace(result, provider_id=None, reason="its id is not its own") if known else result)
        taken |= {result.provider_id} if result.provider_id else set()
    return own


def record_sms(conn: Connection, results: Sequence[SmsResult]) -> None:
    """Write the provider's answers to claimed SMS, and go on to the next steps or end the notifications they settle."""
    if not results:
        return
    rows = conn.execute(
        _RECORD_SMS,
        {
            "ids": [r.notification_id for r in results],
            "states": [str(r.state) for r in results],
            "reasons": [r.reason for r in results],
            "provider_ids": [r.provider_id for r in results],
            "wake_after": [r.wake_after or timedelta() for r in results],
        },
    ).all()
    if moves := {r.notification_id: r.provider for r in results if r.provider is not None}:
        conn.execute(_MOVE, {"ids": list(moves), "providers": list(moves.values())})
    opted_out = sorted({row.number for row in rows if row.reason == Verdict.OPTED_OUT})
    if opted_out:
        add = text("INSERT INTO opt_outs (number, source) SELECT unnest(:numbers), 'provider' ON CONFLICT DO NOTHING")
        conn.execute(add, {"numbers": opted_out})
    settled = [row for row in rows if row.state in _SMS_OUTCOMES]
    _finish(
        conn,
        [
            (str(row.notification_id), _sms_outcome(row), row.reason or f"{row.channel} accepted by the provider")
            for row in settled
            if not row.steps_left
        ],
    )
    _go_on(
        conn,
        [
            _Onward(str(row.notification_id), row.step, row.step, at_once=row.state == DeliveryState.FAILED)
            for row in settled
            if row.steps_left
        ],
    )


def _sms_outcome(row: Row[Any]) -> NotificationState:
    if row.reason == Verdict.OPTED_OUT:
        return NotificationState.SUPPRESSED
    return _SMS_OUTCOMES[DeliveryState(row.state)]


# -- the next step -------------------------------------------------------------------------------------------------

_NEXT_STEP = text("""
INSERT INTO deliveries (notification_id, step, channel, state, "when", due_at, wake_at, after_step, steps_left)
SELECT r.id, r.step + 1, s.step ->> 'channel', 'scheduled', s.step ->> 'when', s.due_at, s.due_at, r.after_step,
       jsonb_array_length(b.plan) - r.step - 1
FROM unnest(CAST(:ids AS uuid[]), CAST(:steps AS smallint[]), CAST(:after_steps AS smallint[]), CAST(:at_once AS boolean[]))
  AS r(id, step, after_step, at_once)
JOIN notifications n ON n.id = r.id AND n.state = 'active' JOIN batches b ON b.id = n.batch_id
CROSS JOIN LATERAL (SELECT b.plan -> CAST(r.step AS int) AS step, knocktwice_now() + CASE WHEN r.at_once THEN interval '0'
  ELSE make_interval(secs => CAST(b.plan -> CAST(r.step AS int) ->> 'after_s' AS double precision)) END AS due_at) AS s
ORDER BY r.id ON CONFLICT DO NOTHING
""")


class _Onward(NamedTuple):
    """A step that ended and has another behind it, which looks at the outcome and the receipts of ``after_step``."""

    notification_id: str
    step: int
    after_step: int
    at_once: bool


def _go_on(conn: Connection, moves: Sequence[_Onward]) -> None:
    """Write the steps that follow, each with its countdown; those already answered end here."""
    if not moves:
        return
    ids = [m.notification_id for m in moves]
    conn.execute(
        _NEXT_STEP,
        {
            "ids": ids,
            "steps": [m.step for m in moves],
            "after_steps": [m.after_step for m in moves],
            "at_once": [m.at_once for m in moves],
        },
    )
    settle_answered(conn, ids)


# -- shared --------------------------------------------------------------------------------------------------------

_FINISH = text("""
UPDATE notifications n SET state = r.state, reason = r.reason, finished_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[])) AS r(id, state, reason)
WHERE n.id = r.id AND n.state = 'active'
""")

_DROP_PUSH = text("""
UPDATE deliveries SET wake_at = NULL, finished_at = knocktwice_now(),
  state = CASE WHEN notification_id = ANY(CAST(:cancelled AS uuid[])) THEN 'cancelled' ELSE 'skipped' END,
  reason = CASE WHEN notification_id = ANY(CAST(:cancelled AS uuid[])) THEN 'cancelled' ELSE 'superseded' END
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 0 AND state = 'scheduled'
""")

_LEDGER = text("""
INSERT INTO decisions (notification_id, step, verdict, inputs)
SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:steps AS smallint[]), CAST(:verdicts AS text[]), CAST(:inputs AS jsonb[]))
""")


def write_ledger(conn: Connection, decisions: Sequence[Decision]) -> None:
    """Add decisions with their inputs to the ledger that ``knocktwice explain`` reads."""
    if decisions:
        conn.execute(
            _LEDGER,
            {
                "ids": [d.notification_id for d in decisions],
                "steps": [d.step for d in decisions],
                "verdicts": [str(d.verdict) for d in decisions],
                "inputs": [json.dumps(dict(d.inputs), default=str) for d in decisions],
            },
        )


def _finish(conn: Connection, ends: Sequence[tuple[str, NotificationState, str]]) -> None:
    """End notifications. A push still waiting to be tried again has nothing to add any more."""
    if not ends:
        return
    ids, states, reasons = (list(column) for column in zip(*ends, strict=True))
    conn.execute(_FINISH, {"ids": ids, "states": [str(s) for s in states], "reasons": reasons})
    cancelled = [i for i, state in zip(ids, states, strict=True) if state is NotificationState.CANCELLED]
    conn.execute(_DROP_PUSH, {"ids": ids, "cancelled": cancelled})


def park(conn: Connection, *, message_id: str | None, task: str | None, reason: str, payload: str) -> None:
    """Keep a message that cannot be processed, with the reason, in the dead-letter table."""
    query = text(
        "INSERT INTO dead_letters (message_id, task, reason, payload) VALUES (:message_id, :task, :reason, :payload)"
    )
    # PostgreSQL's text can hold neither NUL nor half a surrogate pair, and a poisonous message may.
    texts = {"message_id": message_id, "task": task, "reason": reason, "payload": payload}
    clean = {k: v and v.replace("\x00", "\ufffd").encode(errors="replace").decode() for k, v in texts.items()}
    conn.execute(query, clean)
