"""The answers of providers to pushes, and what follows from them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, text

from knocktwice_shared.messages import When
from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import AttemptState, DeliveryState
from knocktwice_worker.notifications.store.ends import End, finish, outcome_of_push
from knocktwice_worker.notifications.store.paused import RESUMED
from knocktwice_worker.notifications.store.state_sql import is_in
from knocktwice_worker.notifications.store.trigger_sql import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


@record
class PushResult:
    """The result of one push attempt.

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

#: Whether no step is behind the push ``d``.
LAST = "NOT EXISTS (SELECT FROM deliveries s WHERE s.notification_id = d.notification_id AND s.step = 1)"

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

# Pushes that somebody else has ended or taken up. Their notifications are locked, because their people may be erased:
# then nothing new is written about a device. This lock stops an erasure, and nobody who ends a notification.
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

# One device that answered is enough; one that asks for patience is tried again until the time for retries is over. A
# push that was paused has all of this time after its pause: else the first hiccup then would bring an SMS to everybody.
_RECORD_PUSH = text(f"""
UPDATE deliveries d SET (state, reason, wake_at, finished_at) = (
  SELECT
    f.state,
    CASE f.state WHEN 'failed' THEN coalesce(s.reason, 'no answer') WHEN 'skipped' THEN 'superseded' END,
    CASE f.state WHEN 'scheduled' THEN knocktwice_now() + s.retry_after END,
    CASE WHEN f.state <> 'scheduled' THEN knocktwice_now() END
  FROM (SELECT CASE
      WHEN s.open AND s.ended THEN 'skipped'
      WHEN s.open AND s.urgent AND NOT s.untried AND NOT {LAST}
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
  {LAST} AS last,
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
    {LAST} AS last,
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
    settle_pushes(conn, done)
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


def settle_pushes(conn: Connection, done: Sequence[Row[Any]]) -> None:
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
