"""Concurrent calls share round trips, and each call keeps its own outcome."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from knocktwice.envelope import Outgoing
from knocktwice.joining import Joining, StillWaiting
from knocktwice_shared.errors import BrokerUnavailable, QueueFull
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import Task
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future


class Office:
    """A joining whose first round trip takes until it is told to end; the calls after it gather meanwhile."""

    def __init__(self) -> None:
        self.joining = Joining()
        self.trips: list[Sequence[Outgoing]] = []
        self.refused: list[str] = []
        self.error: BaseException | None = None
        self._end = threading.Event()
        self._pool = ThreadPoolExecutor(40)

    def send(self, messages: Sequence[Outgoing]) -> Sequence[str]:
        self.trips.append(messages)
        if len(self.trips) == 1:
            assert self._end.wait(30)
            return []
        if self.error is not None:
            raise self.error
        return self.refused

    def call(self, message: Outgoing, timeout: float = 30) -> Future[Sequence[str]]:
        return self._pool.submit(self.joining.accept, [message], self.send, timeout)

    def gather(self, messages: Sequence[Outgoing]) -> list[Future[Sequence[str]]]:
        """Make one call that is under way, and others that wait; then let the first one end."""
        first = self.call(outgoing())
        eventually(lambda: self.trips)
        others = [self.call(message) for message in messages]
        eventually(lambda: len(self.joining._waiting) == len(messages))
        self._end.set()
        assert first.result(30) == []
        return others

    def end(self) -> None:
        self._end.set()


def outgoing(size: int = 10) -> Outgoing:
    return Outgoing(uuid7(), Task.CANCEL, "x" * size, "")


def test_calls_that_come_while_one_is_under_way_go_together() -> None:
    office = Office()
    messages = [outgoing() for _ in range(20)]
    assert [call.result(30) for call in office.gather(messages)] == [[]] * 20
    assert len(office.trips) == 2
    assert {m.id for m in office.trips[1]} == {m.id for m in messages}


def test_what_would_make_a_round_trip_too_large_goes_with_the_next() -> None:
    office = Office()
    for call in office.gather([outgoing(300_000) for _ in range(3)]):
        call.result(30)
    assert [len(trip) for trip in office.trips] == [1, 1, 1, 1]


def test_each_call_learns_which_of_its_own_messages_had_no_room() -> None:
    office = Office()
    messages = [outgoing() for _ in range(4)]
    office.refused = [str(messages[2].id)]
    assert [call.result(30) for call in office.gather(messages)] == [[], [], office.refused, []]


def test_what_fails_fails_for_all_that_went_together_each_with_an_error_of_its_own() -> None:
    office = Office()
    office.error = QueueFull("its memory is full")
    errors = [call.exception(30) for call in office.gather([outgoing() for _ in range(3)])]
    assert {(type(error), str(error)) for error in errors} == {(QueueFull, "its memory is full")}
    assert len({id(error) for error in errors}) == 3


def test_a_signal_in_the_thread_that_sends_ends_that_thread_alone() -> None:
    office = Office()
    office.error = KeyboardInterrupt()
    errors = [call.exception(30) for call in office.gather([outgoing() for _ in range(3)])]
    assert sorted(type(error).__name__ for error in errors) == [
        "BrokerUnavailable",
        "BrokerUnavailable",
        "KeyboardInterrupt",
    ]


def test_a_call_that_waited_too_long_sends_nothing() -> None:
    office = Office()
    first = office.call(outgoing())
    eventually(lambda: office.trips)
    with pytest.raises(StillWaiting):
        office.call(outgoing(), timeout=0.01).result(30)
    office.end()
    first.result(30)
    last = outgoing()
    office.call(last).result(30)
    assert office.trips[1:] == [[last]]


def test_the_next_call_goes_after_one_that_failed() -> None:
    joining = Joining()

    def fail(_: Sequence[Outgoing]) -> Sequence[str]:
        raise BrokerUnavailable("away")

    with pytest.raises(BrokerUnavailable):
        joining.accept([outgoing()], fail, 1)
    assert joining.accept([outgoing()], lambda _: [], 1) == []
