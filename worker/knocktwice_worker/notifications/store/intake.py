"""Accepting: the rows of batches and of new notifications."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.messages import one_text
from knocktwice_worker.content.plans import stored_plan
from knocktwice_worker.content.rendering import stored
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import NotificationState
from knocktwice_worker.notation.phone_numbers import spelled
from knocktwice_worker.notifications.store.cancellations import adopt_cancelled
from knocktwice_worker.notifications.store.ends import End, finish
from knocktwice_worker.notifications.store.first_steps import Opened, PushWork, open_steps
from knocktwice_worker.notifications.store.trigger_sql import CANCELLED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

    from knocktwice_shared.messages import Batch


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

# Sorted by key and project, so that two batches with the same keys wait for each other instead of deadlocking.
# Registrations that the application gave without a person or a number are their owner's: the first of them that has
# one.
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
        id_: Opened(r, i.batch.plan or (), i.later.get(id_), _pushes(i.batch), i.unwritable.get(id_))
        for id_, (i, r) in zip(reversed(ids), reversed(people), strict=True)
        if id_ in fresh
    }
    return open_steps(conn, opened, lease)


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
