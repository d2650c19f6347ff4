"""Checks side by side: whatever hangs or fails, the others answer."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from knocktwice_worker.diagnosis.in_time import TooLate, in_time

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that nothing in these tests needs, and seconds that a hanging function gets.
LONG_S, SHORT_S = 60.0, 0.05


def test_answers_come_as_they_are_ready_whoever_was_asked_first() -> None:
    second_may = threading.Event()

    def first() -> str:
        second_may.wait()
        return "1"

    answers = in_time({"first": first, "second": lambda: "2"}, LONG_S)
    assert next(answers) == ("second", "2")
    second_may.set()
    assert list(answers) == [("first", "1")]


def test_what_hangs_is_given_up_and_what_fails_answers_with_its_error() -> None:
    never = threading.Event()
    error = ValueError("x")

    def fail() -> bool:
        raise error

    functions: dict[str, Callable[[], bool]] = {"hangs": never.wait, "fails": fail, "works": partial(bool, 1)}
    found = dict(in_time(functions, LONG_S, {"hangs": SHORT_S}))
    assert isinstance(found["hangs"], TooLate)
    assert (found["fails"], found["works"]) == (error, True)
    never.set()


def test_many_that_hang_hang_side_by_side() -> None:
    never = threading.Event()
    found = list(in_time({str(n): never.wait for n in range(50)}, SHORT_S))
    assert len(found) == 50
    assert all(isinstance(answer, TooLate) for _, answer in found)
    # A call that hangs must not keep the process from its end.
    hanging = [thread for thread in threading.enumerate() if thread.name.startswith("check-")]
    assert hanging
    assert all(thread.daemon for thread in hanging)
    never.set()
