"""What two workers do at once: every pair that looks and then writes, met at every statement of either.

Left out, because nothing is looked at before it is written: tags, numbers and consent (each one guarded statement), the
inbox and the limits in Redis (one script each), templates and segments (one row each). A withdrawn push may be
withdrawn twice, which nobody sees.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.messages import DeviceRegistered
from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.sandbox import Answer, Rule
from support.interleaving import both_ways
from support.invariants import must_be_whole
from support.one_notification import OneNotification, cancel_all, check_all, click_all, resume_all, send_all
from support.scenario import LATER, NOW, SAID, TWO, Scenario, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_worker.embedded.servers import Servers
    from support.interleaving import Interleaver, Meeting

CLAIM = "state = 'sending'"


@pytest.fixture(scope="module")
def scenario(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """One installation for all: each meeting has a person of its own."""
    with installed(servers, tmp_path_factory.mktemp("home")) as built:
        yield built


@pytest.fixture(scope="module")
def between(scenario: Scenario) -> Iterator[Interleaver]:
    with scenario.meetings() as meetings:
        yield meetings


@pytest.fixture(autouse=True)
def _anew(scenario: Scenario) -> None:
    scenario.begin()


def _later(scenario: Scenario, **fields: Any) -> OneNotification:
    """One whose push has waited for its time, which is now."""
    case = scenario.accepted(send_at=scenario.in_hours(1), **fields)
    scenario.clock.advance(timedelta(hours=1))
    return case


def _retried(scenario: Scenario, **fields: Any) -> OneNotification:
    """One whose push the provider wants to be tried again."""
    case = scenario.notification(**fields)
    scenario.sandbox.rule(Rule("push", match=case.registration, times=1, answer=Answer(status=503)))
    case.accept()
    assert case.steps()[0] == "scheduled"
    return case


def _refused(scenario: Scenario, **fields: Any) -> OneNotification:
    """One whose push the provider will want to be tried again."""
    case = scenario.notification(**fields)
    scenario.sandbox.rule(Rule("push", match=case.registration, times=1, answer=Answer(status=503)))
    return case


def _too_fast(scenario: Scenario) -> OneNotification:
    """One whose SMS the provider will not take yet."""
    case = scenario.reserved()
    scenario.sandbox.rule(Rule("sms", match=case.number, times=1, answer=Answer(status=429)))
    return case


def _lost(scenario: Scenario) -> OneNotification:
    """One whose SMS was taken, and nobody knows."""
    case = scenario.reserved()
    scenario.sandbox.rule(Rule("sms", match=case.number, times=1, answer=Answer(drop=True, accept=True)))
    # The provider's clock shows what the database's does, or its list would date the SMS before the claim.
    scenario.sandbox.set_ahead(scenario.clock.ahead)
    case.send()
    scenario.clock.advance(timedelta(minutes=4))
    assert case.steps()[-1] == "sending"
    return case


def _never_taken(scenario: Scenario) -> OneNotification:
    """One whose SMS the provider never got, and nobody knows."""
    case = scenario.reserved()
    scenario.sandbox.rule(Rule("sms", match=case.number, times=1, answer=Answer(drop=True)))
    case.send()
    scenario.clock.advance(timedelta(minutes=4))
    return case


def _mute(scenario: Scenario, **fields: Any) -> OneNotification:
    """One to somebody whose only device shows nothing."""
    case = scenario.notification(user=True, **fields)
    scenario.know(DeviceRegistered(case.user or "", case.registration, SAID, notifications_enabled=False))
    return case


def _whatsapp(scenario: Scenario) -> OneNotification:
    """One whose WhatsApp message may go, with an SMS behind it."""
    return scenario.reserved(plan=TWO)


def _whatsapp_refused(scenario: Scenario) -> OneNotification:
    case = _whatsapp(scenario)
    scenario.sandbox.rule(Rule("sms", match=f"whatsapp:{case.number}", times=1, answer=Answer(error_code=63016)))
    return case


def _whatsapp_sent(scenario: Scenario) -> OneNotification:
    case = _whatsapp(scenario)
    case.send()
    return case


def _second_due(scenario: Scenario) -> OneNotification:
    case = _whatsapp_sent(scenario)
    scenario.clock.advance(timedelta(hours=1, minutes=1))
    return case


def _sent(scenario: Scenario) -> OneNotification:
    case = scenario.reserved()
    case.send()
    return case


def _opted_out(scenario: Scenario) -> OneNotification:
    case = scenario.accepted(user=True, plan=NOW)
    case.stop()
    case.silent = True
    return case


def _delivered(case: OneNotification) -> None:
    case.report(ProviderState.SENT, ProviderState.DELIVERED)


def _undelivered(case: OneNotification) -> None:
    case.report(ProviderState.UNDELIVERED)


def _failed_for_us(case: OneNotification) -> None:
    """The provider took it, and says later that the sender is not registered."""
    sid, here = case.sid(1), case.scenario.here
    state, at, intent = ProviderState.UNDELIVERED, datetime.now(UTC), (case.id, 1)
    with here.engine.begin() as conn:
        provider_reports.accept(conn, [StatusReport("twilio", sid, state, at, 30034, intent, operators="unregistered")])
    provider_reports.bring_and_take_up(here.engine, {sid}, here.settings.useless_after)


def _read(case: OneNotification) -> None:
    case.report(ProviderState.READ)


def _move(case: OneNotification) -> None:
    """The device is somebody else's now."""
    case.scenario.know(DeviceRegistered(f"{case.user}-heir", case.registration, case.scenario.now()))


def _ring(case: OneNotification) -> None:
    dispatch(case.scenario.here, case.scenario.perform)


PAIRS: dict[
    str,
    tuple[Callable[[Scenario], OneNotification], Callable[[OneNotification], None], Callable[[OneNotification], None]],
] = {
    # the rows come to be
    "accept later & cancel": (
        lambda w: w.notification(send_at=w.in_hours(1)),
        OneNotification.accept,
        OneNotification.cancel,
    ),
    "accept later with a plan & cancel": (
        lambda w: w.notification(send_at=w.in_hours(1), plan=LATER),
        OneNotification.accept,
        OneNotification.cancel,
    ),
    "accept & cancel": (lambda w: w.notification(plan=LATER), OneNotification.accept, OneNotification.cancel),
    "accept to a mute device & cancel": (
        lambda w: _mute(w, plan=LATER),
        OneNotification.accept,
        OneNotification.cancel,
    ),
    "accept an SMS alone & cancel": (
        lambda w: w.notification(content={"sms": {"text": "x"}}, only="sms"),
        OneNotification.accept,
        OneNotification.cancel,
    ),
    "accept, to be tried again & cancel": (_refused, OneNotification.accept, OneNotification.cancel),
    "accept with a plan, to be tried again & cancel": (
        lambda w: _refused(w, plan=LATER),
        OneNotification.accept,
        OneNotification.cancel,
    ),
    "accept & click": (lambda w: w.notification(plan=NOW), OneNotification.accept, OneNotification.click),
    "accept & accept": (lambda w: w.notification(plan=NOW), OneNotification.accept, OneNotification.accept),
    "accept & erase": (lambda w: w.notification(user=True, plan=NOW), OneNotification.accept, OneNotification.erase),
    # the push is taken up again
    "resume & cancel": (lambda w: _retried(w), OneNotification.resume, OneNotification.cancel),
    "resume at its time & cancel": (lambda w: _later(w, plan=LATER), OneNotification.resume, OneNotification.cancel),
    "resume & click": (lambda w: _retried(w, plan=NOW), OneNotification.resume, OneNotification.click),
    "resume & check and send": (
        lambda w: _retried(w, plan=NOW),
        OneNotification.resume,
        OneNotification.decide_and_send,
    ),
    "resume at its time & check": (lambda w: _later(w, plan=NOW), OneNotification.resume, OneNotification.check),
    "resume & the device moves": (lambda w: _retried(w, user=True, plan=LATER), OneNotification.resume, _move),
    # the fallback is decided
    "check & cancel": (lambda w: w.accepted(plan=NOW), OneNotification.check, OneNotification.cancel),
    "check & click": (lambda w: w.accepted(plan=NOW), OneNotification.check, OneNotification.click),
    "check & stop": (lambda w: w.accepted(plan=NOW), OneNotification.check, OneNotification.stop),
    "check & check": (lambda w: w.accepted(plan=NOW), OneNotification.check, OneNotification.check),
    "check & erase, opted out": (_opted_out, OneNotification.decide_and_send, OneNotification.erase),
    # the SMS goes
    "send & cancel": (lambda w: w.reserved(), OneNotification.send, OneNotification.cancel),
    "send & click": (lambda w: w.reserved(), OneNotification.send, OneNotification.click),
    "send & stop": (lambda w: w.reserved(), OneNotification.send, OneNotification.stop),
    "send & send": (lambda w: w.reserved(), OneNotification.send, OneNotification.send),
    "send & its status": (lambda w: w.reserved(), OneNotification.send, _delivered),
    "send & erase": (lambda w: w.reserved(user=True), OneNotification.send, OneNotification.erase),
    "send & reconcile": (lambda w: w.reserved(), OneNotification.send, OneNotification.reconcile),
    "send too fast & cancel": (_too_fast, OneNotification.send, OneNotification.cancel),
    "send too fast & click": (_too_fast, OneNotification.send, OneNotification.click),
    # what nobody could record
    "reconcile & its status": (_lost, OneNotification.reconcile, _delivered),
    "reconcile & reconcile": (_lost, OneNotification.reconcile, OneNotification.reconcile),
    "reconcile, to be sent again & cancel": (_never_taken, OneNotification.reconcile, OneNotification.cancel),
    "undelivered & delivered": (_sent, _undelivered, _delivered),
    # what was sent to nobody
    "failed for us & cancel": (_sent, _failed_for_us, OneNotification.cancel),
    "failed for us & click": (_sent, _failed_for_us, OneNotification.click),
    "failed for us & delivered": (_sent, _failed_for_us, _delivered),
    # one step behind another
    "WhatsApp refused & cancel": (_whatsapp_refused, OneNotification.send, OneNotification.cancel),
    "WhatsApp refused & click": (_whatsapp_refused, OneNotification.send, OneNotification.click),
    "WhatsApp undelivered & cancel": (_whatsapp_sent, _undelivered, OneNotification.cancel),
    "WhatsApp read & the SMS is decided": (_second_due, _read, OneNotification.decide_and_send),
    "WhatsApp & its status": (_whatsapp, OneNotification.send, _read),
    "delivered & cancel": (lambda w: w.accepted(plan=TWO), OneNotification.deliver, OneNotification.cancel),
    "delivered & click": (lambda w: w.accepted(plan=TWO), OneNotification.deliver, OneNotification.click),
    "cancel & cancel": (lambda w: w.accepted(plan=LATER), OneNotification.cancel, OneNotification.cancel),
    # the dispatcher
    "ring & cancel": (lambda w: w.accepted(plan=NOW), _ring, OneNotification.cancel),
}
STOPPERS = (OneNotification.cancel, OneNotification.click, OneNotification.stop)


@pytest.mark.parametrize(("pair", "first"), both_ways(PAIRS))
def test_whatever_two_workers_do_at_once_ends_right(
    scenario: Scenario, between: Interleaver, pair: str, first: str
) -> None:
    make, left, right = PAIRS[pair]
    one, other = (left, right) if first == "left" else (right, left)
    silent: list[tuple[OneNotification, int]] = []

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        case = make(scenario)
        return lambda: one(case), lambda: other(case)

    for meeting in between.every_meeting(prepare):
        case = scenario.notifications[-1]
        assert not meeting.deadlocks
        _must_have_ended_if_cancelled(case, meeting)
        if _was_stopped_before_the_claim(one, other, meeting):
            silent.append((case, case.texts))
    scenario.sandbox.clear_rules()
    scenario.live_on()
    must_be_whole(scenario)
    assert [(case.number, case.texts) for case, _ in silent] == [(case.number, texts) for case, texts in silent]


def _was_stopped_before_the_claim(one: object, other: object, meeting: Meeting) -> bool:
    if other in STOPPERS:
        return meeting.halted and not meeting.waited and not any(CLAIM in done for done in meeting.before)
    return one in STOPPERS and not meeting.halted


def _must_have_ended_if_cancelled(case: OneNotification, meeting: Meeting) -> None:
    """What is cancelled and has not begun ends at once, not when its time comes."""
    if case.rows("SELECT FROM events WHERE notification_id = :id AND kind = 'cancelled'"):
        waiting = case.rows(
            "SELECT step, state FROM deliveries "
            "WHERE notification_id = :id AND state IN ('scheduled', 'reserved') AND wake_at > knocktwice_now()"
        )
        assert not waiting, meeting


def _one_opted_out(scenario: Scenario) -> Sequence[OneNotification]:
    cases = scenario.reserved(), scenario.reserved()
    cases[1].stop()
    return cases


def _one_cancelled(scenario: Scenario) -> Sequence[OneNotification]:
    """Two whose pushes have waited for their time; somebody died between noting a cancellation and carrying it out."""
    cases = _later(scenario, plan=LATER), _later(scenario, plan=LATER)
    with scenario.here.engine.begin() as conn:
        store.note_cancelled(conn, [cases[1].id], [], scenario.now())
    return cases


def _without_devices(scenario: Scenario) -> Sequence[OneNotification]:
    """Two whose pushes were to be tried again, on devices that are somebody else's now."""
    cases = _retried(scenario, user=True, plan=LATER), _retried(scenario, user=True, plan=LATER)
    for case in cases:
        _move(case)
    return cases


def _one_lost_one_read(*cases: OneNotification) -> None:
    at, (read, lost) = datetime.now(UTC), cases
    reports = [
        StatusReport("twilio", read.sid(1), ProviderState.READ, at, intent=(read.id, 1)),
        StatusReport("twilio", lost.sid(1), ProviderState.UNDELIVERED, at, intent=(lost.id, 1)),
    ]
    with read.scenario.here.engine.begin() as conn:
        provider_reports.accept(conn, reports)
        provider_reports.bring(conn, {r.provider_id for r in reports})


BATCHES: dict[str, tuple[Callable[[Scenario], Sequence[OneNotification]], Callable[..., None], Callable[..., None]]] = {
    "send, one opted out & click": (_one_opted_out, send_all, click_all),
    "send, one opted out & cancel": (_one_opted_out, send_all, cancel_all),
    "check & click": (lambda w: (w.accepted(plan=NOW), w.accepted(plan=NOW)), check_all, click_all),
    "resume, one cancelled & click": (_one_cancelled, resume_all, click_all),
    "resume without devices & click": (_without_devices, resume_all, click_all),
    "resume without devices & cancel": (_without_devices, resume_all, cancel_all),
    "one lost and one read & click": (lambda w: (_whatsapp_sent(w), _whatsapp_sent(w)), _one_lost_one_read, click_all),
}


@pytest.mark.parametrize("first", ["left", "right"])
@pytest.mark.parametrize("batch", BATCHES)
def test_batches_of_the_same_notifications_wait_for_each_other(
    scenario: Scenario, between: Interleaver, batch: str, first: str
) -> None:
    make, left, right = BATCHES[batch]
    one, other = (left, right) if first == "left" else (right, left)

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        cases = make(scenario)
        return lambda: one(*cases), lambda: other(*cases)

    assert not [meeting.before for meeting in between.every_meeting(prepare) if meeting.deadlocks]
    scenario.live_on()
    must_be_whole(scenario)


def test_a_key_whose_owner_is_erased_meanwhile_makes_a_duplicate_all_the_same(
    scenario: Scenario, between: Interleaver
) -> None:
    seconds: list[OneNotification] = []

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        key = f"order-{len(seconds)}"
        first = scenario.accepted(user=True, key=key)
        seconds.append(scenario.notification(key=key))
        return seconds[-1].accept, first.erase

    for meeting in between.every_meeting(prepare):
        assert not meeting.deadlocks
        # Accepted is accepted: it is there, whoever holds the key.
        assert seconds[-1].state() in ("duplicate", "pushed"), meeting.before[-1:]
    scenario.live_on()
    must_be_whole(scenario)


def test_a_person_who_is_erased_and_registers_devices_at_once(scenario: Scenario, between: Interleaver) -> None:
    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        case = scenario.accepted(user=True)
        user, at = case.user or "", scenario.now() + timedelta(days=30)
        # The second is new, and the first was theirs before.
        devices = [DeviceRegistered(user, name, at) for name in (case.registration, f"{case.registration}-two")]
        return lambda: scenario.know(*devices), case.erase

    assert not [meeting.before[-1] for meeting in between.every_meeting(prepare) if meeting.deadlocks]


def test_texts_of_the_same_people_wait_for_each_other(scenario: Scenario, between: Interleaver) -> None:
    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        numbers = [scenario.notification().number for _ in range(2)]

        def receive(numbers: Sequence[str], name: str) -> None:
            with scenario.here.engine.begin() as conn:
                inbound_texts.receive(conn, [InboundText(f"SM-{name}-{n}", n, Wish.STOP) for n in numbers], b"test")

        return lambda: receive(numbers, "a"), lambda: receive(numbers[::-1], "b")

    assert not [meeting.before[-1] for meeting in between.every_meeting(prepare) if meeting.deadlocks]
    scenario.notifications.clear()
