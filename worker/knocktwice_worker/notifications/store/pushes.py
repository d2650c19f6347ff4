"""The push: taken up again after a wait, and recorded with the providers' answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, text

from knocktwice_shared.messages import When
from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import AttemptState, DeliveryState, Note
from knocktwice_worker.notifications.store.cancellations import settle_cancelled
from knocktwice_worker.notifications.store.intake import OFF, RING_LATER, PushWork, open_attempts
from knocktwice_worker.notifications.store.paused import RESUMED
from knocktwice_worker.notifications.store.transitions import End, finish, is_in, lock_open, outcome_of_push
from knocktwice_worker.notifications.store.trigger_sql import CANCELLED, FOLLOW_UPS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@record
class PushResult:
    """What became of one push attempt.

    Attributes:
        notification_id: for which notification.
        registration: to which device.
        state: ``open``: to be tried again.
        reason: why it did not go, for people.
        provider_id: the provider's id of the message.
        retry_after: how long to wait before the next try. A push waits for the device that asks for most.
        address_dead: the registration is gone for good and is deleted.
        untried: we were too late to ask the provider, so this was no try.
    """

    notification_id: str
    registration: str
    state: AttemptState
    reason: str | None = None
    provider_id: str | None = None
    retry_after: timedelta | None = None
    address_dead: bool = False
    untried: bool = False


@dataclass(frozen=True, slots=True)
class PushContents:
    """What a push that is taken up again says.

    Attributes:
        params: the recipient's values for the texts.
        locale: which of the batch's contents is the recipient's; ``None``: there is one.
        batch_id: where the content is.
        project: the project to which the notification belongs.
    """

    params: Mapping[str, Any]
    locale: str | None
    batch_id: str
    project: str | None


# Canceller, decider and finisher lock a notification's open step before its push, and notifications by id. So all of it
# is locked in this order before anything changes.
_LOCK_WAITING = text("""
SELECT FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND (state = 'scheduled' OR step > 0 AND state = 'reserved')
ORDER BY notification_id, step DESC FOR UPDATE
""")

#: Later steps in these states have gone out, or may have.
_WENT_OUT = "('sent', 'unknown')"
#: And in these may go out at any moment.
_GOES_OUT = "('reserved', 'sending', 'sent', 'unknown')"

# A later step may have gone out while the push waited to be taken up.
_DROP_ENDED_PUSH = text(f"""
UPDATE deliveries d SET
  state = 'skipped',
  reason = 'superseded',
  wake_at = NULL,
  finished_at = knocktwice_now()
FROM notifications n
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step = 0 AND d.state = 'scheduled'
  AND n.id = d.notification_id AND (n.state <> 'active' OR EXISTS (
    SELECT FROM deliveries s
    WHERE s.notification_id = d.notification_id AND s.step > 0 AND s.state IN {_WENT_OUT}))
""")

# The first claim of a push that waited for its time looks up its devices, and so does the claim of one whose worker died
# before it had written them down. While a later step goes out the push waits: if that step fails, it is taken up then.
_CLAIM_PUSH = text(f"""
UPDATE deliveries d SET
  state = 'sending',
  tries = d.tries + 1,
  claimed_at = knocktwice_now(),
  wake_at = knocktwice_now() + :lease
FROM (
  SELECT p.notification_id, p.claimed_at, coalesce(p.claimed_at, p.due_at) AS counted_from FROM deliveries p
  JOIN notifications n ON n.id = p.notification_id AND n.state = 'active'
  WHERE p.notification_id = ANY(CAST(:ids AS uuid[])) AND p.step = 0 AND p.state = 'scheduled'
    AND coalesce(p.due_at <= knocktwice_now(), true) AND NOT EXISTS (
      SELECT FROM deliveries s
      WHERE s.notification_id = p.notification_id AND s.step > 0 AND s.state IN {_GOES_OUT})
  ORDER BY p.notification_id FOR UPDATE OF p
) due
WHERE d.notification_id = due.notification_id AND d.step = 0
RETURNING
  d.notification_id,
  due.claimed_at IS NULL
    OR NOT EXISTS (SELECT FROM attempts a WHERE a.notification_id = d.notification_id) AS first,
  due.counted_from,
  EXISTS (SELECT FROM attempts a WHERE a.notification_id = d.notification_id AND a.place IS NOT NULL) AS given
""")

# The step behind a push that is tried again, or goes out late, waits its whole time all the same, unless some device has the
# push already. The step's due_at always counts from the push's last claim.
_START_COUNTDOWNS = text(f"""
UPDATE deliveries s SET
  due_at = knocktwice_now() + (s.due_at - r.counted_from),
  wake_at = knocktwice_now() + (s.due_at - r.counted_from) + {RING_LATER.format(after="(s.due_at - r.counted_from)")}
FROM {rows("r", id="uuid", counted_from="timestamptz")}
WHERE s.notification_id = r.id AND s.step = 1 AND s.state = 'scheduled'
  AND NOT EXISTS (SELECT FROM attempts a WHERE a.notification_id = s.notification_id AND a.state = 'sent')
""")

# A device has the push and another one will get it later: the countdown begins with the first.
_COUNT_FROM_HERE = text("""
UPDATE deliveries s SET
  due_at = s.due_at + (knocktwice_now() - p.claimed_at),
  wake_at = s.due_at + (knocktwice_now() - p.claimed_at)
FROM (
  SELECT notification_id FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 1 AND state = 'scheduled'
  ORDER BY notification_id FOR UPDATE
) waiting
JOIN deliveries p ON p.notification_id = waiting.notification_id AND p.step = 0
WHERE s.notification_id = waiting.notification_id AND s.step = 1
""")

# The devices that an application gave itself may have been registered, or changed hands, since the push was accepted:
# whether they show it, and whose they are, is looked up like the devices of a person when it goes out.
_SETTLE_GIVEN = text(f"""
WITH given AS (
  SELECT
    a.notification_id,
    a.registration,
    a.place,
    d.user_id,
    d.notifications_enabled
  FROM attempts a
  JOIN devices d ON d.registration = a.registration AND d.user_id IS NOT NULL
  WHERE a.notification_id = ANY(CAST(:ids AS uuid[])) AND a.place IS NOT NULL AND a.state = 'open'
),
off AS (
  UPDATE attempts a SET
    state = 'rejected',
    reason = '{OFF}'
  FROM given g
  WHERE a.notification_id = g.notification_id AND a.registration = g.registration AND NOT g.notifications_enabled
)
UPDATE notifications n SET user_id = o.user_id
FROM (
  SELECT DISTINCT ON (notification_id)
    notification_id,
    user_id
  FROM given
  ORDER BY notification_id, place
) o
WHERE n.id = o.notification_id AND n.phone IS NULL AND n.user_id IS DISTINCT FROM o.user_id
""")

# The phone may belong to another user by now. A registration that an application gave inline is the application's to
# know.
_REJECT_MOVED = text("""
UPDATE attempts a SET
  state = 'rejected',
  reason = 'device_moved'
FROM notifications n
WHERE a.notification_id = ANY(CAST(:ids AS uuid[])) AND a.state = 'open' AND a.place IS NULL
  AND n.id = a.notification_id AND n.user_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM devices d WHERE d.registration = a.registration AND d.user_id = n.user_id)
""")

# Devices that have answered get nothing again.
_OPEN_ATTEMPTS = text("""
SELECT notification_id, registration FROM attempts
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND state = 'open'
""")

# A worker that stood still for longer than its lease may write its answers down at the very moment of the claim.
_ANSWERED = text("""
SELECT DISTINCT notification_id FROM attempts WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND place IS NULL
""")


def claim_push(conn: Connection, ids: Sequence[str], lease: timedelta) -> list[PushWork]:
    """Take up pushes that a provider asked to repeat or a dead worker left behind; return what is still to be sent.

    A device that was registered for another user meanwhile gets nothing any more.
    """
    conn.execute(_LOCK_WAITING, {"ids": list(ids)})
    settle_cancelled(conn, ids)
    conn.execute(_DROP_ENDED_PUSH, {"ids": list(ids)})
    claimed = conn.execute(_CLAIM_PUSH, {"ids": list(ids), "lease": lease}).all()
    if not claimed:
        return []
    counted = {str(row.notification_id): row.counted_from for row in claimed}
    conn.execute(_START_COUNTDOWNS, {"id": list(counted), "counted_from": list(counted.values())})
    first = sorted(str(row.notification_id) for row in claimed if row.first)
    if given := {str(row.notification_id) for row in claimed if row.first and row.given}:
        conn.execute(_SETTLE_GIVEN, {"ids": sorted(given)})
    if own := [i for i in first if i not in given]:
        open_attempts(conn, own)
    taken = [str(row.notification_id) for row in claimed]
    conn.execute(_REJECT_MOVED, {"ids": taken})
    found = conn.execute(_OPEN_ATTEMPTS, {"ids": taken}).all()
    work = [PushWork(str(id_), registration) for id_, registration in found]
    over = set(taken) - {w.notification_id for w in work}
    unpushed = over & set(first)
    if unpushed:
        unpushed -= {str(row.notification_id) for row in conn.execute(_ANSWERED, {"ids": sorted(unpushed)})}
    _end_unpushable(conn, unpushed)
    if rest := sorted(over - unpushed):
        record_push(conn, [PushResult(i, "", AttemptState.REJECTED) for i in rest], retry_for=timedelta())
    return work


_STOPPED = text(f"""
SELECT d.notification_id FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step = 0 AND d.state = 'sending' AND (
  n.state <> 'active'
  OR (SELECT true FROM events e WHERE e.notification_id = d.notification_id AND e.kind = '{CANCELLED}' LIMIT 1))
""")

_GIVE_BACK = text(f"""
UPDATE deliveries d SET
  state = 'scheduled',
  wake_at = knocktwice_now()
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step = 0 AND {is_in("d.state", "sending")}
""")


def stop_claimed(conn: Connection, ids: Collection[str]) -> set[str]:
    """End claimed pushes that were cancelled, or whose notification ended, since their claim; return their ids."""
    stopped = sorted(str(row.notification_id) for row in conn.execute(_STOPPED, {"ids": list(ids)}))
    if stopped:
        lock_open(conn, stopped)
        conn.execute(_GIVE_BACK, {"ids": stopped})
        settle_cancelled(conn, stopped)
        conn.execute(_DROP_ENDED_PUSH, {"ids": stopped})
    return set(stopped)


#: Whether no step is behind the push ``d``.
_LAST = "NOT EXISTS (SELECT FROM deliveries s WHERE s.notification_id = d.notification_id AND s.step = 1)"

# The same two ends as in ``intake._INSERT_PUSH``, for a push that waited for its time. Of devices that the application gave
# itself only those that show nothing are not tried.
_END_UNPUSHABLE = text(f"""
UPDATE deliveries d SET
  state = s.state,
  reason = CASE s.state WHEN 'skipped' THEN 'notifications_disabled' ELSE 'no_device' END,
  wake_at = NULL,
  finished_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[])) AS r(id)
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN EXISTS (SELECT FROM notifications n JOIN devices v ON v.user_id = n.user_id WHERE n.id = r.id) THEN 'skipped'
    WHEN EXISTS (SELECT FROM attempts a WHERE a.notification_id = r.id AND a.place IS NOT NULL) THEN 'skipped'
    ELSE 'failed'
  END AS state
) s
WHERE d.notification_id = r.id AND d.step = 0 AND d.state = 'sending'
RETURNING
  d.notification_id,
  d.state,
  d.reason,
  {_LAST} AS last
""")


def _end_unpushable(conn: Connection, ids: set[str]) -> None:
    if ids:
        _settle_pushes(conn, conn.execute(_END_UNPUSHABLE, {"ids": sorted(ids)}).all())


# Who records the answers of pushes keeps them until the commit: nobody takes them up, and nobody erases their people.
_UNDER_WAY = text(f"""
SELECT notification_id FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 0 AND {is_in("state", "sending")}
ORDER BY notification_id FOR UPDATE
""")

#: What was answered before stays: a repeat of a record changes nothing.
_WRITE_ATTEMPTS = f"""
INSERT INTO attempts (
  notification_id,
  registration,
  state,
  reason,
  provider_id
)
SELECT
  r.device_of,
  r.registration,
  r.device_state,
  r.device_reason,
  r.provider_id
FROM {
    rows(
        "r",
        device_of="uuid",
        registration="text",
        device_state="text",
        device_reason="text",
        provider_id="text",
    )
}
{{only}}
ON CONFLICT (notification_id, registration) DO UPDATE SET
  state = excluded.state,
  reason = excluded.reason,
  provider_id = excluded.provider_id
WHERE attempts.state = 'open'
"""
_RECORD_DEVICES = text(_WRITE_ATTEMPTS.format(only=""))

# Pushes that somebody else has ended or taken up. Their notifications are locked, because their people may be erased: then
# nothing new is written about a device. This lock stops an erasure, and nobody who ends a notification.
_OF_A_USER = text("""
SELECT id FROM notifications
WHERE id = ANY(CAST(:ids AS uuid[])) AND user_id IS NOT NULL
ORDER BY id FOR KEY SHARE
""")

_RECORD_ATTEMPTS = text(f"""
UPDATE attempts a SET
  state = r.state,
  reason = r.reason,
  provider_id = r.provider_id
FROM {rows("r", id="uuid", registration="text", state="text", reason="text", provider_id="text")}
WHERE a.notification_id = r.id AND a.registration = r.registration AND {is_in("a.state", "open")}
""")

# Providers said that these registrations are gone for good.
_FORGET_DEVICES = text("DELETE FROM devices WHERE registration = ANY(:dead)")

#: Whether the push ``d`` was cancelled; the planner may turn a plain EXISTS into a look at all receipts there are.
_CANCELLED = f"""
(SELECT true FROM events e WHERE e.notification_id = d.notification_id AND e.kind = '{CANCELLED}' LIMIT 1)
"""

#: How long a critical push is tried before the step behind it follows: a one-time password cannot wait for an outage to
#: end. A worker that stood still has not tried: its delay alone must not bring an SMS.
_URGENT = timedelta(minutes=1)

# One device that answered is enough; one that asks for patience is tried again until the time for retries is over. A push
# that was paused has all of this time after its pause: else the first hiccup then would bring an SMS to everybody.
_RECORD_PUSH = text(f"""
UPDATE deliveries d SET (state, reason, wake_at, finished_at) = (
  SELECT
    f.state,
    CASE f.state WHEN 'failed' THEN coalesce(s.reason, 'no answer') WHEN 'skipped' THEN 'superseded' END,
    CASE f.state WHEN 'scheduled' THEN knocktwice_now() + s.retry_after END,
    CASE WHEN f.state <> 'scheduled' THEN knocktwice_now() END
  FROM (SELECT CASE
      WHEN s.open AND s.ended THEN 'skipped'
      WHEN s.open AND s.urgent AND NOT s.untried AND NOT {_LAST}
        AND s.created_at + :urgent < knocktwice_now() + s.retry_after
        THEN CASE WHEN s.sent THEN 'sent' ELSE 'failed' END
      WHEN s.open AND s.created_at + :retry_for > knocktwice_now() THEN 'scheduled'
      WHEN s.sent THEN 'sent'
      ELSE 'failed'
    END AS state) f
)
FROM (
  SELECT
    o.*,
    n.state <> 'active' AS ended,
    greatest(coalesce(p.due_at, n.created_at), {RESUMED.format(row="p")}) AS created_at,
    b.category = 'critical' AS urgent
  FROM (
    SELECT
      a.notification_id AS id,
      bool_or(a.state = 'open') AS open,
      bool_or(a.state = 'sent') AS sent,
      max(a.reason) FILTER (WHERE a.state <> 'sent') AS reason,
      r.retry_after,
      r.untried
    FROM {rows("r", id="uuid", retry_after="interval", untried="boolean")}
    JOIN attempts a ON a.notification_id = r.id
    GROUP BY a.notification_id, r.retry_after, r.untried
  ) o
  JOIN notifications n ON n.id = o.id
  JOIN batches b ON b.id = n.batch_id
  JOIN deliveries p ON p.notification_id = o.id AND p.step = 0
) s
WHERE d.notification_id = s.id AND d.step = 0 AND {is_in("d.state", "sending")}
RETURNING
  d.notification_id,
  d.state,
  d.reason,
  {_LAST} AS last,
  {_CANCELLED} AS cancelled
""")

# For pushes of which every device has answered at the first attempt, as nearly all do: their end is known without a
# look at the rows of the attempts, which takes most of the time of the general case. These rows are written here, once.
_RECORD_ANSWERED = text(f"""
WITH done AS (
  UPDATE deliveries d SET
    state = r.state,
    reason = r.reason,
    wake_at = NULL,
    finished_at = knocktwice_now()
  FROM {rows("r", id="uuid", state="text", reason="text")}
  WHERE d.notification_id = r.id AND d.step = 0 AND {is_in("d.state", "sending")}
  RETURNING
    d.notification_id,
    d.state,
    d.reason,
    {_LAST} AS last,
    {_CANCELLED} AS cancelled
),
written AS ({_WRITE_ATTEMPTS.format(only="JOIN done ON done.notification_id = r.device_of")})
SELECT * FROM done
""")


def record_push(
    conn: Connection, results: Sequence[PushResult], *, retry_for: timedelta, complete: bool = False
) -> list[str]:
    """Write the providers' answers. A push that failed on every device makes its first later step due at once.

    Args:
        retry_for: how long after the time it was to go out a push is still retried.
        complete: these are the results of all devices of each push, and no earlier attempts were made.

    Returns:
        The ids that :func:`settle_cancelled` wants when this is committed: a cancellation made while the rows were
        written, or while the push was on its way, has found nothing to stop.
    """
    # After a lease that was too short two workers record the same pushes: in one order, so that one waits for the
    # other.
    results = sorted(results, key=lambda r: (r.notification_id, r.registration))
    dead = [r.registration for r in results if r.address_dead]
    if dead:
        conn.execute(_FORGET_DEVICES, {"dead": dead})
    by_push: dict[str, list[PushResult]] = {}
    for r in results:
        by_push.setdefault(r.notification_id, []).append(r)
    answered = {i: _answer(own) for i, own in by_push.items()} if complete else {}
    known = {i: answer for i, answer in answered.items() if answer is not None}
    done: list[Row[Any]] = []
    if known:
        states, reasons = (list(column) for column in zip(*known.values(), strict=True))
        own = _devices([r for r in results if r.notification_id in known])
        done += conn.execute(_RECORD_ANSWERED, {"id": list(known), "state": states, "reason": reasons, **own}).all()
        _record_lost(conn, results, known.keys() - {str(row.notification_id) for row in done})
    rest = {i: max(r.retry_after or timedelta() for r in own) for i, own in by_push.items() if i not in known}
    if rest:
        under_way = {str(row.notification_id) for row in conn.execute(_UNDER_WAY, {"ids": list(rest)})}
        conn.execute(_RECORD_DEVICES, _devices([r for r in results if r.notification_id in under_way]))
        _record_lost(conn, results, rest.keys() - under_way)
        given = {
            "id": list(rest),
            "retry_after": list(rest.values()),
            "untried": [all(r.untried for r in by_push[i] if r.state is AttemptState.OPEN) for i in rest],
            "retry_for": retry_for,
            "urgent": _URGENT,
        }
        done += conn.execute(_RECORD_PUSH, given)
    _settle_pushes(conn, done)
    shown = {r.notification_id for r in results if r.state is AttemptState.SENT}
    if shown := shown.intersection(str(row.notification_id) for row in done if row.state == DeliveryState.SCHEDULED):
        conn.execute(_COUNT_FROM_HERE, {"ids": sorted(shown)})
    return [str(row.notification_id) for row in done if row.cancelled or row.state == DeliveryState.SCHEDULED]


def _devices(results: Sequence[PushResult]) -> dict[str, list[Any]]:
    """Return the columns of :data:`_WRITE_ATTEMPTS`. A push that has no device left is recorded without one."""
    results = [r for r in results if r.registration]
    return {
        "device_of": [r.notification_id for r in results],
        "registration": [r.registration for r in results],
        "device_state": [r.state for r in results],
        "device_reason": [r.reason for r in results],
        "provider_id": [r.provider_id for r in results],
    }


def _record_lost(conn: Connection, results: Sequence[PushResult], ids: Collection[str]) -> None:
    """Write the answers to pushes that are not under way any more: their devices may show them all the same."""
    if not ids:
        return
    known = {str(row.id) for row in conn.execute(_OF_A_USER, {"ids": sorted(ids)})}
    lost = [r for r in results if r.notification_id in ids and r.notification_id not in known]
    conn.execute(
        _RECORD_ATTEMPTS,
        {
            "id": [r.notification_id for r in lost],
            "registration": [r.registration for r in lost],
            "state": [r.state for r in lost],
            "reason": [r.reason for r in lost],
            "provider_id": [r.provider_id for r in lost],
        },
    )
    conn.execute(_RECORD_DEVICES, _devices([r for r in results if r.notification_id in known]))


def _answer(results: Sequence[PushResult]) -> tuple[DeliveryState, str | None] | None:
    """Return state and reason of a push from the results of all its devices; ``None`` if one is to be tried again."""
    states = {r.state for r in results}
    if AttemptState.OPEN in states:
        return None
    if AttemptState.SENT in states:
        return DeliveryState.SENT, None
    return DeliveryState.FAILED, max((r.reason for r in results if r.reason), default="no answer")


# Locked in the order in which receipts lock. A step may also wait for the push past its own time.
_FALL_BACK_NOW = text("""
UPDATE deliveries d SET
  due_at = least(d.due_at, knocktwice_now()),
  wake_at = knocktwice_now()
FROM (
  SELECT notification_id FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 1 AND state = 'scheduled' AND wake_at > knocktwice_now()
    AND (trigger IS DISTINCT FROM :unless)
  ORDER BY notification_id FOR UPDATE
) waiting
WHERE d.notification_id = waiting.notification_id AND d.step = 1
""")


def _settle_pushes(conn: Connection, done: Sequence[Row[Any]]) -> None:
    """Draw the consequences of pushes that were made, or could not be.

    Args:
        done: rows of ``notification_id, state, reason, last``; the last step has none behind it.
    """
    if failed := [str(row.notification_id) for row in done if row.state == DeliveryState.FAILED]:
        conn.execute(_FALL_BACK_NOW, {"ids": failed, "unless": ""})
    if hidden := [str(row.notification_id) for row in done if row.state == DeliveryState.SKIPPED]:
        # The delay of a step that asks for disabled notifications is the caller's.
        conn.execute(_FALL_BACK_NOW, {"ids": hidden, "unless": When.NOTIFICATIONS_DISABLED})
    finish(
        conn,
        [
            End(
                str(row.notification_id), outcome_of_push(DeliveryState(row.state)), row.reason or "no fallback planned"
            )
            for row in done
            if row.last and row.state != DeliveryState.SCHEDULED
        ],
    )


# The ledger says whether they were withdrawn before. A message that only follows the push's success does not stand for it.
_SHOWN = text(f"""
SELECT a.notification_id, a.registration, coalesce(a.provider_id = '{STAND_IN}', false) FROM attempts a
WHERE a.notification_id = ANY(CAST(:ids AS uuid[])) AND a.state = 'sent' AND NOT EXISTS (
  SELECT FROM decisions l WHERE l.notification_id = a.notification_id AND l.verdict = '{Note.WITHDRAWN}')
  AND NOT coalesce((
    SELECT bool_and(coalesce(d.trigger IN {FOLLOW_UPS}, false)) FROM deliveries d
    WHERE d.notification_id = a.notification_id AND d.step > 0 AND d.state = 'sent'), false)
ORDER BY 1, 2
""")


@record
class ShownPush:
    """A push that a device got.

    Attributes:
        notification_id: for which notification.
        registration: the device.
        test: only the stand-in has it, and no device.
    """

    notification_id: str
    registration: str
    test: bool


def shown(conn: Connection, ids: Sequence[str]) -> list[ShownPush]:
    """Return the devices that got these notifications' pushes and were not told to remove them yet."""
    return [ShownPush(str(id_), *rest) for id_, *rest in conn.execute(_SHOWN, {"ids": list(ids)}).all()]


# A receipt may come before the provider's answer is recorded: until then the push is under way to the user's devices.
_ATTEMPTS = text("""
SELECT notification_id, registration FROM attempts WHERE notification_id = ANY(CAST(:ids AS uuid[]))
UNION
SELECT n.id, d.registration
FROM notifications n JOIN devices d ON d.user_id = n.user_id
WHERE n.id = ANY(CAST(:ids AS uuid[]))
""")


def attempts(conn: Connection, ids: Sequence[str]) -> list[PushWork]:
    """Return all devices to which these notifications are or were pushed, or may be pushed at this moment."""
    found = conn.execute(_ATTEMPTS, {"ids": list(ids)}).all()
    return [PushWork(str(id_), registration) for id_, registration in found]


# The batch's content is shared by many and is read apart (``due.contents``).
_CONTENTS = text("SELECT id, params, locale, batch_id, project FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))")


def push_contents(conn: Connection, ids: Sequence[str]) -> dict[str, PushContents]:
    """Return notification id → contents of pushes that are taken up again."""
    found = conn.execute(_CONTENTS, {"ids": list(ids)}).all()
    return {
        str(id_): PushContents(params, locale, str(batch_id), project)
        for id_, params, locale, batch_id, project in found
    }
