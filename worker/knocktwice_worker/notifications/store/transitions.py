"""How a notification goes on and how it ends: what all other transitions come down to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, text

from knocktwice_worker.lifecycle import NOT_NEEDED, OUTCOMES, DeliveryState, NotificationState, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A receipt or cancellation ``e`` that makes delivery ``d`` needless. A click does, whatever was clicked; what was delivered
#: counts if it came from the step that ``d`` follows.
ANSWERS = """
  (e.kind = 'cancelled' OR (e.kind = 'clicked' AND (d.trigger IN ('not_delivered', 'not_clicked')))
   OR (d.trigger = 'not_delivered' AND e.step >= d.after_step))
"""


def is_in(column: str, *states: str) -> str:
    """Return SQL that is true in one of these states, written so that the planner has no idea how rare they are.

    States come and go within seconds, statistics lag behind by minutes. Trusting them, the planner takes ``sending`` for a
    rarity and walks the whole table for it, and all of a batch for each row found: seconds instead of milliseconds.
    """
    wanted = ", ".join(f"'{state}'" for state in states)
    return f"CASE WHEN {column} IN ({wanted}) THEN true END"


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


def outcome_of_push(push: DeliveryState) -> NotificationState:
    match push:
        case DeliveryState.SENT:
            return NotificationState.PUSHED
        case DeliveryState.SKIPPED:
            return NotificationState.SUPPRESSED
        case _:
            return NotificationState.FAILED


_SKIP = text(f"""
UPDATE deliveries d SET state = r.state, reason = r.verdict, wake_at = NULL, finished_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:steps AS smallint[]), CAST(:states AS text[]), CAST(:verdicts AS text[]))
  AS r(id, step, state, verdict)
WHERE d.notification_id = r.id AND d.step = r.step AND d.step > 0 AND {is_in("d.state", "scheduled", "reserved")}
RETURNING d.notification_id, d.step, d.after_step, d.steps_left
""")


def skip(conn: Connection, decisions: Sequence[Decision]) -> None:
    """End steps that will not be taken, with the verdicts as reasons, and go on to the next ones or end the notifications."""
    if not decisions:
        return
    by_id = {d.notification_id: d for d in decisions}
    rows = conn.execute(
        _SKIP,
        {
            "ids": list(by_id),
            "steps": [d.step for d in by_id.values()],
            "states": [
                DeliveryState.CANCELLED if d.verdict is Verdict.CANCELLED else DeliveryState.SKIPPED
                for d in by_id.values()
            ],
            "verdicts": [d.verdict for d in by_id.values()],
        },
    ).all()
    won = [(by_id[str(row.notification_id)], row) for row in rows]
    write_ledger(conn, [d for d, _ in won])
    going_on = [(d, row) for d, row in won if row.steps_left and d.verdict is not Verdict.CANCELLED and not d.answered]
    over = {d.notification_id for d, _ in won} - {d.notification_id for d, _ in going_on}
    finish(
        conn,
        [
            (d.notification_id, OUTCOMES.get(d.verdict, NotificationState.SUPPRESSED), str(d.verdict))
            for d, _ in won
            if d.notification_id in over
        ],
    )
    go_on(
        conn,
        [
            Onward(d.notification_id, d.step, row.after_step, at_once=False)
            if d.verdict in NOT_NEEDED
            else Onward(d.notification_id, d.step, d.step, at_once=True)
            for d, row in going_on
        ],
    )


_ANSWERED = text(f"""
SELECT d.notification_id, d.step, jsonb_object_agg(e.kind, e.received_at) AS events,
       bool_or(e.kind = 'cancelled') AS cancelled
FROM deliveries d JOIN events e ON e.notification_id = d.notification_id AND {ANSWERS}
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state IN ('scheduled', 'reserved')
GROUP BY d.notification_id, d.step
""")

# Taking the locks first makes the UPDATE that follows see every receipt and every reservation committed until then. What a
# sender has claimed is left alone: its lock is held for as long as the provider takes, and nothing can end it any more.
_LOCK_OPEN = text("""
SELECT FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state IN ('scheduled', 'reserved')
ORDER BY notification_id FOR UPDATE
""")


def lock_open(conn: Connection, ids: Sequence[str]) -> None:
    """Lock the open steps of notifications, for whoever changes several of them in more than one statement."""
    conn.execute(_LOCK_OPEN, {"ids": list(ids)})


def settle_answered(conn: Connection, ids: Sequence[str]) -> None:
    """End every fallback among ``ids`` that a receipt or a cancellation has made needless and no sender has claimed."""
    lock_open(conn, ids)
    rows = conn.execute(_ANSWERED, {"ids": list(ids)}).all()
    skip(
        conn,
        [
            Decision(
                str(row.notification_id),
                Verdict.CANCELLED if row.cancelled else Verdict.REACHED_IN_TIME,
                {"events": row.events},
                row.step,
                answered="clicked" in row.events,
            )
            for row in rows
        ],
    )


_NEXT_STEP = text("""
INSERT INTO deliveries (notification_id, step, channel, state, trigger, due_at, wake_at, after_step, steps_left)
SELECT r.id, r.step + 1, s.step ->> 'channel', 'scheduled', s.step ->> 'when', s.due_at, s.due_at, r.after_step,
       jsonb_array_length(b.plan) - r.step - 1
FROM unnest(CAST(:ids AS uuid[]), CAST(:steps AS smallint[]), CAST(:after_steps AS smallint[]), CAST(:at_once AS boolean[]))
  AS r(id, step, after_step, at_once)
JOIN notifications n ON n.id = r.id AND n.state = 'active' JOIN batches b ON b.id = n.batch_id
CROSS JOIN LATERAL (SELECT b.plan -> CAST(r.step AS int) AS step, knocktwice_now() + CASE WHEN r.at_once THEN interval '0'
  ELSE make_interval(secs => CAST(b.plan -> CAST(r.step AS int) ->> 'after_s' AS double precision)) END AS due_at) AS s
ORDER BY r.id ON CONFLICT DO NOTHING
""")


class Onward(NamedTuple):
    """A step that ended and has another behind it, which looks at the outcome and the receipts of ``after_step``."""

    notification_id: str
    step: int
    after_step: int
    at_once: bool


def go_on(conn: Connection, moves: Sequence[Onward]) -> None:
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


_FINISH = text("""
UPDATE notifications n SET state = r.state, reason = r.reason, finished_at = knocktwice_now()
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:reasons AS text[])) AS r(id, state, reason)
WHERE n.id = r.id AND n.state = 'active'
""")

# Locked in the order in which whoever takes pushes up locks them.
_DROP_PUSH = text("""
UPDATE deliveries d SET wake_at = NULL, finished_at = knocktwice_now(),
  state = CASE WHEN d.notification_id = ANY(CAST(:cancelled AS uuid[])) THEN 'cancelled' ELSE 'skipped' END,
  reason = CASE WHEN d.notification_id = ANY(CAST(:cancelled AS uuid[])) THEN 'cancelled' ELSE 'superseded' END
FROM (
  SELECT notification_id FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step = 0 AND state = 'scheduled'
  ORDER BY notification_id FOR UPDATE
) waiting
WHERE d.notification_id = waiting.notification_id AND d.step = 0
""")

#: Made once: ``json.dumps`` makes an encoder for each call that has options.
_encode = json.JSONEncoder(default=str).encode

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
                "inputs": [_encode(dict(d.inputs)) for d in decisions],
            },
        )


def finish(conn: Connection, ends: Sequence[tuple[str, NotificationState, str]]) -> None:
    """End notifications. A push still waiting to be tried again has nothing to add any more."""
    if not ends:
        return
    ids, states, reasons = (list(column) for column in zip(*ends, strict=True))
    conn.execute(_FINISH, {"ids": ids, "states": [str(s) for s in states], "reasons": reasons})
    cancelled = [i for i, state in zip(ids, states, strict=True) if state is NotificationState.CANCELLED]
    conn.execute(_DROP_PUSH, {"ids": ids, "cancelled": cancelled})
