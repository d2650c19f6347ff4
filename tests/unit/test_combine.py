"""Many small batches become one, and each thread gets its own result."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.combine import Combiner, at_most
from knocktwice_worker.config import Settings
from knocktwice_worker.services import Services
from system import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Services(Settings(secret="test"))


class Desk:
    """Work that waits for a sign the first time, so that others pile up behind it."""

    def __init__(self, *, turns: int = 1, most: int = 500) -> None:
        self.groups: list[list[int]] = []
        self.started, self.go_on = threading.Event(), threading.Event()
        self.combiner: Combiner[Services, int] = Combiner(self._work, turns=turns, most=most)

    def _work(self, _: Services, items: Sequence[int]) -> None:
        self.groups.append(list(items))
        self.started.set()
        assert self.go_on.wait(30)
        if 13 in items:
            raise ValueError("13")

    def bring(self, pool: ThreadPoolExecutor, numbers: Sequence[int]) -> list[object]:
        """Let the first one start, the others pile up, then all go; return what each thread got."""
        futures = [pool.submit(self.combiner.run, HERE, numbers[0], size=1)]
        assert self.started.wait(30)
        futures += [pool.submit(self.combiner.run, HERE, n, size=1) for n in numbers[1:]]
        eventually(lambda: len(self.combiner._pile) == len(numbers) - 1)
        self.go_on.set()
        return [future.exception(timeout=30) for future in futures]


@pytest.fixture
def pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(40)


def test_what_comes_while_another_is_worked_on_goes_together(pool: ThreadPoolExecutor) -> None:
    desk = Desk()
    assert desk.bring(pool, range(20, 50)) == [None] * 30
    assert [sorted(group) for group in desk.groups] == [[20], list(range(21, 50))]


def test_no_group_is_larger_than_it_may_be_and_nothing_stays_behind(pool: ThreadPoolExecutor) -> None:
    desk = Desk(most=4)
    assert desk.bring(pool, range(20, 50)) == [None] * 30
    assert max(len(group) for group in desk.groups) == 4
    assert sorted(n for group in desk.groups for n in group) == list(range(20, 50))


def test_one_that_fails_does_not_take_the_others_along(pool: ThreadPoolExecutor) -> None:
    desk = Desk()
    errors = desk.bring(pool, range(10, 20))
    assert [str(error) if error else None for error in errors] == [*[None] * 3, "13", *[None] * 6]


def test_only_so_many_are_let_in_at_once(pool: ThreadPoolExecutor) -> None:
    inside, most, lock, both = 0, 0, threading.Lock(), threading.Barrier(2)

    @at_most(2)
    def enter() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        both.wait(30)
        with lock:
            inside -= 1

    for future in [pool.submit(enter) for _ in range(20)]:
        future.result(timeout=30)
    assert most == 2
