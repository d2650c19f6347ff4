"""The forecast counts what waits by the delay curve of its template, and says what it cannot judge."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_shared.names import Task
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.reporting import rollups
from knocktwice_worker.services import Services
from knocktwice_worker.switches import pauses
from knocktwice_worker.switches.audit import By

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.clock import Clock
    from support.commands import CommandOutput

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
TEMPLATE = {
    "default_locale": "en",
    "fallback": {"when": "not_clicked", "after": "10m"},
    "contents": {"en": {"push": {"title": "Tea", "body": "It is ready."}}},
}


@pytest.fixture
def here(working: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """An installation without a daily limit, with a template and a price for each part."""
    monkeypatch.setenv("KNOCKTWICE_SMS_PRICES", '{"*": 0.01}')
    built = Services(working.settings.model_copy(update={"sms_per_day": 0, "sms_prices": {"*": 0.01}}))
    with built.engine.begin() as conn:
        template_store.put(conn, "tea", templates.check("tea", TEMPLATE))
    yield built
    built.close()


def push(here: Services, count: int, **content: Any) -> list[str]:
    people = [{"id": str(uuid7()), "registrations": [f"silent-{n}"], "phone": f"+1650253{n:04}"} for n in range(count)]
    wire = {"v": 1, "id": str(uuid7()), "content": content or {"template": "tea"}, "recipients": people}
    if content:
        wire["plan"] = [{"channel": "sms", "when": "not_clicked", "after_s": 600}]
    here.accepted[Task.SEND_PUSH]([wire])
    return [str(person["id"]) for person in people]


def click(here: Services, ids: list[str]) -> None:
    receipts.record(here.engine, [ReceiptEvent(UUID(i), Receipt.CLICKED, datetime.now(UTC), "phone") for i in ids])


def history(here: Services, clock: Clock) -> None:
    """Of 300 pushes a third is clicked within five minutes, another third before ten, and the rest is texted."""
    ids = push(here, 300)
    clock.advance(4 * MINUTE)
    click(here, ids[:100])
    clock.advance(4 * MINUTE)
    click(here, ids[100:200])
    clock.advance(3 * MINUTE)
    here.later_steps.send(here.fallback.check(ids))
    clock.advance(3 * HOUR)
    rollups.refresh(here.engine, here.settings.sms_day_zone)


def test_what_waits_counts_by_the_curve_of_those_unanswered_so_far(
    here: Services, clock: Clock, run: Callable[..., CommandOutput]
) -> None:
    history(here, clock)
    push(here, 90)
    found = run("forecast", "--json").json
    assert found["steps"] == 90
    assert found["without_history"] == 0
    assert found["sms"]["expected"] == pytest.approx(30, abs=1)
    assert found["sms"]["low"] < 30 < found["sms"]["high"] < 60
    assert found["parts"]["expected"] == found["sms"]["expected"]
    assert float(found["cost"]["expected"]) == pytest.approx(0.01 * found["sms"]["expected"], rel=0.01)
    clock.advance(5 * MINUTE)
    # Who has not clicked after five minutes is one of two thirds, of which one third never does.
    assert run("forecast", "--json").json["sms"]["expected"] == pytest.approx(45, abs=1)
    assert run("forecast", "--within", "1m", "--json").json["steps"] == 0
    assert "90 SMS wait" in run("forecast").out


def test_what_has_no_history_is_none_at_least_and_all_at_most(
    here: Services, run: Callable[..., CommandOutput]
) -> None:
    push(here, 8, push={"title": "t", "body": "b"})
    found = run("forecast", "--json").json
    assert (found["steps"], found["without_history"]) == (8, 8)
    assert found["sms"] == {"expected": 4, "low": 0, "high": 8}
    assert found["cost"] == {"expected": None, "low": None, "high": None}


def test_what_is_paused_is_not_expected(here: Services, clock: Clock, run: Callable[..., CommandOutput]) -> None:
    ids = push(here, 5, push={"title": "t", "body": "b"})
    clock.advance(11 * MINUTE)
    with here.engine.begin() as conn:
        pauses.pause(conn, pauses.named("sms"), By("ada", "the campaign is wrong"))
    # Another worker, which has not looked for pauses a moment ago.
    with closing(Services(here.settings)) as worker:
        worker.fallback.check(ids)
    assert run("forecast", "--within", "7d", "--json").json["steps"] == 0


def test_a_wrong_span_is_refused_by_name(run: Callable[..., CommandOutput]) -> None:
    assert "within" in run("forecast", "--within", "8d").err
