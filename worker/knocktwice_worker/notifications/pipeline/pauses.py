"""Pauses: each message is looked up in memory, and the pauses in the database twice a second."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from knocktwice_shared.records import record
from knocktwice_worker.channels.deadline import Deadline
from knocktwice_worker.notation.phone_numbers import country
from knocktwice_worker.notifications.store import paused
from knocktwice_worker.notifications.store.paused import PUSH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from knocktwice_shared.messages import Category
    from knocktwice_worker.notifications.store.paused import Pause

#: Who carries pushes, as a pause names it.
PUSH_PROVIDER = "fcm"
#: How old the known pauses may be when they are asked.
_FRESH = timedelta(seconds=0.5)
#: How old they may be when a message leaves: a pause holds within two seconds.
_HOLDS = timedelta(seconds=1.9)
_OVER = Deadline(float("-inf"))
#: A paused message rings this long after it is of no use any more, so that it then ends.
_THEN = timedelta(seconds=1)


@record
class Candidate:
    """A message that would go now.

    Attributes:
        notification_id: the notification that it belongs to.
        channel: its channel.
        providers: those that could carry it.
        sender: its sender; ``None``: it has none.
        number: the number that it goes to; ``None``: it goes to none.
    """

    notification_id: str
    channel: str
    providers: Collection[str]
    sender: str | None = None
    number: str | None = None


class Pauses:
    """The pauses that are on at one moment.

    Args:
        pauses: all of them.
    """

    def __init__(self, pauses: Sequence[Pause] = ()) -> None:
        self._pauses = pauses

    def __bool__(self) -> bool:
        return bool(self._pauses)

    def stopping(
        self, one: Candidate, category: Category, template: str | None, *, decided: bool = False
    ) -> Pause | None:
        """Return a pause that stops a message; ``None``: it may go.

        A paused provider stops only messages that no other provider can carry.

        Args:
            decided: the message was decided about before, so that a pause that drains lets it go.
        """
        covering = [p for p in self._pauses if not (decided and p.drains) and _covers(p.scope, one, category, template)]
        whole = next((p for p in covering if p.scope.provider is None), None)
        if whole or not covering:
            return whole
        left = set(one.providers) - {p.scope.provider for p in covering}
        return None if left else covering[0]


@dataclass(frozen=True, slots=True)
class Look:
    """The pauses, as one look saw them.

    Attributes:
        pauses: the pauses that were on.
        fresh: until when that need not be asked again.
        holds: until when a message may leave that none of them stops.
    """

    pauses: Pauses
    fresh: Deadline
    holds: Deadline


@dataclass(frozen=True, slots=True)
class _Watched(Deadline):
    """A deadline that lies late, and holds only while a thread looks: it is over if the last look found something or is too old.

    A process that stood still has not looked either, so its message does not leave when it goes on.

    Attributes:
        known: until when the last look counts, as the only item.
    """

    known: list[Deadline] = field(compare=False)

    @property
    def over(self) -> bool:
        return self.known[0].over or Deadline(self.at).over


class PauseGate:
    """Stops messages that operators have paused."""

    def __init__(self) -> None:
        # One object, so that a thread never takes one look's pauses for as fresh as another's.
        self._last = Look(Pauses(), _OVER, _OVER)

    def look(self, conn: Connection) -> Look:
        """Return the pauses that are on. They are read twice a second, not for each message."""
        last = self._last
        if last.fresh.over:
            # The time before the query counts: a worker that stands still during the query looks again.
            fresh, holds = Deadline.within(_FRESH), Deadline.within(_HOLDS)
            last = self._last = Look(Pauses(paused.active(conn)), fresh, holds)
        return last

    def look_with(self, engine: Engine) -> Look:
        """Return the same, with a connection of its own if one is needed."""
        last = self._last
        if not last.fresh.over:
            return last
        with engine.begin() as conn:
            return self.look(conn)

    def stop(
        self,
        conn: Connection,
        candidates: Iterable[Candidate],
        useful: Mapping[Category, timedelta],
        *,
        pushes: bool = False,
        decided: bool = False,
    ) -> set[str]:
        """Let messages wait that are paused, and return their notifications.

        Args:
            candidates: not looked at while nothing is paused.
            useful: how long after it was due a message may still go, by category.
            pushes: they are pushes, not messages of later steps.
            decided: they were decided about before, so that a pause that drains lets them go.
        """
        stopped = [
            paused.Stopped(
                one.notification_id,
                known.step,
                pause,
                known.useful_from + (known.valid_for or useful[known.category]) + _THEN,
                known.paused == pause.id,
            )
            for one, known, pause in _stopping(conn, self.look(conn), candidates, pushes=pushes, decided=decided)
        ]
        paused.wait(conn, stopped)
        return {s.notification_id for s in stopped}

    def stopped_since(
        self, conn: Connection, candidates: Iterable[Candidate], *, pushes: bool = False
    ) -> tuple[set[str], Deadline]:
        """Return which claimed messages were paused since their claim, and until when the others may leave."""
        look = self.look(conn)
        found = _stopping(conn, look, candidates, pushes=pushes, decided=True)
        return {one.notification_id for one, _, _ in found}, look.holds

    @contextmanager
    def watching(
        self,
        engine: Engine,
        candidates: Sequence[Candidate],
        not_after: Deadline,
        known: Deadline,
        said: Callable[[], bool],
    ) -> Iterator[Deadline]:
        """Yield a deadline that lies late, but ends as soon as one of these claimed messages must not go any more.

        A provider to which a connection takes long gets more time than a pause, or a click, may take to hold. Meanwhile a thread looks.

        Args:
            not_after: the latest moment.
            known: until when what is known now counts.
            said: whether anything was said that stops one of the messages.
        """
        done, until = threading.Event(), [known]

        def watch() -> None:
            while not done.wait(_FRESH.total_seconds()):
                # From before the look: what comes after it is not seen.
                holds = Deadline.within(_HOLDS)
                try:
                    look = self.look_with(engine)
                    stopped = said()
                    if look.pauses and not stopped:
                        with engine.begin() as conn:
                            stopped = bool(self.stopped_since(conn, candidates)[0])
                except SQLAlchemyError:
                    # Without the database nobody knows, so none of them may leave.
                    stopped = True
                if stopped:
                    until[0] = _OVER
                    return
                until[0] = min(holds, look.holds)

        threading.Thread(target=watch, name="knocktwice-pause-watch", daemon=True).start()
        try:
            yield _Watched(not_after.at, until)
        finally:
            done.set()

    def avoided(self, conn: Connection, candidates: Iterable[Candidate]) -> Callable[[str, str], bool] | None:
        """Return what says whether a message must not go by a provider; ``None``: nothing is paused.

        Args:
            candidates: their providers do not matter.
        """
        pauses = self.look(conn).pauses
        if not pauses:
            return None
        by_id = {one.notification_id: one for one in candidates}
        known = paused.facts(conn, list(by_id), pushes=False)

        def avoided(id_: str, provider: str) -> bool:
            one, facts = by_id[id_], known.get(id_)
            by_it = Candidate(id_, one.channel, (provider,), one.sender, one.number)
            return facts is not None and bool(pauses.stopping(by_it, facts.category, facts.template, decided=True))

        return avoided


def _stopping(
    conn: Connection, look: Look, candidates: Iterable[Candidate], *, pushes: bool, decided: bool
) -> list[tuple[Candidate, paused.Facts, Pause]]:
    if not look.pauses:
        return []
    listed = list(candidates)
    known = paused.facts(conn, [one.notification_id for one in listed], pushes=pushes)
    found = [(one, known[one.notification_id]) for one in listed if one.notification_id in known]
    return [
        (one, facts, pause)
        for one, facts in found
        # A push that goes nowhere is not stopped: the message behind it must not wait for a pause of pushes.
        if not facts.goes_nowhere
        and (pause := look.pauses.stopping(one, facts.category, facts.template, decided=decided or facts.decided))
    ]


def a_push(notification_id: str) -> Candidate:
    """Return what a pause may cover of a push."""
    return Candidate(notification_id, PUSH, (PUSH_PROVIDER,))


def _covers(scope: paused.Scope, one: Candidate, category: Category, template: str | None) -> bool:
    """Return whether a message is of a pause's kind; with a provider, whether that could carry it."""
    return (
        scope.channel in (None, one.channel)
        and scope.category in (None, category)
        and scope.template in (None, template)
        and scope.sender in (None, one.sender)
        and (scope.provider is None or scope.provider in one.providers)
        and (scope.country is None or (one.number is not None and country(one.number) == scope.country))
    )
