"""A backlog fills neither broker nor workers, and callers are told the truth; the judge sees when it is otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from oracle.overload import pile_up, problems
from oracle.records_of_load import Backlog
from oracle.violations import Violation

if TYPE_CHECKING:
    from pathlib import Path

IDS = [uuid4() for _ in range(4)]
FINE = Backlog(
    limit=4,
    accepted=frozenset(IDS),
    refused=2,
    stopped=frozenset(IDS[:1]),
    broker=10_000_000,
    worker=1_000_000,
    rows={IDS[0]: "cancelled", **dict.fromkeys(IDS[1:], "pushed")},
    left=0,
    seconds=1,
)
WRONG: dict[str, Backlog] = {
    "have no row": replace(FINE, rows={IDS[0]: "cancelled"}),
    "told that they were refused": replace(FINE, rows={**FINE.rows, UUID(int=1): "pushed"}),
    "may wait": replace(FINE, limit=3),
    "their cancellation was accepted": replace(FINE, rows=dict.fromkeys(IDS, "pushed")),
    "the broker grew": replace(FINE, broker=30_000_000),
    "a worker grew": replace(FINE, worker=200_000_000),
    "remain in the inbox": replace(FINE, left=1),
}


@pytest.mark.parametrize(("problem", "backlog"), WRONG.items(), ids=WRONG)
def test_the_judge_sees_what_may_not_be(problem: str, backlog: Backlog) -> None:
    assert problems(FINE) == []
    (found,) = problems(backlog)
    assert found.violation is Violation.OVERLOAD
    assert problem in found.story


def test_a_backlog_beyond_its_limit_is_refused_by_name_and_the_rest_is_worked_off(tmp_path: Path) -> None:
    found = pile_up(tmp_path, messages=3_000, limit=2_000)
    assert problems(found) == []
    assert (len(found.accepted), found.refused, len(found.stopped)) == (2_000, 1_000, 10)
