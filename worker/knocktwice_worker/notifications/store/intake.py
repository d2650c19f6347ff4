"""Accepting: the rows of new notifications, with their countdowns."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, Row, text

from knocktwice_worker.content.plans import stored_plan
from knocktwice_worker.content.rendering import stored
from knocktwice_worker.lifecycle import DeliveryState, NotificationState
from knocktwice_worker.notifications.store.transitions import finish, outcome_of_push

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_shared.messages import Batch, Recipient, Step


class PushWork(NamedTuple):
    """One push to be made: which notification, to which registration."""

    notification_id: str
    registration: str


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
    WHEN (SELECT true FROM events e WHERE e.notification_id = r.id AND e.kind = 'cancelled' LIMIT 1) THEN 'cancelled'
    WHEN r.problem IS NOT NULL THEN 'failed' ELSE 'active' END) AS s(state)
ORDER BY r.key, r.id
ON CONFLICT DO NOTHING
RETURNING id, state
""")

# Without the key: the first one holds it, and there it can be found and erased. It may have been at this very moment.
_INSERT_DUPLICATES = text("""
INSERT INTO notifications (id, batch_id, user_id, phone, params, key, state, reason, finished_at)
SELECT r.id, r.batch, NULL, NULL, '{}', NULL, 'duplicate',
       'key already used by ' || coalesce(CAST(first.id AS text), 'one that is gone'), knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:batches AS uuid[]), CAST(:keys AS text[])) AS r(id, batch, key)
LEFT JOIN notifications first ON first.key = r.key AND first.key IS NOT NULL
WHERE r.key IS NOT NULL
ORDER BY r.id ON CONFLICT DO NOTHING
""")

INSERT_ATTEMPTS = text("""
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
INSERT INTO deliveries (notification_id, step, channel, state, trigger, due_at, wake_at, steps_left)
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
    finish(
        conn,
        [(i, outcome_of_push(DeliveryState(row.state)), row.reason) for i, row in stuck.items() if not opened[i].plan],
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
        INSERT_ATTEMPTS,
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
