"""The countdown behind a push starts when the first device has it,
and push and message are never under way together.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, Receipt, parse_batch
from knocktwice_worker.audience import people
from knocktwice_worker.lifecycle import AttemptState, DeliveryState
from knocktwice_worker.notifications import store
from support.sent_messages import placed
from support.store_book import AT, HOUR, LEASE, Book, batch, ids

if TYPE_CHECKING:
    from support.clock import Clock

SECOND = timedelta(seconds=1)


def answers(id_: str, **devices: timedelta | None) -> list[store.PushResult]:
    """Return answers about devices: handed over, or to be tried again after a time."""
    return [
        store.PushResult(id_, f"reg-{name}", AttemptState.OPEN, "busy", retry_after=wait)
        if wait
        else store.PushResult(id_, f"reg-{name}", AttemptState.SENT)
        for name, wait in devices.items()
    ]


def record(book: Book, id_: str, **devices: timedelta | None) -> None:
    book(store.record_push, answers(id_, **devices), retry_for=HOUR)


@pytest.fixture
def two_devices(book: Book) -> str:
    """A notification to Ada's two devices, of which one has it and the other asks for a minute."""
    book(people.apply, [DeviceRegistered("ada", "reg-slow", AT)])
    one = batch("ada", after=10)
    (id_,) = ids(one)
    book.accept(one)
    record(book, id_, ada=None, slow=LEASE)
    return id_


def waits(book: Book) -> timedelta:
    (row,) = book.rows("SELECT wake_at - knocktwice_now() FROM deliveries WHERE step = 1")
    wait: timedelta = row[0]
    return wait


def test_a_slow_hand_over_moves_the_countdown(book: Book, clock: Clock) -> None:
    one = batch("ada", after=8)
    (id_,) = ids(one)
    book.accept(one)
    clock.advance(timedelta(seconds=7.6))
    record(book, id_, ada=None)
    clock.advance(timedelta(seconds=1.4))
    assert [row.step for row in book(store.ring, limit=10, lease=LEASE)[0]] == [1]
    assert book(store.due, [id_]) == []
    # It rings exactly once more, when eight seconds from the hand-over are over.
    assert timedelta(seconds=5) < waits(book) < timedelta(seconds=7)
    clock.advance(timedelta(seconds=7))
    assert [row.step for row in book(store.ring, limit=10, lease=LEASE)[0]] == [1]
    (row,) = book(store.due, [id_])
    assert row.before is DeliveryState.SENT


def test_an_ordinary_hand_over_needs_no_second_look(book: Book, clock: Clock) -> None:
    one = batch("ada", after=60)
    (id_,) = ids(one)
    book.accept(one)
    clock.advance(timedelta(seconds=0.5))
    record(book, id_, ada=None)
    clock.advance(timedelta(seconds=60.5))
    assert len(book(store.ring, limit=10, lease=LEASE)[0]) == 1
    assert len(book(store.due, [id_])) == 1


def test_a_push_that_is_tried_again_starts_the_countdown_anew_each_time(book: Book, clock: Clock) -> None:
    one = batch("ada", after=5)
    (id_,) = ids(one)
    book.accept(one)
    for _ in range(3):
        record(book, id_, ada=timedelta(seconds=12))
        clock.advance(timedelta(seconds=6))
        (row,) = book(store.due, [id_])
        assert row.before is DeliveryState.SCHEDULED
        # Before the push is tried again there is nothing to look at.
        assert timedelta(seconds=10) < row.again - row.now < timedelta(seconds=12)
        clock.advance(timedelta(seconds=6))
        assert book(store.claim_push, [id_], LEASE)
        assert timedelta(seconds=4.5) < waits(book) < timedelta(seconds=6)
    record(book, id_, ada=None)
    clock.advance(timedelta(seconds=4))
    assert book(store.due, [id_]) == []
    clock.advance(2 * SECOND)
    (row,) = book(store.due, [id_])
    assert row.before is DeliveryState.SENT


def test_a_push_that_fails_while_its_step_waits_for_it_makes_the_step_due_at_once(book: Book, clock: Clock) -> None:
    one = batch("ada", after=600)
    (id_,) = ids(one)
    book.accept(one)
    record(book, id_, ada=HOUR)
    clock.advance(timedelta(seconds=700))
    (row,) = book(store.due, [id_])
    book(store.look_at, {id_: row.again})
    clock.advance(HOUR)
    book(store.claim_push, [id_], LEASE)
    record(book, id_, ada=SECOND)
    assert book.states(id_)["push"] == ("failed", "busy")
    assert waits(book) <= timedelta()
    assert len(book(store.due, [id_])) == 1


def test_a_first_attempt_that_fails_after_the_steps_own_time_makes_it_due_at_once(book: Book, clock: Clock) -> None:
    one = batch("ada", after=600)
    (id_,) = ids(one)
    book.accept(one)
    clock.advance(timedelta(seconds=601))
    (row,) = book(store.due, [id_])
    book(store.look_at, {id_: row.again})
    book(store.record_push, [store.PushResult(id_, "reg-ada", AttemptState.REJECTED, "gone")], retry_for=HOUR)
    assert waits(book) <= timedelta()


def test_the_countdown_starts_with_the_first_device(book: Book, clock: Clock, two_devices: str) -> None:
    clock.advance(11 * SECOND)
    (row,) = book(store.due, [two_devices])
    assert row.before is DeliveryState.SENT


def test_a_slow_hand_over_to_the_first_device_counts_too(book: Book, clock: Clock) -> None:
    book(people.apply, [DeviceRegistered("ada", "reg-slow", AT)])
    one = batch("ada", after=10)
    (id_,) = ids(one)
    book.accept(one)
    clock.advance(7 * SECOND)
    record(book, id_, ada=None, slow=LEASE)
    clock.advance(9 * SECOND)
    assert book(store.due, [id_]) == []
    clock.advance(2 * SECOND)
    assert len(book(store.due, [id_])) == 1


@pytest.mark.usefixtures("two_devices")
def test_the_device_that_has_it_makes_nobody_elses_wait_shorter(book: Book) -> None:
    (row,) = book.rows("SELECT wake_at - knocktwice_now() FROM deliveries WHERE step = 0")
    assert LEASE - 5 * SECOND < row[0] <= LEASE
    assert book(store.ring, limit=10, lease=LEASE)[0] == []


def test_a_push_to_another_device_does_not_start_while_the_message_goes_out(
    book: Book, clock: Clock, two_devices: str
) -> None:
    clock.advance(LEASE)
    assert book.reserve(two_devices)
    assert book(store.claim_push, [two_devices], LEASE) == []
    claimed, at = book(store.claim_steps, placed([two_devices]), LEASE)
    assert book(store.claim_push, [two_devices], LEASE) == []
    assert book.states(two_devices)["push"][0] == "scheduled"
    book(store.hold, claimed, at)
    book(store.record_steps, [store.StepResult(two_devices, DeliveryState.SENT, provider_id="SM1")])
    assert book(store.claim_push, [two_devices], LEASE) == []
    assert book.states(two_devices)["push"] == ("skipped", "superseded")


def test_no_push_follows_a_message_behind_which_the_plan_goes_on(book: Book, clock: Clock) -> None:
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}}
    steps = [{"channel": "sms", "when": "not_delivered", "after_s": 10, "text": text} for text in ("one", "two")]
    one = parse_batch({**wire, "plan": steps, "recipients": [{"id": str(uuid7()), "user": "ada"}]})
    (id_,) = ids(one)
    book.accept(one)
    record(book, id_, ada=LEASE)
    clock.advance(LEASE)
    assert book.reserve(id_)
    claimed, at = book(store.claim_steps, placed([id_]), LEASE)
    book(store.hold, claimed, at)
    book(store.record_steps, [store.StepResult(id_, DeliveryState.SENT, provider_id="SM1")])
    assert book.states(id_)["notification"][0] == "active"
    assert book(store.claim_push, [id_], LEASE) == []
    assert book.states(id_)["push"] == ("skipped", "superseded")


def test_a_message_does_not_start_while_the_push_goes_to_another_device(
    book: Book, clock: Clock, two_devices: str
) -> None:
    clock.advance(LEASE)
    assert [w.registration for w in book(store.claim_push, [two_devices], LEASE)] == ["reg-slow"]
    (row,) = book(store.due, [two_devices])
    assert row.before is DeliveryState.SENDING
    assert book.reserve(two_devices) == set()
    record(book, two_devices, slow=None)
    assert book.reserve(two_devices) == {two_devices}


@pytest.mark.parametrize("last", [True, False], ids=["alone", "with a step behind it"])
def test_a_claimed_push_that_was_cancelled_meanwhile_ends_before_the_call(book: Book, last: bool) -> None:
    one = batch("ada", "ada", when=None if last else "not_delivered")
    stopped, other = ids(one)
    book.accept(one)
    for id_ in (stopped, other):
        record(book, id_, ada=SECOND)
    assert len(book(store.claim_push, [stopped, other], LEASE)) == 2
    book(store.cancel, [stopped], [], AT)
    assert book(store.stop_claimed, [stopped, other]) == {stopped}
    assert book.states(stopped)["push"][0] in ("cancelled", "skipped")
    assert book.states(stopped)["push"][1]
    assert book.states(stopped)["notification"][0] == "cancelled"
    assert book.states(other)["push"] == ("sending", None)


def test_a_claimed_push_whose_notification_was_answered_meanwhile_ends_before_the_call(book: Book) -> None:
    one = batch("ada", when="not_clicked")
    (id_,) = ids(one)
    book.accept(one)
    record(book, id_, ada=SECOND)
    assert len(book(store.claim_push, [id_], LEASE)) == 1
    # Another device had it, or the person opened the app by other means.
    book.receipt(id_, Receipt.CLICKED)
    assert book(store.stop_claimed, [id_]) == {id_}
    assert book.states(id_)["push"] == ("skipped", "superseded")
    assert book.states(id_)["notification"][0] == "reached"


def test_a_push_that_comes_back_after_its_notification_ended_says_why_it_was_skipped(book: Book) -> None:
    one = batch("ada")
    (id_,) = ids(one)
    book.accept(one)
    book(store.cancel, [id_], [], AT)
    record(book, id_, ada=SECOND)
    assert book.states(id_)["push"] == ("skipped", "superseded")


@pytest.mark.parametrize(("category", "state"), [("critical", "failed"), ("transactional", "scheduled")])
def test_a_one_time_password_does_not_wait_for_an_outage_to_end(book: Book, category: str, state: str) -> None:
    one = batch("ada", after=60, category=category)
    (id_,) = ids(one)
    book.accept(one)
    record(book, id_, ada=timedelta(minutes=2))
    assert book.states(id_)["push"][0] == state
    assert (waits(book) <= timedelta()) is (category == "critical")
