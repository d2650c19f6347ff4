"""Our own waiting is nobody's fault: a slow hand-over, a provider's limit or a stopped worker texts nobody."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, PhoneBound, Receipt, ReceiptEvent, parse_batch
from knocktwice_shared.names import Task
from knocktwice_worker.audience import people
from knocktwice_worker.channels.fcm.answers import LONGEST_PAUSE
from knocktwice_worker.diagnosis import providers
from knocktwice_worker.diagnosis.check import Level
from knocktwice_worker.notifications.pipeline import cancellation, receipts
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.sandbox.rules import Answer, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.channels.http import Carrier, NoResponse, Request, Response
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

AT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBER = "+16505550100"


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def number(n: int) -> str:
    return f"+1650555{n:04}"


def send(here: Services, count: int = 1, *, after: float, when: str = "not_clicked", devices: int = 1) -> list[str]:
    """Notify people with as many devices each."""
    who = [
        {"id": str(uuid7()), "registrations": [f"silent-{n}-{d}" for d in range(devices)], "phone": number(n)}
        for n in range(count)
    ]
    plan = [{"channel": "sms", "when": when, "after_s": after}]
    content = {"push": {"title": "t", "body": "b"}}
    here.pushes.send(parse_batch({"v": 1, "id": str(uuid7()), "content": content, "plan": plan, "recipients": who}))
    return [str(person["id"]) for person in who]


def work(here: Services) -> None:
    """Do what is due until nothing is."""

    def perform(task: Task, ids: Sequence[str]) -> None:
        if task is Task.RESUME_PUSH:
            here.pushes.resume(ids)
        elif task is Task.CHECK_FALLBACK:
            here.later_steps.send(here.fallback.check(ids))

    while dispatch(here, perform):
        pass


def push(here: Services, id_: str) -> tuple[str, str | None]:
    with here.engine.connect() as conn:
        query = sa.text("SELECT state, reason FROM deliveries WHERE notification_id = :id AND step = 0")
        row = conn.execute(query, {"id": id_}).one()
    return row.state, row.reason


@dataclass
class Meanwhile:
    """A carrier while whose requests are under way something happens."""

    carrier: Carrier
    happens: Callable[[], None]

    def send(self, requests: Sequence[Request], not_after: Deadline | None = None, /) -> list[Response | NoResponse]:
        answers = self.carrier.send(requests, not_after)
        self.happens()
        return answers


def test_nobody_is_texted_sooner_than_the_delay_after_a_slow_hand_over(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    transport = Meanwhile(working.transport, lambda: clock.advance(seconds(7.6)))
    delivery = replace(working.pushes.delivery, transport=transport)
    working.__dict__["pushes"] = replace(working.pushes, delivery=delivery)
    send(working, 500, after=8)
    assert len(sandbox.pushes()) == 500
    # 9.6 s after the rows were written.
    clock.advance(seconds(2))
    work(working)
    assert sandbox.texts() == []
    clock.advance(seconds(6.5))
    work(working)
    assert len({text.to for text in sandbox.texts()}) == 500


@pytest.mark.parametrize("when", ["not_delivered", "not_clicked"])
def test_a_push_that_fcm_asks_to_delay_delays_its_fallback(
    working: Services, sandbox: Sandbox, clock: Clock, when: str
) -> None:
    sandbox.rule(Rule("push", times=1, answer=Answer(error_code="QUOTA_EXCEEDED", retry_after=12)))
    send(working, after=5, when=when)
    for _ in range(2):
        clock.advance(seconds(5.5))
        work(working)
        assert (sandbox.pushes(), sandbox.texts()) == ([], [])
    clock.advance(seconds(4))
    work(working)
    assert len(sandbox.pushes()) == 1
    clock.advance(seconds(3.5))
    work(working)
    assert sandbox.texts() == []
    clock.advance(seconds(2.5))
    work(working)
    assert [text.to for text in sandbox.texts()] == [number(0)]


def test_a_click_on_a_push_that_came_late_prevents_the_sms(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.rule(Rule("push", times=1, answer=Answer(error_code="QUOTA_EXCEEDED", retry_after=12)))
    (id_,) = send(working, after=5)
    clock.advance(seconds(15))
    work(working)
    assert len(sandbox.pushes()) == 1
    receipts.record(working.engine, [ReceiptEvent(UUID(id_), Receipt.CLICKED, AT, "silent-0-0")])
    clock.advance(seconds(60))
    work(working)
    assert sandbox.texts() == []


def test_the_limit_of_one_device_delays_no_other(working: Services, sandbox: Sandbox) -> None:
    refused = Answer(error_code="QUOTA_EXCEEDED", retry_after=3600)
    sandbox.rule(Rule("push", match="silent-0-0", answer=refused))
    send(working, 2, after=60)
    send(working, 3, after=60)
    assert sorted(p.registration for p in sandbox.pushes()) == ["silent-1-0", "silent-1-0", "silent-2-0"]
    assert providers.push(working)[0] is Level.OK


def test_a_device_that_waits_delays_the_fallback_of_nobody_whose_other_device_has_the_push(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.rule(Rule("push", match="silent-0-1", answer=Answer(error_code="QUOTA_EXCEEDED", retry_after=600)))
    (id_,) = send(working, after=60, devices=2)
    clock.advance(seconds(59))
    work(working)
    assert len(sandbox.pushes()) == 1, "nobody asked the second device again"
    clock.advance(seconds(3))
    work(working)
    assert len(sandbox.texts()) == 1
    clock.advance(seconds(3600))
    work(working)
    assert len(sandbox.pushes()) == 1, "the SMS went out, so no device gets the push any more"
    assert push(working, id_) == ("skipped", "superseded")


def test_the_projects_limit_pauses_all_pushes_for_a_minute_at_most_and_the_doctor_says_so(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    limited = Answer(error_code="QUOTA_EXCEEDED", retry_after=3600, of_project=True)
    sandbox.rule(Rule("push", times=1, answer=limited))
    send(working, after=600)
    send(working, after=600)
    assert sandbox.pushes() == []
    level, finding = providers.push(working)
    assert level is Level.WARNING
    assert "paused until" in finding
    until = working.push_pace.paused_until()
    assert until
    assert until <= datetime.now(UTC) + LONGEST_PAUSE
    # Redis has a clock of its own.
    working.redis.hset(f"knocktwice:pace:fcm:{working.settings.fcm_project or ''}", "pause", 0)
    clock.advance(seconds(75))
    work(working)
    assert len(sandbox.pushes()) == 2
    assert sandbox.texts() == []


def test_an_answer_that_is_not_fcms_costs_nobody_a_device_and_texts_nobody(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    with working.engine.begin() as conn:
        people.apply(conn, [DeviceRegistered("ada", "silent-ada", AT), PhoneBound("ada", NUMBER, AT)])
    sandbox.rule(Rule("push", times=3, answer=Answer(status=404, foreign=True)))
    plan = [{"channel": "sms", "when": "not_clicked", "after_s": 5}]
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}, "plan": plan}
    working.pushes.send(parse_batch({**wire, "recipients": [{"id": str(uuid7()), "user": "ada"}]}))
    for _ in range(2):
        clock.advance(seconds(16))
        work(working)
        assert (sandbox.pushes(), sandbox.texts()) == ([], [])
    clock.advance(seconds(16))
    work(working)
    assert len(sandbox.pushes("silent-ada")) == 1


def test_a_push_that_never_goes_through_is_followed_by_the_sms_when_its_time_for_retries_is_over(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.rule(Rule("push", answer=Answer(error_code="QUOTA_EXCEEDED", retry_after=1200)))
    (id_,) = send(working, after=5)
    for _ in range(2):
        clock.advance(seconds(1500))
        work(working)
        assert sandbox.texts() == []
    clock.advance(seconds(1500))
    work(working)
    assert len(sandbox.texts()) == 1
    assert push(working, id_) == ("failed", "FCM QUOTA_EXCEEDED")


def test_a_push_that_was_cancelled_between_its_claim_and_the_call_does_not_leave(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.rule(Rule("push", times=2, answer=Answer(error_code="QUOTA_EXCEEDED", retry_after=1)))
    stopped, other = send(working, 2, after=600)
    clock.advance(seconds(2))
    pushes = working.pushes

    @dataclass(frozen=True, kw_only=True)
    class StandsStill(type(pushes)):  # type: ignore[misc]
        """Cancels when the push is claimed and its text filled in."""

        def _wanted(self, messages: Sequence[object]) -> Sequence[object]:
            cancellation.cancel(self.engine, [stopped], [])
            wanted: Sequence[object] = super()._wanted(messages)
            return wanted

    StandsStill(**{name: getattr(pushes, name) for name in pushes.__dataclass_fields__}).resume([stopped, other])
    assert [p.notification_id for p in sandbox.pushes()] == [other]
    state, reason = push(working, stopped)
    assert state in ("skipped", "cancelled")
    assert reason


@pytest.mark.parametrize("first", [True, False], ids=["the first attempt", "a later one"])
def test_a_worker_that_stood_still_past_its_lease_pushes_nothing_more(
    working: Services, sandbox: Sandbox, clock: Clock, first: bool
) -> None:
    stopped = replace(working.pushes, lease=timedelta())
    if first:
        working.__dict__["pushes"] = stopped
        ids = send(working, after=600)
    else:
        sandbox.rule(Rule("push", times=1, answer=Answer(error_code="QUOTA_EXCEEDED", retry_after=1)))
        ids = send(working, after=600)
        clock.advance(seconds(2))
        stopped.resume(ids)
    assert sandbox.pushes() == []
    working.__dict__.pop("pushes")
    work(working)
    assert [p.notification_id for p in sandbox.pushes()] == ids
