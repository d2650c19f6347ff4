"""What two workers do at once: every pair that looks and then writes, met at every statement of either.

Left out, because nothing is looked at before it is written: tags, numbers and consent (each one guarded statement), the
inbox and the limits in Redis (one script each), templates and segments (one row each). A withdrawn push may be withdrawn twice,
which nobody sees.
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
from support.scenario import LATER, NOW, SAID, TWO, World, installed
from support.scenario_case import Case, cancel_all, check_all, click_all, resume_all, send_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_worker.embedded.servers import Servers
    from support.interleaving import Interleaver, Meeting

CLAIM = "state = 'sending'"


@pytest.fixture(scope="module")
def world(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One installation for all: each meeting has a person of its own."""
    with installed(servers, tmp_path_factory.mktemp("home")) as built:
        yield built


@pytest.fixture(scope="module")
def between(world: World) -> Iterator[Interleaver]:
    with world.meetings() as meetings:
        yield meetings


@pytest.fixture(autouse=True)
def _anew(world: World) -> None:
    world.begin()


def _later(world: World, **fields: Any) -> Case:
    """One whose push has waited for its time, which is now."""
    case = world.accepted(send_at=world.in_hours(1), **fields)
    world.clock.advance(timedelta(hours=1))
    return case


def _retried(world: World, **fields: Any) -> Case:
    """One whose push the provider wants to be tried again."""
    case = world.case(**fields)
    world.sandbox.rule(Rule("push", match=case.registration, times=1, answer=Answer(status=503)))
    case.accept()
    assert case.steps()[0] == "scheduled"
    return case


def _refused(world: World, **fields: Any) -> Case:
    """One whose push the provider will want to be tried again."""
    case = world.case(**fields)
    world.sandbox.rule(Rule("push", match=case.registration, times=1, answer=Answer(status=503)))
    return case


def _too_fast(world: World) -> Case:
    """One whose SMS the provider will not take yet."""
    case = world.reserved()
    world.sandbox.rule(Rule("sms", match=case.number, times=1, answer=Answer(status=429)))
    return case


def _lost(world: World) -> Case:
    """One whose SMS was taken, and nobody knows."""
    case = world.reserved()
    world.sandbox.rule(Rule("sms", match=case.number, times=1, answer=Answer(drop=True, accept=True)))
    case.send()
    world.clock.advance(timedelta(minutes=4))
    assert case.steps()[-1] == "sending"
    return case


def _never_taken(world: World) -> Case:
    """One whose SMS the provider never got, and nobody knows."""
    case = world.reserved()
    world.sandbox.rule(Rule("sms", match=case.number, times=1, answer=Answer(drop=True)))
    case.send()
    world.clock.advance(timedelta(minutes=4))
    return case


def _mute(world: World, **fields: Any) -> Case:
    """One to somebody whose only device shows nothing."""
    case = world.case(user=True, **fields)
    world.know(DeviceRegistered(case.user or "", case.registration, SAID, notifications_enabled=False))
    return case


def _whatsapp(world: World) -> Case:
    """One whose WhatsApp message may go, with an SMS behind it."""
    return world.reserved(plan=TWO)


def _whatsapp_refused(world: World) -> Case:
    case = _whatsapp(world)
    world.sandbox.rule(Rule("sms", match=f"whatsapp:{case.number}", times=1, answer=Answer(error_code=63016)))
    return case


def _whatsapp_sent(world: World) -> Case:
    case = _whatsapp(world)
    case.send()
    return case


def _second_due(world: World) -> Case:
    case = _whatsapp_sent(world)
    world.clock.advance(timedelta(hours=1, minutes=1))
    return case


def _sent(world: World) -> Case:
    case = world.reserved()
    case.send()
    return case


def _opted_out(world: World) -> Case:
    case = world.accepted(user=True, plan=NOW)
    case.stop()
    case.silent = True
    return case


def _delivered(case: Case) -> None:
    case.report(ProviderState.SENT, ProviderState.DELIVERED)


def _undelivered(case: Case) -> None:
    case.report(ProviderState.UNDELIVERED)


def _read(case: Case) -> None:
    case.report(ProviderState.READ)


def _move(case: Case) -> None:
    """The device is somebody else's now."""
    case.world.know(DeviceRegistered(f"{case.user}-heir", case.registration, case.world.now()))


def _ring(case: Case) -> None:
    dispatch(case.world.here, case.world.perform)


PAIRS: dict[str, tuple[Callable[[World], Case], Callable[[Case], None], Callable[[Case], None]]] = {
    # the rows come to be
    "accept later & cancel": (lambda w: w.case(send_at=w.in_hours(1)), Case.accept, Case.cancel),
    "accept later with a plan & cancel": (
        lambda w: w.case(send_at=w.in_hours(1), plan=LATER),
        Case.accept,
        Case.cancel,
    ),
    "accept & cancel": (lambda w: w.case(plan=LATER), Case.accept, Case.cancel),
    "accept to a mute device & cancel": (lambda w: _mute(w, plan=LATER), Case.accept, Case.cancel),
    "accept an SMS alone & cancel": (
        lambda w: w.case(content={"sms": {"text": "x"}}, only="sms"),
        Case.accept,
        Case.cancel,
    ),
    "accept, to be tried again & cancel": (_refused, Case.accept, Case.cancel),
    "accept with a plan, to be tried again & cancel": (lambda w: _refused(w, plan=LATER), Case.accept, Case.cancel),
    "accept & click": (lambda w: w.case(plan=NOW), Case.accept, Case.click),
    "accept & accept": (lambda w: w.case(plan=NOW), Case.accept, Case.accept),
    "accept & erase": (lambda w: w.case(user=True, plan=NOW), Case.accept, Case.erase),
    # the push is taken up again
    "resume & cancel": (lambda w: _retried(w), Case.resume, Case.cancel),
    "resume at its time & cancel": (lambda w: _later(w, plan=LATER), Case.resume, Case.cancel),
    "resume & click": (lambda w: _retried(w, plan=NOW), Case.resume, Case.click),
    "resume & check and send": (lambda w: _retried(w, plan=NOW), Case.resume, Case.decide_and_send),
    "resume at its time & check": (lambda w: _later(w, plan=NOW), Case.resume, Case.check),
    "resume & the device moves": (lambda w: _retried(w, user=True, plan=LATER), Case.resume, _move),
    # the fallback is decided
    "check & cancel": (lambda w: w.accepted(plan=NOW), Case.check, Case.cancel),
    "check & click": (lambda w: w.accepted(plan=NOW), Case.check, Case.click),
    "check & stop": (lambda w: w.accepted(plan=NOW), Case.check, Case.stop),
    "check & check": (lambda w: w.accepted(plan=NOW), Case.check, Case.check),
    "check & erase, opted out": (_opted_out, Case.decide_and_send, Case.erase),
    # the SMS goes
    "send & cancel": (lambda w: w.reserved(), Case.send, Case.cancel),
    "send & click": (lambda w: w.reserved(), Case.send, Case.click),
    "send & stop": (lambda w: w.reserved(), Case.send, Case.stop),
    "send & send": (lambda w: w.reserved(), Case.send, Case.send),
    "send & its status": (lambda w: w.reserved(), Case.send, _delivered),
    "send & erase": (lambda w: w.reserved(user=True), Case.send, Case.erase),
    "send & reconcile": (lambda w: w.reserved(), Case.send, Case.reconcile),
    "send too fast & cancel": (_too_fast, Case.send, Case.cancel),
    "send too fast & click": (_too_fast, Case.send, Case.click),
    # what nobody could record
    "reconcile & its status": (_lost, Case.reconcile, _delivered),
    "reconcile & reconcile": (_lost, Case.reconcile, Case.reconcile),
    "reconcile, to be sent again & cancel": (_never_taken, Case.reconcile, Case.cancel),
    "undelivered & delivered": (_sent, _undelivered, _delivered),
    # one step behind another
    "WhatsApp refused & cancel": (_whatsapp_refused, Case.send, Case.cancel),
    "WhatsApp refused & click": (_whatsapp_refused, Case.send, Case.click),
    "WhatsApp undelivered & cancel": (_whatsapp_sent, _undelivered, Case.cancel),
    "WhatsApp read & the SMS is decided": (_second_due, _read, Case.decide_and_send),
    "WhatsApp & its status": (_whatsapp, Case.send, _read),
    "delivered & cancel": (lambda w: w.accepted(plan=TWO), Case.deliver, Case.cancel),
    "delivered & click": (lambda w: w.accepted(plan=TWO), Case.deliver, Case.click),
    "cancel & cancel": (lambda w: w.accepted(plan=LATER), Case.cancel, Case.cancel),
    # the dispatcher
    "ring & cancel": (lambda w: w.accepted(plan=NOW), _ring, Case.cancel),
}
STOPPERS = (Case.cancel, Case.click, Case.stop)


@pytest.mark.parametrize(("pair", "first"), both_ways(PAIRS))
def test_whatever_two_workers_do_at_once_ends_right(world: World, between: Interleaver, pair: str, first: str) -> None:
    make, left, right = PAIRS[pair]
    one, other = (left, right) if first == "left" else (right, left)
    silent: list[tuple[Case, int]] = []

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        case = make(world)
        return lambda: one(case), lambda: other(case)

    for meeting in between.every_meeting(prepare):
        case = world.cases[-1]
        assert not meeting.deadlocks
        _must_have_ended_if_cancelled(case, meeting)
        if _was_stopped_before_the_claim(one, other, meeting):
            silent.append((case, case.texts))
    world.sandbox.clear_rules()
    world.live_on()
    must_be_whole(world)
    assert [(case.number, case.texts) for case, _ in silent] == [(case.number, texts) for case, texts in silent]


def _was_stopped_before_the_claim(one: object, other: object, meeting: Meeting) -> bool:
    if other in STOPPERS:
        return meeting.halted and not meeting.waited and not any(CLAIM in done for done in meeting.before)
    return one in STOPPERS and not meeting.halted


def _must_have_ended_if_cancelled(case: Case, meeting: Meeting) -> None:
    """What is cancelled and has not begun ends at once, not when its time comes."""
    if case.rows("SELECT FROM events WHERE notification_id = :id AND kind = 'cancelled'"):
        waiting = case.rows(
            "SELECT step, state FROM deliveries "
            "WHERE notification_id = :id AND state IN ('scheduled', 'reserved') AND wake_at > knocktwice_now()"
        )
        assert not waiting, meeting


def _one_opted_out(world: World) -> Sequence[Case]:
    cases = world.reserved(), world.reserved()
    cases[1].stop()
    return cases


def _one_cancelled(world: World) -> Sequence[Case]:
    """Two whose pushes have waited for their time; somebody died between noting a cancellation and carrying it out."""
    cases = _later(world, plan=LATER), _later(world, plan=LATER)
    with world.here.engine.begin() as conn:
        store.note_cancelled(conn, [cases[1].id], [], world.now())
    return cases


def _without_devices(world: World) -> Sequence[Case]:
    """Two whose pushes were to be tried again, on devices that are somebody else's now."""
    cases = _retried(world, user=True, plan=LATER), _retried(world, user=True, plan=LATER)
    for case in cases:
        _move(case)
    return cases


def _one_lost_one_read(*cases: Case) -> None:
    at, (read, lost) = datetime.now(UTC), cases
    reports = [
        StatusReport("twilio", read.sid(1), ProviderState.READ, at, intent=(read.id, 1)),
        StatusReport("twilio", lost.sid(1), ProviderState.UNDELIVERED, at, intent=(lost.id, 1)),
    ]
    with read.world.here.engine.begin() as conn:
        provider_reports.accept(conn, reports)
        provider_reports.bring(conn, {r.provider_id for r in reports})


BATCHES: dict[str, tuple[Callable[[World], Sequence[Case]], Callable[..., None], Callable[..., None]]] = {
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
    world: World, between: Interleaver, batch: str, first: str
) -> None:
    make, left, right = BATCHES[batch]
    one, other = (left, right) if first == "left" else (right, left)

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        cases = make(world)
        return lambda: one(*cases), lambda: other(*cases)

    assert not [meeting.before for meeting in between.every_meeting(prepare) if meeting.deadlocks]
    world.live_on()
    must_be_whole(world)


def test_a_key_whose_owner_is_erased_meanwhile_makes_a_duplicate_all_the_same(
    world: World, between: Interleaver
) -> None:
    seconds: list[Case] = []

    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        key = f"order-{len(seconds)}"
        first = world.accepted(user=True, key=key)
        seconds.append(world.case(key=key))
        return seconds[-1].accept, first.erase

    for meeting in between.every_meeting(prepare):
        assert not meeting.deadlocks
        # Accepted is accepted: it is there, whoever holds the key.
        assert seconds[-1].state() in ("duplicate", "pushed"), meeting.before[-1:]
    world.live_on()
    must_be_whole(world)


def test_a_person_who_is_erased_and_registers_devices_at_once(world: World, between: Interleaver) -> None:
    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        case = world.accepted(user=True)
        user, at = case.user or "", world.now() + timedelta(days=30)
        # The second is new, and the first was theirs before.
        devices = [DeviceRegistered(user, name, at) for name in (case.registration, f"{case.registration}-two")]
        return lambda: world.know(*devices), case.erase

    assert not [meeting.before[-1] for meeting in between.every_meeting(prepare) if meeting.deadlocks]


def test_texts_of_the_same_people_wait_for_each_other(world: World, between: Interleaver) -> None:
    def prepare() -> tuple[Callable[[], None], Callable[[], None]]:
        numbers = [world.case().number for _ in range(2)]

        def receive(numbers: Sequence[str], name: str) -> None:
            with world.here.engine.begin() as conn:
                inbound_texts.receive(conn, [InboundText(f"SM-{name}-{n}", n, Wish.STOP) for n in numbers])

        return lambda: receive(numbers, "a"), lambda: receive(numbers[::-1], "b")

    assert not [meeting.before[-1] for meeting in between.every_meeting(prepare) if meeting.deadlocks]
    world.cases.clear()
