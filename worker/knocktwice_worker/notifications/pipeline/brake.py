"""The brake before a message goes: it holds the message, or only counts it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_shared.records import record
from knocktwice_worker.config import BrakeMode, PumpingMode
from knocktwice_worker.notifications.store import braked

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection

#: A held message rings this long after it is of no use any more, so that it then ends.
_THEN = timedelta(seconds=1)


@record
class Candidate:
    """A message that would go now.

    Attributes:
        notification_id: the notification that it belongs to.
        step: the number of the step.
        single: whether it is neither a blast's nor marketing.
        brake: the brake that covers it; ``None``: none is on.
        braked: the brake that holds it already.
        unseen_until: when its push will be counted; ``None``: it is, or nobody counts.
        until: when it is of no use any more.
        parts: its SMS parts; ``None``: not known.
        pumping: the brake of the pumping guard that covers its number; ``None``: none is on.
    """

    notification_id: str
    step: int
    single: bool
    brake: int | None
    braked: int | None
    unseen_until: datetime | None
    until: datetime
    parts: int | None
    pumping: int | None = None


@dataclass(frozen=True, slots=True)
class Stopped:
    """The brake's answer about some messages.

    Attributes:
        held: to be held.
        unseen: notification id → when to look again, because the pushes of a whole wave were not counted yet.
        passed: notification id → the brake that would have held it.
        turns: notification, step and brake of those whose turn it is where a brake only slows down.
    """

    held: list[braked.Held] = field(default_factory=list)
    unseen: dict[str, datetime] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)
    turns: list[tuple[str, int, int]] = field(default_factory=list)

    @property
    def ids(self) -> set[str]:
        """The notifications whose message does not go now."""
        return {one.notification_id for one in self.held} | set(self.unseen)

    def write(self, conn: Connection) -> None:
        """Write what is held, and what has its turn, to the rows."""
        braked.keep(conn, self.held)
        braked.let_go(conn, self.turns, "it had its turn")

    def note_passed(self, conn: Connection) -> None:
        """Note what would have been held."""
        braked.note_passed(conn, Counter(self.passed.values()))


@dataclass(frozen=True, kw_only=True)
class BrakeGate:
    """The settings of the brake, for those who decide and send.

    Attributes:
        blasts: what happens to messages of blasts and to marketing.
        singles: what happens to all others.
        sample: so many messages that follow pushes of one time are a wave, and wait until their pushes were counted.
        pumping: what happens to single messages to numbers that look like SMS pumping.
        pause: the time from one such message to the next, where they are slowed down.
    """

    blasts: BrakeMode
    singles: BrakeMode
    sample: int
    pumping: PumpingMode
    pause: timedelta

    def stop(self, conn: Connection, candidates: Iterable[Candidate]) -> Stopped:
        """Return which messages do not go now."""
        stopped, unseen = Stopped(), dict[str, "datetime"]()
        slowed: dict[int, list[Candidate]] = defaultdict(list)
        for one in candidates:
            if one.pumping is not None and one.single and self.pumping is not PumpingMode.OFF:
                if self.pumping is PumpingMode.HOLD:
                    stopped.held.append(_held(one, one.pumping))
                    continue
                if self.pumping is PumpingMode.SLOW:
                    slowed[one.pumping].append(one)
                    continue
                stopped.passed[one.notification_id] = one.pumping
            mode = self.singles if one.single else self.blasts
            if mode is BrakeMode.OFF:
                continue
            if one.brake is not None and mode is BrakeMode.WATCH:
                stopped.passed[one.notification_id] = one.brake
            elif one.brake is not None:
                stopped.held.append(_held(one, one.brake))
            elif one.unseen_until is not None and mode is BrakeMode.ON and not one.single:
                unseen[one.notification_id] = one.unseen_until
        if unseen and (len(unseen) >= self.sample or braked.is_wave(conn, self.sample)):
            stopped.unseen.update(unseen)
        for brake, waiting in sorted(slowed.items()):
            self._slow(conn, stopped, brake, waiting)
        return stopped

    def _slow(self, conn: Connection, stopped: Stopped, brake: int, waiting: list[Candidate]) -> None:
        """Let as many go as have their turn, those that wait already first; the others look again when theirs may come."""
        waiting.sort(key=lambda one: one.braked != brake)
        granted, next_at = braked.take_turns(conn, brake, len(waiting), self.pause)
        stopped.turns.extend((one.notification_id, one.step, brake) for one in waiting[:granted])
        for place, one in enumerate(waiting[granted:]):
            held = _held(one, brake)
            stopped.held.append(replace(held, until=min(held.until, next_at + place * self.pause)))


def _held(one: Candidate, brake: int) -> braked.Held:
    return braked.Held(one.notification_id, one.step, brake, one.until + _THEN, one.parts, one.braked == brake)
