"""Many small messages become one batch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from knocktwice_worker.runtime.pile import Pile
from support.system import eventually


class Desk:
    """Work that waits for a sign, so that others pile up behind it. A number weighs what it says."""

    def __init__(self, *, threads: int = 1, most: int = 500, rest_s: float = 0.01, patient: bool = False) -> None:
        self.pool = ThreadPoolExecutor(40)
        self.groups: list[list[int]] = []
        self.go_on = threading.Event()
        self.pile = Pile(self._work, abs, self.pool.submit, threads=threads, most=most, rest_s=rest_s, patient=patient)

    def _work(self, numbers: list[int]) -> None:
        self.groups.append(numbers)
        assert self.go_on.wait(30)

    def bring(self, *numbers: int) -> list[list[int]]:
        """Let the first one start, the others pile up, then all go; return the groups."""
        self.pile.add(numbers[0])
        eventually(lambda: self.groups)
        for number in numbers[1:]:
            self.pile.add(number)
        self.go_on.set()
        eventually(lambda: sum(map(len, self.groups)) == len(numbers))
        return self.groups


def test_what_comes_while_another_is_worked_on_goes_together_and_in_order() -> None:
    assert Desk().bring(1, *range(1, 31)) == [[1], list(range(1, 31))]


def test_no_group_is_heavier_than_it_may_be() -> None:
    assert Desk(most=4).bring(1, 1, 2, 1, 1, 3, 1, 1) == [[1], [1, 2, 1], [1, 3], [1, 1]]


def test_what_is_too_heavy_for_any_group_goes_alone() -> None:
    assert Desk(most=4).bring(1, 1, 9, 1) == [[1], [1], [9], [1]]


def test_as_many_are_worked_on_at_once_as_there_are_turns() -> None:
    desk = Desk(threads=2)
    for _ in range(5):
        desk.pile.add(1)
    eventually(lambda: len(desk.groups) == 2)
    desk.go_on.set()
    eventually(lambda: sum(map(len, desk.groups)) == 5)
    assert len(desk.groups) <= 4


def test_a_turn_gives_the_next_group_a_moment_to_become_a_whole_one() -> None:
    desk = Desk(most=3, rest_s=60)
    desk.pile.add(1)
    eventually(lambda: desk.groups)
    desk.pile.add(1)
    desk.go_on.set()
    eventually(lambda: desk.pile._lock._waiters)  # type: ignore[attr-defined]
    assert desk.groups == [[1]]
    desk.pile.add(2)
    eventually(lambda: desk.groups == [[1], [1, 2]], within=30)


def test_the_moment_passes_though_the_group_is_still_small() -> None:
    assert Desk(most=3, rest_s=0.01).bring(1, 1) == [[1], [1]]


def test_what_is_patient_waits_for_company_with_one_turn() -> None:
    desk = Desk(threads=2, most=3, rest_s=60, patient=True)
    desk.go_on.set()
    desk.pile.add(1)
    eventually(lambda: desk.pile._lock._waiters)  # type: ignore[attr-defined]
    desk.pile.add(1)
    assert desk.groups == []
    assert desk.pile._free == 1
    desk.pile.add(1)
    eventually(lambda: desk.groups == [[1, 1, 1]], within=30)


def test_what_is_patient_goes_alone_when_nothing_else_comes() -> None:
    desk = Desk(patient=True)
    desk.go_on.set()
    for so_far in range(1, 3):
        desk.pile.add(so_far)
        eventually(lambda n=so_far: desk.groups == [[i] for i in range(1, n + 1)])  # type: ignore[misc]
        eventually(lambda: desk.pile._free == 1)


def test_turns_are_given_back() -> None:
    desk = Desk()
    desk.go_on.set()
    for so_far in range(1, 4):
        desk.pile.add(1)
        eventually(lambda n=so_far: sum(map(len, desk.groups)) == n)  # type: ignore[misc]
        eventually(lambda: desk.pile._free == 1)


def test_work_that_fails_keeps_neither_the_turn_nor_what_comes_behind_it() -> None:
    done: list[list[int]] = []

    def work(numbers: list[int]) -> None:
        if 13 in numbers:
            raise ValueError
        done.append(numbers)

    pile = Pile(work, abs, lambda turn: turn(), threads=1)
    for number in (13, 7):
        pile.add(number)
    assert done == [[7]]


def test_a_pool_that_takes_nothing_more_does_not_keep_the_turn() -> None:
    desk = Desk()
    desk.pool.shutdown()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            desk.pile.add(1)
