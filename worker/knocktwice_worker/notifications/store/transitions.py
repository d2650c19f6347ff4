"""The transitions of later steps that all others use: end a step, then go on to the next one or end the notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from knocktwice_shared.messages import When
from knocktwice_shared.records import record
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import (
    ENDS_ALL,
    NOT_FOLLOWED,
    NOT_NEEDED,
    OUTCOMES,
    TRIGGERS,
    DeliveryState,
    Evidence,
    NotificationState,
    Refusal,
    Verdict,
)
from knocktwice_worker.notifications.store.ends import End, ends_before, finish
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger
from knocktwice_worker.notifications.store.state_sql import is_in
from knocktwice_worker.notifications.store.trigger_sql import (
    ANSWERS,
    CANCELLED,
    FOLLOW_UPS,
    KIND,
    NOT_BY_READING,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice_worker.lifecycle import Entry


#: How a step ends by a verdict; by any other it is skipped.
_ENDS: Mapping[Entry, DeliveryState] = {
    Verdict.CANCELLED: DeliveryState.CANCELLED,
    Refusal.INVALID_CONTENT: DeliveryState.FAILED,
}

# A sender or a receipt may have changed a step first. So only open steps are skipped, and RETURNING names them.
_SKIP = text(f"""
UPDATE deliveries d SET
  state = r.state,
  reason = r.reason,
  wake_at = NULL,
  finished_at = knocktwice_now()
FROM {rows("r", id="uuid", step="smallint", state="text", reason="text")}
WHERE d.notification_id = r.id AND d.step = r.step AND d.step > 0 AND {is_in("d.state", "scheduled", "reserved")}
RETURNING
  d.notification_id,
  d.step,
  d.after_step,
  d.steps_left,
  CASE WHEN d.steps_left > 0 THEN (
    SELECT
      jsonb_build_object(
        'followed', bool_or(later.step ->> 'when' IN {FOLLOW_UPS}),
        'unread', bool_or(later.step ->> 'when' IN {NOT_BY_READING})
      )
    FROM notifications n
    JOIN batches b ON b.id = n.batch_id
    CROSS JOIN jsonb_array_elements(b.plan) WITH ORDINALITY AS later(step, place)
    WHERE n.id = d.notification_id AND later.place > d.step
  ) END AS later
""")


def skip(conn: Connection, decisions: Sequence[Decision]) -> None:
    """End open steps with their verdicts as reasons, then go on to the next steps or end the notifications."""
    if not decisions:
        return
    by_id = {d.notification_id: d for d in decisions}
    found = conn.execute(
        _SKIP,
        {
            "id": list(by_id),
            "step": [d.step for d in by_id.values()],
            "state": [_ENDS.get(d.verdict, DeliveryState.SKIPPED) for d in by_id.values()],
            "reason": [d.reason for d in by_id.values()],
        },
    ).all()
    won = [(by_id[str(row.notification_id)], row) for row in found]
    write_ledger(conn, [d for d, _ in won])
    going_on = [
        (d, row) for d, row in won if row.steps_left and d.verdict not in ENDS_ALL and not _ends_plan(d, row.later)
    ]
    over = {d.notification_id for d, _ in won} - {d.notification_id for d, _ in going_on}
    ended = [d for d, _ in won if d.notification_id in over]
    unfollowed = {
        d.notification_id: row.after_step for d, row in won if d.notification_id in over and d.verdict in NOT_FOLLOWED
    }
    finish(
        conn,
        [
            End(d.notification_id, OUTCOMES.get(d.verdict, NotificationState.SUPPRESSED), d.reason)
            for d in ended
            if d.notification_id not in unfollowed
        ]
        + ends_before(conn, unfollowed),
    )
    go_on(
        conn,
        [
            Onward(d.notification_id, d.step, row.after_step, at_once=d.verdict is Verdict.NOTHING_TO_FOLLOW)
            if d.verdict in NOT_NEEDED
            else Onward(d.notification_id, d.step, d.step, at_once=True)
            for d, row in going_on
        ],
    )


def _ends_plan(decision: Decision, later: Mapping[str, bool]) -> bool:
    """Whether a person's answer ends the plan: no step is left that follows it, or that waits for more."""
    if later["followed"]:
        return False
    return decision.answered or (decision.read and not later["unread"])


# A step that a sender has claimed is not locked: the sender keeps its lock during the provider call, and no receipt can
# end the step any more.
_LOCK_OPEN = text("""
SELECT FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state IN ('scheduled', 'reserved')
ORDER BY notification_id FOR UPDATE
""")


def lock_open(conn: Connection, ids: Sequence[str]) -> None:
    """Lock the open later steps of notifications, before several statements change them.

    Lock order: the open step before the push, notifications by id.
    """
    conn.execute(_LOCK_OPEN, {"ids": list(ids)})


# All events that answer a step are listed in its ledger line.
_ANSWERED = text(f"""
SELECT
  d.notification_id,
  d.step,
  jsonb_object_agg({KIND}, e.received_at) AS events,
  bool_or(e.kind = '{CANCELLED}') AS cancelled
FROM deliveries d JOIN events e ON e.notification_id = d.notification_id AND {ANSWERS}
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state IN ('scheduled', 'reserved')
GROUP BY d.notification_id, d.step
""")


#: The kinds of events with which a person answers.
_ANSWERS_OF_PEOPLE = TRIGGERS[When.NOT_ANSWERED].answered_by


# SKIP LOCKED, because a worker that was suspended may keep a row locked, and that must not delay the receipts of
# others.
_LOCK_FREE = text("""
SELECT notification_id FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state IN ('scheduled', 'reserved')
ORDER BY notification_id FOR UPDATE SKIP LOCKED
""")


# A step is normally locked for milliseconds only; a longer lock means that its worker was suspended.
_PATIENCE = text("SET LOCAL lock_timeout = '1s'")


def settle_soon(conn: Connection, ids: Sequence[str]) -> bool:
    """Call :func:`settle_answered`, and return whether it got each lock within a second."""
    conn.execute(_PATIENCE)
    try:
        settle_answered(conn, ids)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        return False
    return True


def settle_free(conn: Connection, ids: Sequence[str]) -> list[str]:
    """Do the same as :func:`settle_answered`, but leave out locked steps.

    Returns:
        The ids of notifications that should end, too, but whose step another transaction has locked.
    """
    free = {str(row.notification_id) for row in conn.execute(_LOCK_FREE, {"ids": list(ids)})}
    _settle(conn, sorted(free))
    rest = [id_ for id_ in ids if id_ not in free]
    return [str(row.notification_id) for row in conn.execute(_ANSWERED, {"ids": rest})] if rest else []


def settle_answered(conn: Connection, ids: Sequence[str]) -> None:
    """End every open step of these notifications that a receipt or a cancellation has made unnecessary.

    The steps are locked first. So the query sees all events committed until then, and no sender reserves or claims a
    step between the query and the update.
    """
    lock_open(conn, ids)
    _settle(conn, ids)


def _settle(conn: Connection, ids: Sequence[str]) -> None:
    found = conn.execute(_ANSWERED, {"ids": list(ids)}).all()
    skip(
        conn,
        [
            Decision(
                str(row.notification_id),
                Verdict.CANCELLED if row.cancelled else Verdict.REACHED_IN_TIME,
                {"events": row.events},
                row.step,
                answered=not _ANSWERS_OF_PEOPLE.isdisjoint(row.events),
                read=Evidence.READ in row.events,
            )
            for row in found
        ],
    )


@record
class Onward:
    """A step that has ended, to be followed by the next one.

    Attributes:
        notification_id: the notification that it belongs to.
        step: the step that has ended.
        after_step: the step whose outcome and receipts decide about the next step.
        at_once: the next step is due now; otherwise its countdown starts now.
    """

    notification_id: str
    step: int
    after_step: int
    at_once: bool


# The plan is read from the batch, because no caller has it. The sorted order prevents a deadlock between transactions
# with the same notifications.
_NEXT_STEP = text(f"""
INSERT INTO deliveries (
  notification_id,
  step,
  channel,
  state,
  trigger,
  due_at,
  wake_at,
  after_step,
  steps_left
)
SELECT
  r.id,
  r.step + 1,
  s.step ->> 'channel',
  'scheduled',
  s.step ->> 'when',
  s.due_at,
  s.due_at,
  r.after_step,
  jsonb_array_length(b.plan) - r.step - 1
FROM {rows("r", id="uuid", step="smallint", after_step="smallint", at_once="boolean")}
JOIN notifications n ON n.id = r.id AND n.state = 'active'
JOIN batches b ON b.id = n.batch_id
CROSS JOIN LATERAL (
  SELECT
    b.plan -> CAST(r.step AS int) AS step,
    knocktwice_now() + CASE WHEN r.at_once THEN interval '0' ELSE
      make_interval(secs => CAST(b.plan -> CAST(r.step AS int) ->> 'after_s' AS double precision))
    END AS due_at
) AS s
ORDER BY r.id ON CONFLICT DO NOTHING
""")


def go_on(conn: Connection, moves: Sequence[Onward]) -> None:
    """Write the next steps, each with its countdown; steps that receipts have already answered end at once."""
    if not moves:
        return
    ids = [m.notification_id for m in moves]
    conn.execute(
        _NEXT_STEP,
        {
            "id": ids,
            "step": [m.step for m in moves],
            "after_step": [m.after_step for m in moves],
            "at_once": [m.at_once for m in moves],
        },
    )
    settle_answered(conn, ids)
