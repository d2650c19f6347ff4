"""Accepting: the rows of new notifications, with their countdowns."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.messages import When, one_text
from knocktwice_shared.records import record
from knocktwice_worker.content.plans import stored_plan
from knocktwice_worker.content.rendering import stored
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import AttemptState, DeliveryState, NotificationState
from knocktwice_worker.notation.phone_numbers import spelled
from knocktwice_worker.notifications.store.cancellations import adopt_cancelled
from knocktwice_worker.notifications.store.transitions import End, finish, outcome_of_push
from knocktwice_worker.notifications.store.trigger_sql import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_shared.messages import Batch, Recipient, Step


@record
class PushWork:
    """One push to be made.

    Attributes:
        notification_id: for which notification.
        registration: to which device.
    """

    notification_id: str
    registration: str


@dataclass(frozen=True, slots=True)
class Intake:
    """A batch to be accepted.

    Attributes:
        batch: as the application sent it.
        problems: notification id → why it cannot be sent; it is recorded as ``failed``.
        ttl: how long the provider may hold the push.
        content: what a template made of the batch's content; ``None`` takes the batch's own.
        locales: notification id → which part of that content is its own.
        later: notification id → when it goes out, unless at once.
        unwritable: notification id → why its push cannot be written; what follows the push goes all the same.
    """

    batch: Batch
    problems: Mapping[str, str]
    ttl: timedelta
    content: Mapping[str, Any] | None = None
    locales: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, datetime] = field(default_factory=dict)
    unwritable: Mapping[str, str] = field(default_factory=dict)


@record
class _Opened:
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


# Sorted, so that two transactions with the same batches wait for each other instead of deadlocking.
_BATCH_ROWS = rows(
    "r",
    id="uuid",
    content="jsonb",
    plan="jsonb",
    category="text",
    ttl="interval",
    valid_for="interval",
    reference="jsonb",
)
_INSERT_BATCHES = text(f"""
INSERT INTO batches (
  id,
  content,
  plan,
  category,
  ttl,
  valid_for,
  reference
)
SELECT * FROM {_BATCH_ROWS}
ORDER BY 1 ON CONFLICT DO NOTHING
""")

# Sorted by key and project, so that two batches with the same keys wait for each other instead of deadlocking. Registrations that the
# application gave without a person or a number are their owner's: the first of them that has one.
_INSERT_NOTIFICATIONS = text(f"""
INSERT INTO notifications (
  id,
  batch_id,
  user_id,
  phone,
  params,
  key,
  project,
  locale,
  state,
  reason,
  finished_at
)
SELECT
  r.id,
  r.batch,
  CASE WHEN r.registrations IS NULL THEN r.user_id ELSE (
    SELECT d.user_id
    FROM jsonb_array_elements_text(r.registrations) WITH ORDINALITY AS given(registration, place)
    JOIN devices d ON d.registration = given.registration AND d.user_id IS NOT NULL
    ORDER BY given.place LIMIT 1
  ) END,
  r.phone,
  r.params,
  r.key,
  r.project,
  r.locale,
  s.state,
  CASE s.state WHEN 'failed' THEN r.problem WHEN 'cancelled' THEN 'cancelled' END,
  CASE WHEN s.state <> 'active' THEN knocktwice_now() END
FROM {
    rows(
        "r",
        id="uuid",
        batch="uuid",
        user_id="text",
        registrations="jsonb",
        phone="text",
        params="jsonb",
        key="text",
        project="text",
        locale="text",
        problem="text",
    )
}
CROSS JOIN LATERAL (
  SELECT CASE
    WHEN (SELECT true FROM events e WHERE e.notification_id = r.id AND e.kind = '{CANCELLED}' LIMIT 1) THEN 'cancelled'
    WHEN r.problem IS NOT NULL THEN 'failed'
    ELSE 'active'
  END
) AS s(state)
ORDER BY r.key, r.project, r.id
ON CONFLICT DO NOTHING
RETURNING id, state
""")

# A duplicate does not hold the key: the first one does, and there it is found and erased, perhaps at this very moment.
_INSERT_DUPLICATES = text(f"""
INSERT INTO notifications (
  id,
  batch_id,
  user_id,
  phone,
  params,
  key,
  project,
  state,
  reason,
  finished_at
)
SELECT
  r.id,
  r.batch,
  NULL,
  NULL,
  '{{}}',
  NULL,
  r.project,
  'duplicate',
  'key already used by ' || coalesce(CAST(first.id AS text), 'one that is gone'),
  knocktwice_now()
FROM {rows("r", id="uuid", batch="uuid", key="text", project="text")}
LEFT JOIN notifications first
  ON first.key = r.key
  AND first.key IS NOT NULL
  AND first.project IS NOT DISTINCT FROM r.project
WHERE r.key IS NOT NULL
ORDER BY r.id ON CONFLICT DO NOTHING
""")


def accept(conn: Connection, intakes: Sequence[Intake], *, lease: timedelta) -> list[PushWork]:
    """Write the rows of batches, with the countdowns of their first later steps, and return the pushes to make.

    Recipients that are there already (a redelivered message) are left alone; those whose key was used before become
    ``duplicate``. The countdown starts before the push is sent, so that an early click can cancel it. Many small
    batches cost as many queries as a large one.

    Args:
        lease: how long this worker may take before another one makes the pushes.
    """
    conn.execute(
        _INSERT_BATCHES,
        {
            "id": [str(i.batch.id) for i in intakes],
            "content": [json.dumps(i.content or _content(i.batch)) for i in intakes],
            "plan": [stored_plan(i.batch.plan or ()) for i in intakes],
            "category": [i.batch.category for i in intakes],
            "ttl": [i.ttl for i in intakes],
            "valid_for": [i.batch.valid_for for i in intakes],
            "reference": [json.dumps(i.batch.reference) for i in intakes],
        },
    )
    people = [(i, r) for i in intakes for r in i.batch.recipients]
    ids = [str(r.id) for _, r in people]
    batches = [str(i.batch.id) for i, _ in people]
    keys = [r.key for _, r in people]
    projects = [i.batch.project for i, _ in people]
    inserted = conn.execute(
        _INSERT_NOTIFICATIONS,
        {
            "id": ids,
            "batch": batches,
            "user_id": [r.user for _, r in people],
            "registrations": [
                json.dumps(r.registrations) if r.registrations and r.phone is None else None for _, r in people
            ],
            "phone": [r.phone and spelled(r.phone) for _, r in people],
            "params": [json.dumps(r.values) for _, r in people],
            "key": keys,
            "project": projects,
            "locale": [i.locales.get(id_) for id_, (i, _) in zip(ids, people, strict=True)],
            "problem": [i.problems.get(id_) for id_, (i, _) in zip(ids, people, strict=True)],
        },
    ).all()
    if len(inserted) < len(ids) and any(keys):
        conn.execute(_INSERT_DUPLICATES, {"id": ids, "batch": batches, "key": keys, "project": projects})
    fresh = {str(row.id) for row in inserted if row.state == NotificationState.ACTIVE}
    fresh -= _end_cancelled(conn, {i: p for i, p in zip(ids, projects, strict=True) if p is not None and i in fresh})
    if not fresh:
        return []
    # The first of two with one id is the one that was inserted.
    opened = {
        id_: _Opened(r, i.batch.plan or (), i.later.get(id_), _pushes(i.batch), i.unwritable.get(id_))
        for id_, (i, r) in zip(reversed(ids), reversed(people), strict=True)
        if id_ in fresh
    }
    return _open_steps(conn, opened, lease)


def _end_cancelled(conn: Connection, projects: Mapping[str, str]) -> set[str]:
    """End the notifications that their projects cancelled before they were written, and return them."""
    if not projects:
        return set()
    ahead = adopt_cancelled(conn, projects)
    finish(conn, [End(id_, NotificationState.CANCELLED, "cancelled") for id_ in ahead])
    return set(ahead)


def _pushes(batch: Batch) -> bool:
    return batch.push is not None or (batch.template is not None and not batch.sms_only)


def _content(batch: Batch) -> Mapping[str, Any] | None:
    if batch.template is not None:
        return None
    return stored(batch.push, None if batch.sms_text is None else one_text(batch.sms_text))


#: The dispatcher rings this much after a countdown that began when the rows were written. The push is handed over a moment
#: later, and the countdown counts from then (``due.due``); so the first look at the step is nearly always the only one.
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


def _open_steps(conn: Connection, opened: Mapping[str, _Opened], lease: timedelta) -> list[PushWork]:
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

# A person's devices, as far as they show notifications, and the registrations that an application gave itself. Of these a
# registered device that shows nothing is written down, too: the application is told at which place it stands. A late answer
# to a push that is taken up again may be written at the same time: sorted, the two wait for each other and do not deadlock.
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


# The same devices, to be written with the provider's answer: a push that is under way needs no row for each of them. If its
# worker dies, whoever takes the push up looks for the devices again.
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
    conn: Connection, opened: Mapping[str, _Opened], lease: timedelta
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


def _given(id_: str, opened: _Opened) -> list[Given]:
    """Return what the application gave itself, each once, at the first of its places."""
    given = opened.recipient.registrations
    places = {registration: place for place, registration in reversed(list(enumerate(given)))}
    return [Given(id_, registration, place, opened.send_at is None) for registration, place in places.items()]
