"""The state says what happened: late clicks, reports of providers, what is waited for, and people who are gone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.lifecycle import WAITS_TURN, ProviderState
from knocktwice_worker.notifications import store
from knocktwice_worker.reporting import figures, history, rollups, story
from knocktwice_worker.reporting.figures import Dimension
from knocktwice_worker.reporting.waiting import Why
from knocktwice_worker.sandbox import Answer, Rule
from support.scenario import LATER, NOW, installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.embedded.servers import Servers
    from knocktwice_worker.reporting.story import Story
    from support.interleaving import Operation
    from support.one_notification import OneNotification
    from support.scenario import Scenario

WHATSAPP = {"channel": "whatsapp", "content_sid": "HX" + "0" * 32}
ALONE: dict[str, object] = {"content": {"sms": {"text": "Hello"}}, "only": "sms"}
DAY = timedelta(days=1)


@pytest.fixture
def here(servers: Servers, tmp_path: Path) -> Iterator[Scenario]:
    with installed(servers, tmp_path) as scenario:
        yield scenario


def told(case: OneNotification) -> Story:
    with case.scenario.here.engine.connect() as conn:
        found = story.tell(conn, case.id)
    assert found is not None
    return found


def listed(here: Scenario, **wanted: str) -> list[str]:
    with here.here.engine.connect() as conn:
        return [entry.id for entry in history.page(conn, history.Wanted(**wanted)).messages]  # type: ignore[arg-type]


def test_a_click_makes_a_push_without_a_plan_reached(here: Scenario) -> None:
    case = here.accepted()
    assert case.state() == "pushed"
    case.deliver()
    assert case.state() == "pushed"
    case.click()
    case.click()
    assert (case.state(), told(case).reason) == ("reached", "clicked")


def test_a_click_that_comes_before_the_answer_of_the_provider_counts_as_well(here: Scenario) -> None:
    case = here.notification()
    case.click()
    case.accept()
    assert case.state() == "reached"


def test_a_click_after_a_plan_has_ended_makes_it_reached_unless_a_message_went_out(here: Scenario) -> None:
    stopped, texted, cancelled = (here.accepted(plan=NOW) for _ in range(3))
    stopped.stop()
    for case in (stopped, texted):
        case.decide_and_send()
    cancelled.cancel()
    assert [c.state() for c in (stopped, texted, cancelled)] == ["suppressed", "texted", "cancelled"]
    for case in (stopped, texted, cancelled):
        case.click()
    assert [c.state() for c in (stopped, texted, cancelled)] == ["reached", "texted", "cancelled"]


def test_two_who_end_a_notification_and_click_it_at_the_same_moment_leave_it_reached(here: Scenario) -> None:
    with here.meetings() as between:
        for first, second in (("accept", "click"), ("click", "accept")):
            case = here.notification()

            def prepare(first: str = first, second: str = second) -> tuple[Operation, Operation]:
                nonlocal case
                case = here.notification()
                return getattr(case, first), getattr(case, second)

            for meeting in between.every_meeting(prepare):
                assert not meeting.deadlocks
                assert case.state() == "reached", (first, meeting.before)


def test_an_undelivered_sms_is_not_just_texted(here: Scenario) -> None:
    lost, arrived, silent = (here.reserved() for _ in range(3))
    for case in (lost, arrived, silent):
        case.send()
    lost.report(ProviderState.UNDELIVERED)
    arrived.report(ProviderState.DELIVERED)
    assert [told(c).state for c in (lost, arrived, silent)] == ["texted"] * 3
    assert [told(c).provider_status for c in (lost, arrived, silent)] == ["undelivered", "delivered", None]
    assert listed(here, provider_status="undelivered") == [lost.id]
    assert listed(here, provider_status="delivered") == [arrived.id]
    with here.here.engine.connect() as conn:
        (entry,) = history.page(conn, history.Wanted(provider_status="undelivered")).messages
    assert (entry.provider_status, entry.steps[1].provider_status) == ("undelivered", "undelivered")


def rate(here: Scenario) -> float | None:
    here.clock.advance(timedelta(minutes=1))
    rollups.refresh(here.here.engine, "UTC", everything=True)
    today = here.now().date()
    with here.here.engine.connect() as conn:
        report = figures.report(conn, by=Dimension.DAY, since=today - DAY, until=today + DAY)
    assert report.total.accepted == len(here.notifications)
    return report.total.fell_back_rate


def test_messages_that_follow_nothing_have_no_fallback_rate(here: Scenario) -> None:
    for _ in range(3):
        here.notification(**ALONE).accept()  # type: ignore[arg-type]
    here.work()
    assert rate(here) is None


def test_a_first_message_that_arrives_is_no_fallback(here: Scenario) -> None:
    behind = {"channel": "sms", "when": "not_delivered", "after_s": 60, "text": "Hello"}
    cases = [here.notification(content={}, plan=[WHATSAPP, behind]) for _ in range(5)]
    for case in cases:
        case.accept()
        case.decide_and_send()
        case.report(ProviderState.DELIVERED)
    assert rate(here) == 0.0


def test_the_story_of_somebody_who_was_erased_is_told(here: Scenario) -> None:
    texted, waiting, pushed = here.reserved(user=True), here.accepted(user=True, plan=LATER), here.accepted(user=True)
    texted.send()
    for case in (texted, waiting, pushed):
        sentences = [m.sentence for m in told(case).moments]
        case.erase()
        again = told(case)
        assert len(again.moments) >= len(sentences)
        assert case.number not in repr(again)
    assert any("an erased number" in m.sentence for m in told(texted).moments)


def waits(case: OneNotification) -> list[tuple[int, Why]]:
    return [(w.step, w.why) for w in told(case).waits]


def test_an_open_notification_says_what_it_waits_for(here: Scenario) -> None:
    case = here.accepted(plan=LATER)
    ((step, why),) = waits(case)
    (wait,) = told(case).waits
    assert (step, why) == (1, Why.COUNTDOWN)
    assert "unless somebody clicks until then" in wait.sentence
    assert "in 59 min" in wait.sentence or "in 1 h" in wait.sentence
    later = here.notification(plan=LATER, send_at=here.in_hours(3))
    later.accept()
    assert waits(later) == [(0, Why.SEND_AT), (1, Why.COUNTDOWN)]
    reserved = here.reserved()
    assert waits(reserved) == [(1, Why.WORKER)]
    reserved.send()
    assert told(reserved).waits == ()


def test_a_push_that_is_tried_again_says_why_and_when_and_the_sms_waits_for_it(here: Scenario) -> None:
    case = here.notification(plan=LATER)
    here.sandbox.rule(Rule("push", case.registration, 1, Answer(status=503, retry_after=30)))
    case.accept()
    push, sms = told(case).waits
    assert (push.why, sms.why) == (Why.RETRY, Why.PUSH)
    assert "UNAVAILABLE" in push.sentence
    assert push.until is not None
    assert here.now() < push.until < here.now() + timedelta(minutes=1)


def test_an_sms_that_the_provider_asked_to_wait_for_says_why_and_when(here: Scenario) -> None:
    case = here.reserved()
    here.sandbox.rule(Rule("sms", case.number, 1, Answer(status=429, retry_after=20)))
    case.send()
    (wait,) = told(case).waits
    assert wait.why is Why.RETRY
    assert "is tried again by twilio at" in wait.sentence


def test_an_sms_at_night_says_until_when(here: Scenario) -> None:
    case = here.accepted(plan=NOW)
    morning = here.now() + timedelta(hours=7)
    with here.here.engine.begin() as conn:
        store.postpone_until(conn, {case.id: morning})
    (wait,) = told(case).waits
    assert (wait.why, wait.until) == (Why.QUIET_HOURS, morning)
    assert "quiet hours" in wait.sentence


def test_an_sms_without_a_turn_says_so(here: Scenario) -> None:
    case = here.reserved()
    with here.here.engine.begin() as conn:
        store.postpone_each(conn, {case.id: timedelta(minutes=2)}, WAITS_TURN)
    (wait,) = told(case).waits
    assert wait.why is Why.TURN
    assert "waits for its turn" in wait.sentence
    assert "in 2 min" in wait.sentence or "in 1 min" in wait.sentence
