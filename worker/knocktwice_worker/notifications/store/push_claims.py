"""Pushes that are taken up: after a wait, after a dead worker, or because their time has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications.store.cancellations import note_aborted, settle_cancelled
from knocktwice_worker.notifications.store.first_steps import OFF, RING_LATER, PushWork, open_attempts
from knocktwice_worker.notifications.store.pushes import LAST, PushResult, record_push, settle_pushes
from knocktwice_worker.notifications.store.state_sql import is_in
from knocktwice_worker.notifications.store.transitions import lock_open
from knocktwice_worker.notifications.store.trigger_sql import CANCELLED, aborted_at

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class PushContents:
    """The texts of a push that is taken up again.

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

# The first claim of a push that waited for its time looks up its devices, and so does the claim of one whose worker
# died before it had written them down. While a later step goes out the push waits: if that step fails, it is taken up
# then.
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

# The step behind a push that is tried again, or goes out late, waits its whole time all the same, unless some device
# has the push already. The step's due_at always counts from the push's last claim.
_START_COUNTDOWNS = text(f"""
UPDATE deliveries s SET
  due_at = knocktwice_now() + (s.due_at - r.counted_from),
  wake_at = knocktwice_now() + (s.due_at - r.counted_from) + {RING_LATER.format(after="(s.due_at - r.counted_from)")}
FROM {rows("r", id="uuid", counted_from="timestamptz")}
WHERE s.notification_id = r.id AND s.step = 1 AND s.state = 'scheduled'
  AND NOT EXISTS (SELECT FROM attempts a WHERE a.notification_id = s.notification_id AND a.state = 'sent')
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
  OR (SELECT true FROM events e WHERE e.notification_id = d.notification_id AND e.kind = '{CANCELLED}' LIMIT 1)
  OR {aborted_at("n.batch_id")} IS NOT NULL)
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
        note_aborted(conn, stopped)
        settle_cancelled(conn, stopped)
        conn.execute(_DROP_ENDED_PUSH, {"ids": stopped})
    return set(stopped)


# As in _REJECT_MOVED, for pushes whose attempts are not written yet.
_MOVED = text(f"""
SELECT
  r.id,
  r.registration
FROM {rows("r", id="uuid", registration="text")}
JOIN notifications n ON n.id = r.id AND n.user_id IS NOT NULL
WHERE NOT EXISTS (SELECT FROM devices d WHERE d.registration = r.registration AND d.user_id = n.user_id)
  AND NOT EXISTS (
    SELECT FROM attempts a
    WHERE a.notification_id = r.id AND a.registration = r.registration AND a.place IS NOT NULL)
""")


def moved(conn: Connection, pushes: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the pushes whose device was logged out, or became another person's, since it was looked up.

    Args:
        pushes: notification ids with registrations.
    """
    asked = {"id": [id_ for id_, _ in pushes], "registration": [registration for _, registration in pushes]}
    return {(str(id_), registration) for id_, registration in conn.execute(_MOVED, asked)}


# The same two ends as in ``first_steps._INSERT_PUSH``, for a push that waited for its time. Of devices that the
# application gave itself only those that show nothing are not tried.
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
  {LAST} AS last
""")


def _end_unpushable(conn: Connection, ids: set[str]) -> None:
    if ids:
        settle_pushes(conn, conn.execute(_END_UNPUSHABLE, {"ids": sorted(ids)}).all())


# The batch's content is shared by many and is read apart (``batch_contents.contents``).
_CONTENTS = text("SELECT id, params, locale, batch_id, project FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))")


def push_contents(conn: Connection, ids: Sequence[str]) -> dict[str, PushContents]:
    """Return notification id → contents of pushes that are taken up again."""
    found = conn.execute(_CONTENTS, {"ids": list(ids)}).all()
    return {
        str(id_): PushContents(params, locale, str(batch_id), project)
        for id_, params, locale, batch_id, project in found
    }
