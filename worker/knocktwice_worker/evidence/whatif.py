"""``knocktwice whatif``: the steps of the last days once more, by :func:`lifecycle.decide`, under other rules.

Under the rules as they were each decision must come out as the ledger has it. Under others a step is looked at when it
would have been due, with the receipts that were known then. What limits would have said about messages that were not
due in truth is not known; they count as sent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from knocktwice_shared.messages import When
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.config import UnconfirmedPolicy
from knocktwice_worker.database.test_rows import is_test
from knocktwice_worker.lifecycle import (
    FALL_BACK,
    FOLLOW_UPS,
    LOST,
    NOT_NEEDED,
    DeliveryState,
    Facts,
    Refusal,
    Verdict,
    decide,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

#: Words of the ledger that :func:`decide`, or the rules after it, have given.
_DECIDED = [*map(str, Verdict), *map(str, Refusal)]
#: The inputs beside which a word was given when the step was due; a receipt that ends a step early has only ``events``.
_DUE = "due_at"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that differ. ``None``: as it was.

    Attributes:
        after: how long the step behind the push waits.
        when: what it waits for.
        unconfirmed: what not_delivered means for devices that never report.
    """

    after: timedelta | None = None
    when: When | None = None
    unconfirmed: UnconfirmedPolicy | None = None


@dataclass(slots=True)
class Comparison:
    """Decisions as they were and as they would have been.

    Attributes:
        decisions: those that were looked at.
        differing: those that come out differently although the rules are the same: notification, step, as recorded, as
            decided again.
        recorded, otherwise: verdict → how many.
    """

    decisions: int = 0
    differing: list[tuple[str, int, str, str]] = field(default_factory=list)
    recorded: Counter[str] = field(default_factory=Counter)
    otherwise: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "decisions": self.decisions,
            "difference": len(self.differing),
            "differing": [dict(zip(("id", "step", "recorded", "again"), one, strict=True)) for one in self.differing],
            "recorded": dict(self.recorded),
            "otherwise": dict(self.otherwise),
            "messages": {"recorded": messages(self.recorded), "otherwise": messages(self.otherwise)},
        }


def messages(verdicts: Counter[str]) -> int:
    """Return how many messages some verdicts let go."""
    return sum(count for verdict, count in verdicts.items() if verdict in FALL_BACK)


# Of each step the last word that was given when it was due, or that ended it early. The countdown of a step behind the
# push begins when the push is handed over; due_at counts from its last claim (see notifications/store/due.py).
_DECISIONS = text(f"""
SELECT DISTINCT ON (l.notification_id, l.step)
  l.notification_id,
  l.step,
  l.verdict,
  l.inputs,
  l.at,
  d.trigger,
  d.after_step,
  d.due_at + greatest(p.finished_at - p.claimed_at, interval '0') AS due_at,
  extract(epoch FROM d.due_at - p.claimed_at) AS after_s,
  d.channel = 'push' OR coalesce(n.phone, f.number) IS NOT NULL AS can_get
FROM decisions l
JOIN deliveries d ON d.notification_id = l.notification_id AND d.step = l.step
JOIN notifications n ON n.id = l.notification_id AND NOT {is_test("n.project")}
LEFT JOIN phones f ON f.user_id = n.user_id
LEFT JOIN deliveries p ON p.notification_id = l.notification_id AND p.step = 0
WHERE l.at > knocktwice_now() - :since
  AND l.step > 0
  AND l.verdict = ANY(:words)
  AND (l.inputs ? 'due_at' OR l.verdict IN ('reached_in_time', 'cancelled'))
ORDER BY l.notification_id, l.step, l.id DESC
""")

_EVENTS = text("""
SELECT
  e.notification_id,
  e.kind,
  min(e.received_at) AS at
FROM events e
WHERE e.notification_id = ANY(CAST(:ids AS uuid[])) AND e.step = 0
GROUP BY e.notification_id, e.kind
""")

#: Words after which nobody asked whether the person has a number.
NOT_DUE = {*NOT_NEEDED, Verdict.CANCELLED}
#: Decisions whose events are read together.
_PAGE = 1_000


def compare(conn: Connection, since: timedelta, rules: Rules) -> Comparison:
    """Decide again what was decided since a time, by the rules as they were and by others.

    Args:
        conn: a connection of its own, whose transaction is read only.
    """
    found = Comparison()
    conn.execute(text("SET TRANSACTION READ ONLY"))
    rows = conn.execute(_DECISIONS, {"since": since, "words": _DECIDED}, execution_options={"yield_per": _PAGE})
    for page in rows.partitions():
        events = _events(conn, [str(row.notification_id) for row in page])
        for row in page:
            again = _again(row)
            found.decisions += 1
            found.recorded[row.verdict] += 1
            if again != row.verdict:
                found.differing.append((str(row.notification_id), row.step, row.verdict, again))
            found.otherwise[_otherwise(row, rules, events.get(str(row.notification_id), {}))] += 1
    return found


def _events(conn: Connection, ids: list[str]) -> dict[str, dict[str, datetime]]:
    found: dict[str, dict[str, datetime]] = {}
    for row in conn.execute(_EVENTS, {"ids": ids}):
        found.setdefault(str(row.notification_id), {})[row.kind] = row.at
    return found


def _again(row: Row[Any]) -> str:
    """Return what comes out under the rules as they were, with the facts that the ledger has."""
    policy = (row.inputs.get("unconfirmed") or {}).get("policy")
    verdict = _confirmed(decide(_facts(row, row.trigger, set(row.inputs.get("events") or ()))), row, policy)
    return _refused(verdict, row)


def _otherwise(row: Row[Any], rules: Rules, events: dict[str, datetime]) -> str:
    """Return what would have come out under other rules. They concern the step right behind the push."""
    if row.step != 1 or row.after_step != 0 or row.trigger is None or row.trigger in FOLLOW_UPS:
        return str(row.verdict)
    policy = (row.inputs.get("unconfirmed") or {}).get("policy")
    when = When(row.trigger) if rules.when is None else rules.when
    known = set(row.inputs.get("events") or ())
    if rules.after is not None and row.after_s is not None and row.due_at is not None:
        known = _known_then(row, rules.after, events, known)
    verdict = _confirmed(decide(_facts(row, when, known)), row, rules.unconfirmed or policy)
    if verdict in FALL_BACK and row.verdict in NOT_DUE and not row.can_get:
        return str(Refusal.NO_PHONE)
    return _refused(verdict, row)


def _known_then(row: Row[Any], after: timedelta, events: dict[str, datetime], known: set[str]) -> set[str]:
    """Return the kinds of receipts that would have been known with another delay.

    A worker that was late would have been as late. What was known is what the ledger says; the rows only say what came
    later, or earlier than then.
    """
    shift = after - timedelta(seconds=float(row.after_s))
    if row.verdict == Verdict.PUSH_FAILED or row.inputs.get("push") == DeliveryState.FAILED:
        # A push that no device can get is followed at once, whatever the delay.
        return known
    decided_when_due = _DUE in row.inputs
    then = (row.at if decided_when_due else row.due_at) + shift
    if shift == timedelta():
        return known
    return {kind for kind, at in events.items() if at <= then}


def _facts(row: Row[Any], when: str | None, known: set[str]) -> Facts:
    before = next((row.inputs[name] for name in ("push", *CHANNELS, "") if name in row.inputs), None)
    if before is None and _DUE not in row.inputs:
        # A receipt ended the step early: somebody had the push.
        before = DeliveryState.SENT
    return Facts(
        when=None if when is None else When(when),
        before=None if before is None else DeliveryState(before),
        delivered="delivered" in known,
        clicked="clicked" in known,
        read="read" in known,
        seen="seen" in known,
        replied="replied" in known,
        cancelled="cancelled" in known,
        follows_push=row.after_step == 0,
        undelivered=row.inputs.get("reported") in LOST,
    )


def _confirmed(verdict: Verdict, row: Row[Any], policy: str | None) -> Verdict:
    """Apply the policy about devices that never report, as the pipeline does after the decision."""
    never_report = (row.inputs.get("unconfirmed") or {}).get("never_confirm")
    if verdict is not Verdict.NOT_DELIVERED or not never_report or policy is None:
        return verdict
    if policy == UnconfirmedPolicy.ACCEPT:
        return Verdict.ACCEPTED_UNCONFIRMED
    return Verdict.NOT_CLICKED if policy == UnconfirmedPolicy.NOT_CLICKED else verdict


def _refused(verdict: Verdict, row: Row[Any]) -> str:
    """Return the refusal of a message that was due and refused: number, consent, limits and budget are as they were."""
    return str(row.verdict) if verdict in FALL_BACK and row.verdict in set(Refusal) else str(verdict)
