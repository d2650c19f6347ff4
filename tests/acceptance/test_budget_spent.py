"""A day with a budget, through a worker: marketing ends first, then all but critical, and tomorrow is another day."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice import Category, Recipient, Sms
from support.system import verdicts

if TYPE_CHECKING:
    from support.clock import Clock
    from support.system import System

#: Midday in California, where the numbers are.
NOON = datetime(2027, 1, 15, 20, tzinfo=UTC)
_numbers = (f"+16505556{n:03}" for n in itertools.count())


@pytest.fixture(scope="module")
def system(installation: System) -> System:
    installation.settings |= {
        "KNOCKTWICE_SMS_BUDGET": "10",
        "KNOCKTWICE_SMS_BUDGET_RESERVE": "2",
        "KNOCKTWICE_SMS_BUDGET_MARKETING": "4",
    }
    installation.start_worker()
    return installation


def _ends(system: System, category: Category, text: str, count: int) -> list[str]:
    """Text so many people, and return how that ended, sorted."""
    people = [Recipient(phone=next(_numbers)) for _ in range(count)]
    ids = system.client.notify_many(people, sms=Sms(text), category=category)
    told = [system.ended(id_) for id_ in ids]
    assert sum(len(system.sandbox.texts(p.phone)) for p in people) == sum(t.state == "texted" for t in told)
    assert all("budget_exhausted" in verdicts(t) for t in told if t.state == "suppressed")
    return sorted(t.reason if t.state == "suppressed" else t.state for t in told if t.reason)


def test_a_day_with_a_budget(system: System, clock: Clock) -> None:
    clock.set(NOON)
    long = "x" * 161
    spent, went = "budget_exhausted", "texted"
    assert _ends(system, Category.MARKETING, long, 3) == [spent, went, went]
    assert _ends(system, Category.TRANSACTIONAL, "short", 6) == [spent] * 2 + [went] * 4
    assert _ends(system, Category.CRITICAL, "short", 3) == [spent, went, went]
    # A Redis that has forgotten the day is told.
    system.redis.flushdb()
    assert _ends(system, Category.CRITICAL, "again", 1) == [spent]
    clock.set(NOON + timedelta(days=1))
    assert _ends(system, Category.MARKETING, "morning", 5) == [spent] + [went] * 4


def test_the_ledger_keeps_what_was_spent(system: System) -> None:
    query = "SELECT count(*) FROM decisions WHERE verdict = 'budget_exhausted' AND inputs @> CAST(:inputs AS jsonb)"
    marketing = '{"parts": 2, "spent_today": {"total": 4, "marketing": 4}, "budget": {"total": 10, "reserve": 2, "marketing": 4}}'
    assert system.count(query, inputs=marketing) == 1
