"""The day's budget is told before it is used up, and each share once a day."""

from __future__ import annotations

import itertools
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import Task
from knocktwice_worker.config import Settings
from knocktwice_worker.runtime import budget_alarms
from knocktwice_worker.services import Services
from knocktwice_worker.switches import overrides
from knocktwice_worker.switches.audit import By

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def build(working: Services) -> Iterator[Callable[..., Services]]:
    """Services with other settings, on the same servers."""
    with ExitStack() as stack:

        def build(**changes: object) -> Services:
            settings = Settings(**working.settings.model_dump(exclude_unset=True) | changes)
            return stack.enter_context(closing(Services(settings)))

        yield build


def told(here: Services) -> list[dict[str, Any]]:
    """Look at the budget twice, as two workers do, and return the alarms so far."""
    budget_alarms.look(here)
    budget_alarms.look(here)
    with here.engine.connect() as conn:
        query = "SELECT data FROM alarms WHERE type = 'budget.used' ORDER BY at, data ->> 'budget'"
        return list(conn.execute(sa.text(query)).scalars())


_numbers = itertools.count()


def text(here: Services, count: int, category: str = "transactional", body: str = "The shop opens.") -> None:
    """Send SMS, of one part unless said otherwise, in one batch."""
    people = [{"id": str(uuid7()), "phone": f"+1650253{next(_numbers):04}"} for _ in range(count)]
    wire = {"v": 1, "id": str(uuid7()), "category": category, "content": {"push": {"title": "t", "body": "b"}}}
    wire |= {"plan": [{"channel": "sms", "when": "not_clicked", "after_s": 0, "text": body}], "recipients": people}
    here.accepted[Task.SEND_PUSH]([wire])
    here.later_steps.send(here.fallback.check([str(person["id"]) for person in people]))


def shares(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(one["budget"], one["percent"]) for one in found]


def test_each_share_is_told_once(build: Callable[..., Services]) -> None:
    here = build(sms_budget=10)
    text(here, 4)
    assert told(here) == []
    text(here, 1)
    assert shares(told(here)) == [("all", 50)]
    text(here, 4)
    text(here, 1)
    found = told(here)
    assert shares(found) == [("all", 50), ("all", 100)]
    assert found[-1] | {"day": ""} == {
        "day": "",
        "budget": "all",
        "percent": 100,
        "used": 10,
        "limit": 10,
        "reserve": 0,
    }


def test_a_category_has_alarms_of_its_own_and_the_reserve_does_not_count_for_all(
    build: Callable[..., Services],
) -> None:
    here = build(sms_budget=20, sms_budget_reserve=10, sms_budget_marketing=8, quiet_hours="")
    text(here, 7, "marketing")
    assert shares(told(here)) == [("all", 50), ("marketing", 80)]
    text(here, 3)
    assert shares(told(here))[-1] == ("all", 100)


def test_who_is_refused_although_a_little_is_left_is_told(build: Callable[..., Services]) -> None:
    here = build(sms_budget=10)
    text(here, 9)
    assert shares(told(here)) == [("all", 80)]
    text(here, 1, body="x" * 200)
    assert shares(told(here)) == [("all", 80), ("all", 100)]


def test_a_raised_budget_is_told_anew(build: Callable[..., Services]) -> None:
    here = build(sms_budget=4)
    text(here, 4)
    assert shares(told(here)) == [("all", 100)]
    with here.engine.begin() as conn:
        overrides.change(conn, here.settings, "sms_budget", "8", By("ada", "the campaign may cost more"))
    assert shares(told(here)) == [("all", 100), ("all", 50)]
    raised = build(sms_budget=8)
    text(raised, 4)
    found = told(raised)
    assert shares(found) == [("all", 100), ("all", 50), ("all", 100)]
    assert [one["limit"] for one in found] == [4, 8, 8]


def test_without_a_budget_nothing_is_told(build: Callable[..., Services]) -> None:
    here = build()
    text(here, 5)
    assert told(here) == []
