"""The pumping guard: every few seconds some worker looks for messages that nobody reads, and puts a brake on them.

What the brake then does with them is the setting's: it counts, slows down or holds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from knocktwice_worker.brake import text_counts, text_ranges
from knocktwice_worker.brake.pumping import Finding, Numbers, Record, Sign, crowded_from, judge, may_be_crowded
from knocktwice_worker.config import PumpingMode
from knocktwice_worker.lifecycle import TextTrouble
from knocktwice_worker.notation.phone_numbers import country
from knocktwice_worker.notifications.store import alarms

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from knocktwice_worker.config import Settings

log = structlog.get_logger(__name__)

#: So many messages of a range are looked at one by one, every few seconds; fewer show how close their numbers are.
_GLANCE = 1_000


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of the guard.

    Attributes:
        mode: what happens to such messages.
        sample: the fewest messages from which it can be told.
        window: the span in which they are counted.
        per_min: how many a minute go while it slows down.
    """

    mode: PumpingMode
    sample: int
    window: timedelta
    per_min: float

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        """Read them from the settings."""
        window = timedelta(seconds=settings.pumping_window_s)
        return cls(settings.pumping, settings.pumping_sample, window, settings.pumping_slow_per_min)

    @property
    def holds(self) -> str:
        """The messages that are held, in words for people."""
        match self.mode:
            case PumpingMode.HOLD:
                return "single messages"
            case PumpingMode.SLOW:
                return f"single messages beyond {self.per_min:g} a minute"
            case _:
                return "nothing"


def refresh(engine: Engine, rules: Rules) -> None:
    """Count what is new and judge it. Any number of workers may call it; one of them does it, once for each slot."""
    if rules.mode is PumpingMode.OFF:
        return
    minute = False
    while True:
        with engine.begin() as conn:
            counted = text_counts.count(conn)
            if counted is None:
                return
            minute = minute or counted.minute
            if counted.all:
                _end(conn, rules)
                _look(conn, rules, minute=minute)
                return


def clean(engine: Engine, rules: Rules) -> None:
    """Merge old counts. Old brakes are forgotten with all others."""
    with engine.begin() as conn:
        text_counts.merge(conn, rules.window)


def _look(conn: Connection, rules: Rules, *, minute: bool) -> None:
    """Judge the ranges of numbers to which many messages went.

    Args:
        minute: how close numbers are is asked of the largest ranges, too. Of them it takes longest, and changes least.
    """
    many = text_ranges.many(conn, rules.window, rules.sample)
    prefixes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for numbers in many:
        prefixes[numbers.template, numbers.project].append(numbers.prefix)
    found = {whose: text_ranges.histories(conn, *whose, some, rules.window) for whose, some in prefixes.items()}
    all_of = {whose: histories[""] for whose, histories in found.items()}
    most = max(_GLANCE, 4 * crowded_from(rules.sample))
    tripped: list[Numbers] = []
    for numbers in many:
        # A wider range that has such a one in it is looked at the next time, without it.
        if any(one.prefix.startswith(numbers.prefix) for one in tripped):
            continue
        whose = numbers.template, numbers.project
        own = found[whose][numbers.prefix]
        others = all_of[whose] - own
        record = Record(own.now, own.before, others.now, others.before)
        if may_be_crowded(record, rules.sample) and (minute or own.now.messages <= most):
            record = replace(record, crowding=text_ranges.crowding_of(conn, numbers, rules.window, most=most))
        if (finding := judge(record, rules.sample)) is not None:
            _trip(conn, numbers, finding, rules)
            tripped.append(numbers)
            all_of[whose] = others


_TRIP = text(f"""
INSERT INTO brakes (
  kind,
  prefix,
  template,
  project,
  counted_from,
  pushes,
  share,
  usual,
  why
)
VALUES (
  '{TextTrouble.PUMPING}',
  :prefix,
  :template,
  :project,
  knocktwice_now() - :window,
  :pushes,
  :share,
  :usual,
  :why
)
RETURNING id
""")


def _trip(conn: Connection, numbers: Numbers, finding: Finding, rules: Rules) -> None:
    facts = {
        "prefix": numbers.prefix,
        "template": numbers.template,
        "project": numbers.project,
        "pushes": finding.messages,
        "share": round(finding.share, 4),
        "usual": round(finding.usual, 4),
        "why": _why(numbers, finding),
    }
    id_ = conn.execute(_TRIP, facts | {"window": rules.window}).scalar_one()
    told = {"kind": TextTrouble.PUMPING.value, "sign": finding.sign.value, "mode": rules.mode.value, **facts}
    alarms.sound(conn, "brake.on", str(id_), {"brake": id_, **told, "holds": rules.holds})
    log.warning("the brake is on", brake=id_, holds=rules.holds, **told)


def _why(numbers: Numbers, finding: Finding) -> str:
    where = country(numbers.prefix.ljust(12, "0"))
    what = f"{numbers}{f' ({where})' if where else ''}"
    match finding.sign:
        case Sign.CROWDED:
            return f"{finding.messages} new numbers side by side got {what}, which looks like SMS pumping"
        case Sign.UNANSWERED:
            fault = "is not answered"
        case Sign.UNDELIVERED:
            fault = "does not arrive"
    share, usual = round(100 * finding.share), round(100 * finding.usual)
    return f"{share} % of {finding.messages} times {what} {fault}, usually {usual} %, which looks like SMS pumping"


_ON = text(f"""
SELECT id, since < knocktwice_now() - :window AS old FROM brakes
WHERE state = 'on' AND kind = '{TextTrouble.PUMPING}'
""")
_OVER = text("UPDATE brakes SET state = 'over', ended_at = knocktwice_now() WHERE id = :id AND state = 'on'")


def _end(conn: Connection, rules: Rules) -> None:
    """Take brakes off that have found little for a whole window.

    What they hold waits for an operator: nobody may read it.
    """
    for row in conn.execute(_ON, {"window": rules.window}).all():
        if row.old and text_ranges.asked_lately(conn, row.id, rules.window) < rules.sample / 2:
            conn.execute(_OVER, {"id": row.id})
            alarms.sound(conn, "brake.over", str(row.id), {"brake": row.id, "released": 0})
            log.warning("the brake is over", brake=row.id, released=0)
