"""The first steps of new notifications: the push with its devices, and the step behind it with its countdown."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.messages import When
from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import AttemptState, DeliveryState
from knocktwice_worker.notifications.store.ends import End, finish, outcome_of_push

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_shared.messages import Recipient, Step


@record
class PushWork:
    """One push to be made.

    Attributes:
        notification_id: for which notification.
        registration: to which device.
    """

    notification_id: str
    registration: str


@record
class Opened:
    """A notification whose steps are to be written.

    Attributes:
        recipient: to whom.
        plan: its later steps.
        send_at: when it goes out; ``None``: at once.
        pushed: whether it begins with a push.
        unwritable: why that push cannot be written, if so.
    """

    recipient: Recipient
    plan: Sequence[Step]
    send_at: datetime | None
    pushed: bool
    unwritable: str | None = None


@record
class _Stuck:
    """A push that cannot be made.

    Attributes:
        state: ``skipped``, no device shows it; ``failed``, there is no device, or it cannot be written.
        reason: the same for people.
    """

    state: DeliveryState
    reason: str

    def nothing_to_wait_for(self, step: Step) -> bool:
        """Whether the step behind it is due at once; one that asks for disabled notifications keeps its delay."""
        return self.state is DeliveryState.FAILED or step.when is not When.NOTIFICATIONS_DISABLED


#: The dispatcher rings this much after a countdown that began when the rows were written. The push is handed over a
#: moment later, and the countdown counts from then (:func:`due.due`); so the first look at the step is nearly always
#: the only one.
RING_LATER = "least(interval '1 second', {after} / 10)"

# The countdown of a scheduled send starts at its time.
_INSERT_FIRST_STEP = text(f"""
INSERT INTO deliveries (
  notification_id,
  step,
  channel,
  state,
  trigger,
  due_at,
  wake_at,
  steps_left
)
SELECT
  r.id,
  1,
  r.channel,
  'scheduled',
  r.trigger,
  due.at,
  CASE WHEN r.pushed THEN due.at + {RING_LATER.format(after="r.after")} ELSE due.at END,
  r.steps_left
FROM {
    rows(
        "r",
        id="uuid",
        channel="text",
        trigger="text",
        after="interval",
        steps_left="smallint",
        send_at="timestamptz",
        pushed="boolean",
    )
}
CROSS JOIN LATERAL (SELECT coalesce(r.send_at, knocktwice_now()) + r.after) AS due(at)
""")


def open_steps(conn: Connection, opened: Mapping[str, Opened], lease: timedelta) -> list[PushWork]:
    """Write the pushes and the first later steps; return the pushes to make."""
    work, stuck = _open_pushes(conn, {i: o for i, o in opened.items() if o.pushed}, lease)
    planned = [i for i in sorted(opened) if opened[i].plan]
    if planned:
        steps = [opened[i].plan[0] for i in planned]
        at_once = {i for i, push in stuck.items() if push.nothing_to_wait_for(opened[i].plan[0])}
        conn.execute(
            _INSERT_FIRST_STEP,
            {
                "id": planned,
                "channel": [str(step.channel) for step in steps],
                "trigger": [step.when and str(step.when) for step in steps],
                "after": [timedelta() if i in at_once else step.after for i, step in zip(planned, steps, strict=True)],
                "steps_left": [len(opened[i].plan) - 1 for i in planned],
                "send_at": [opened[i].send_at for i in planned],
                "pushed": [opened[i].pushed and i not in stuck for i in planned],
            },
        )
    finish(
        conn,
        [End(i, outcome_of_push(push.state), push.reason) for i, push in stuck.items() if not opened[i].plan],
    )
    return work


#: Why a device that the application named gets no push.
OFF = str(When.NOTIFICATIONS_DISABLED)

# A person's devices, as far as they show notifications, and the registrations that an application gave itself. Of these
# a registered device that shows nothing is written down, too: the application is told at which place it stands. A late
# answer to a push that is taken up again may be written at the same time: sorted, the two wait for each other and do
# not deadlock.
_INSERT_ATTEMPTS = text(f"""
INSERT INTO attempts (
  notification_id,
  registration,
  state,
  reason,
  place
)
SELECT n.id, d.registration, 'open', NULL, NULL
FROM notifications n JOIN devices d ON d.user_id = n.user_id AND d.notifications_enabled
WHERE n.id = ANY(CAST(:ids AS uuid[]))
UNION ALL
SELECT
  g.given_id,
  g.registration,
  CASE WHEN off.registration IS NULL THEN 'open' ELSE 'rejected' END,
  CASE WHEN off.registration IS NOT NULL THEN '{OFF}' END,
  g.place
FROM {rows("g", given_id="uuid", registration="text", place="smallint", at_once="boolean")}
LEFT JOIN devices off
  ON g.at_once
  AND off.registration = g.registration
  AND off.user_id IS NOT NULL
  AND NOT off.notifications_enabled
ORDER BY 1, 2
ON CONFLICT DO NOTHING
RETURNING
  notification_id,
  registration,
  state
""")


@record
class Given:
    """A registration that the application gave instead of a person.

    Attributes:
        notification_id: for which notification.
        registration: as it was given.
        place: its place among those that were given, from 0.
        at_once: whether the push goes now; otherwise whether the device shows it is looked up when it goes.
    """

    notification_id: str
    registration: str
    place: int
    at_once: bool


# The same devices, to be written with the provider's answer: a push that is under way needs no row for each of them. If
# its worker dies, whoever takes the push up looks for the devices again.
_DEVICES = text("""
SELECT n.id, d.registration
FROM notifications n JOIN devices d ON d.user_id = n.user_id AND d.notifications_enabled
WHERE n.id = ANY(CAST(:ids AS uuid[]))
""")


def devices(conn: Connection, ids: Sequence[str]) -> list[PushWork]:
    """Return one push per device of these notifications' users; :func:`pushes.record_push` writes them down."""
    if not ids:
        return []
    return [PushWork(str(id_), registration) for id_, registration in conn.execute(_DEVICES, {"ids": list(ids)})]


def open_attempts(conn: Connection, ids: Sequence[str], given: Sequence[Given] = ()) -> tuple[list[PushWork], set[str]]:
    """Write one attempt per device of these notifications.

    Args:
        ids: notifications whose users' devices are looked up.
        given: what the application gave itself.

    Returns:
        The pushes to make, and the notifications with a given device that shows no notifications.
    """
    found = conn.execute(
        _INSERT_ATTEMPTS,
        {
            "ids": list(ids),
            "given_id": [g.notification_id for g in given],
            "registration": [g.registration for g in given],
            "place": [g.place for g in given],
            "at_once": [g.at_once for g in given],
        },
    ).all()
    return (
        [PushWork(str(id_), registration) for id_, registration, state in found if state == AttemptState.OPEN],
        {str(id_) for id_, _, state in found if state != AttemptState.OPEN},
    )


# A person without a device that shows the push is told apart from one without any device: a step may wait for that.
_INSERT_PUSH = text(f"""
INSERT INTO deliveries (
  notification_id,
  step,
  channel,
  state,
  reason,
  due_at,
  wake_at,
  claimed_at,
  finished_at
)
SELECT
  r.id,
  0,
  'push',
  s.state,
  CASE s.state WHEN 'skipped' THEN 'notifications_disabled' WHEN 'failed' THEN coalesce(r.problem, 'no_device') END,
  r.send_at,
  CASE s.state WHEN 'scheduled' THEN r.send_at WHEN 'sending' THEN knocktwice_now() + :lease END,
  CASE WHEN s.state <> 'scheduled' THEN knocktwice_now() END,
  CASE WHEN s.state NOT IN ('scheduled', 'sending') THEN knocktwice_now() END
FROM {rows("r", id="uuid", pushable="boolean", off="boolean", send_at="timestamptz", problem="text")}
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN r.problem IS NOT NULL THEN 'failed'
    WHEN r.send_at IS NOT NULL THEN 'scheduled'
    WHEN r.pushable THEN 'sending'
    WHEN r.off THEN 'skipped'
    WHEN EXISTS (SELECT FROM notifications n JOIN devices d ON d.user_id = n.user_id WHERE n.id = r.id) THEN 'skipped'
    ELSE 'failed'
  END
) AS s(state)
RETURNING
  notification_id,
  state,
  reason
""")


def _open_pushes(
    conn: Connection, opened: Mapping[str, Opened], lease: timedelta
) -> tuple[list[PushWork], dict[str, _Stuck]]:
    """Write the pushes; return those to be made now, and those that cannot be made."""
    if not opened:
        return [], {}
    ids = sorted(opened)
    written = [i for i in ids if opened[i].unwritable is None]
    given = [one for i in written if opened[i].recipient.registrations for one in _given(i, opened[i])]
    work, off = open_attempts(conn, [], given) if given else ([], set[str]())
    # The devices of a scheduled push are looked up when it goes out: by then they may belong to other people.
    work += devices(conn, [i for i in written if opened[i].send_at is None and opened[i].recipient.user is not None])
    pushable = {w.notification_id for w in work}
    pushes = conn.execute(
        _INSERT_PUSH,
        {
            "id": ids,
            "pushable": [i in pushable for i in ids],
            "off": [i in off for i in ids],
            "send_at": [opened[i].send_at for i in ids],
            "problem": [opened[i].unwritable for i in ids],
            "lease": lease,
        },
    ).all()
    return (
        [w for w in work if opened[w.notification_id].send_at is None],
        {
            str(row.notification_id): _Stuck(DeliveryState(row.state), row.reason)
            for row in pushes
            if row.state in (DeliveryState.SKIPPED, DeliveryState.FAILED)
        },
    )


def _given(id_: str, opened: Opened) -> list[Given]:
    """Return what the application gave itself, each once, at the first of its places."""
    given = opened.recipient.registrations
    places = {registration: place for place, registration in reversed(list(enumerate(given)))}
    return [Given(id_, registration, place, opened.send_at is None) for registration, place in places.items()]
