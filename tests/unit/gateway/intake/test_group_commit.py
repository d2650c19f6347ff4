"""What requests bring is written together, and nobody is answered before their part is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.gateway.intake.group_commit import GroupCommit
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_what_comes_soon_after_a_write_waits_for_more() -> None:
    written: list[list[int]] = []

    async def ask() -> None:
        group = GroupCommit[int](lambda items: written.append(list(items)), at_once=100, most_waiting=100, apart_s=0.5)
        await group.add([0])
        assert written == [[0]]
        later = [asyncio.create_task(group.add([n])) for n in (1, 2)]
        # Time for a write to be over, were it begun.
        await asyncio.to_thread(str)
        later.append(asyncio.create_task(group.add([3])))
        await asyncio.gather(*later)
        await group.close()

    asyncio.run(ask())
    assert written == [[0], [1, 2, 3]]


def test_who_waits_for_a_write_that_fails_is_told_and_the_next_is_tried() -> None:
    written: list[int] = []

    def write(items: Sequence[int]) -> None:
        if 1 in items:
            raise OSError("away")
        written.extend(items)

    async def ask() -> None:
        group = GroupCommit[int](write, at_once=1, most_waiting=2)
        first, second = asyncio.create_task(group.add([1])), asyncio.create_task(group.add([2]))
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="slow down"):
            await group.add([3])
        with pytest.raises(OSError, match="away"):
            await first
        await second
        await group.close()

    asyncio.run(ask())
    assert written == [2]
