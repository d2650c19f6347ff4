"""record_push and claim_push: what answers about devices make of a push."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import DeviceRegistered, Receipt
from knocktwice_worker.audience import people
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.reporting import story
from support.store_book import AT, HOUR, LEASE, Book, batch, ids

if TYPE_CHECKING:
    from support.clock import Clock


def test_a_push_that_failed_on_every_device_makes_the_fallback_due(book: Book) -> None:
    one = batch("ada")
    book.pushed(one, state="rejected", reason="unregistered", address_dead=True)
    assert book.states(ids(one)[0])["push"] == ("failed", "unregistered")
    assert [row.before for row in book(store.due, ids(one))] == ["failed"]
    assert book.rows("SELECT registration FROM devices WHERE user_id = 'ada'") == []


def test_a_push_that_fails_after_somebody_clicked_brings_nothing_back(book: Book) -> None:
    one = batch("ada")
    work = book.accept(one)
    book.receipt(ids(one)[0], Receipt.CLICKED)
    book(
        store.record_push,
        [store.PushResult(w.notification_id, w.registration, state=AttemptState.REJECTED) for w in work],
        retry_for=HOUR,
    )
    assert book.states(ids(one)[0])["notification"] == ("reached", "reached_in_time")
    assert book.rows("SELECT state, wake_at, due_at > knocktwice_now() FROM deliveries WHERE step = 1") == [
        ("skipped", None, True)
    ]


@pytest.mark.parametrize("complete", [True, False], ids=["all at once", "one by one"])
def test_one_device_that_takes_the_push_is_enough(book: Book, complete: bool) -> None:
    book(people.apply, [DeviceRegistered("ada", "reg-old", AT)])
    one = batch("ada")
    answers = {"reg-ada": AttemptState.SENT, "reg-old": AttemptState.REJECTED}
    work = book.accept(one)
    book(
        store.record_push,
        [store.PushResult(w.notification_id, w.registration, state=answers[w.registration]) for w in work],
        retry_for=HOUR,
        complete=complete,
    )
    assert book.states(ids(one)[0])["push"][0] == "sent"


def test_a_push_to_be_retried_rings_and_is_claimed_by_one(book: Book, clock: Clock) -> None:
    one = batch("ada")
    book.pushed(one, state="open", reason="quota", retry_after=timedelta(seconds=10))
    assert book.states(ids(one)[0])["push"][0] == "scheduled"
    assert book(store.ring, limit=10, lease=LEASE)[0] == []
    clock.advance(timedelta(seconds=16))
    assert [(r.step, r.state) for r in book(store.ring, limit=10, lease=LEASE)[0]] == [(0, "scheduled")]
    assert book(store.claim_push, ids(one), LEASE) == [store.PushWork(ids(one)[0], "reg-ada")]
    assert book(store.claim_push, ids(one), LEASE) == []


def test_a_push_whose_worker_died_rings_when_the_lease_is_over(book: Book, clock: Clock) -> None:
    one = batch("ada")
    book.accept(one)
    assert book(store.ring, limit=10, lease=LEASE)[0] == []
    clock.advance(LEASE)
    assert [(r.step, r.state) for r in book(store.ring, limit=10, lease=LEASE)[0]] == [(0, "scheduled")]


def test_a_push_whose_worker_died_goes_to_the_devices_that_its_person_has_now(book: Book, clock: Clock) -> None:
    book(people.apply, [DeviceRegistered("ada", "reg-old", AT)])
    one = batch("ada")
    assert {w.registration for w in book.accept(one)} == {"reg-ada", "reg-old"}
    book(people.apply, [DeviceRegistered("bob", "reg-old", AT + HOUR)])
    clock.advance(LEASE)
    book(store.ring, limit=10, lease=LEASE)[0]
    assert book(store.claim_push, ids(one), LEASE) == [store.PushWork(ids(one)[0], "reg-ada")]
    assert book.rows("SELECT registration, state FROM attempts") == [("reg-ada", "open")]


def test_a_push_whose_worker_died_fails_when_its_person_has_no_device_any_more(book: Book, clock: Clock) -> None:
    one = batch("ada")
    book.accept(one)
    book(people.apply, [DeviceRegistered("bob", "reg-ada", AT + HOUR)])
    clock.advance(LEASE)
    book(store.ring, limit=10, lease=LEASE)[0]
    assert book(store.claim_push, ids(one), LEASE) == []
    assert book.states(ids(one)[0])["push"] == ("failed", "no_device")
    assert [row.before for row in book(store.due, ids(one))] == ["failed"]


def test_the_story_of_a_push_without_an_answer_says_no_more_than_is_known(book: Book, clock: Clock) -> None:
    one = batch("ada")
    book.accept(one)

    def told() -> list[str]:
        found = book(story.tell, ids(one)[0])
        assert found
        return [moment.sentence for moment in found.moments if moment.kind == "push"]

    assert told() == ["The push is under way; no device has answered yet."]
    clock.advance(timedelta(seconds=1))
    book(store.note_cancelled, ids(one), [], AT)
    assert book(store.stop_claimed, ids(one)) == set(ids(one))
    # Whether its worker has died, or has never called the provider, nobody knows.
    assert told() == ["No device's answer to the push was written down."]


def test_an_answer_that_comes_while_its_push_is_taken_up_again_counts(book: Book, clock: Clock) -> None:
    one = batch("ada")
    (work,) = book.accept(one)
    clock.advance(LEASE)
    book(store.ring, limit=10, lease=LEASE)[0]
    sent = store.PushResult(work.notification_id, work.registration, AttemptState.SENT, provider_id="m1")

    def answer(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO attempts" in statement and conn.info.pop("waits", False):
            book(store.record_push, [sent], retry_for=HOUR, complete=True)

    with book.engine.begin() as conn:
        conn.info["waits"] = True
        sa.event.listen(conn, "before_cursor_execute", answer)
        assert store.claim_push(conn, ids(one), LEASE) == []
    assert book.states(ids(one)[0])["push"] == ("sent", None)
    assert book.rows("SELECT state, provider_id FROM attempts") == [("sent", "m1")]


def test_the_row_of_a_device_is_written_once(book: Book) -> None:
    one = batch("ada")
    (work,) = book.accept(one)
    assert book.rows("SELECT FROM attempts") == []
    # A receipt may come before the answer of the provider.
    assert book(store.attempts, ids(one)) == [work]
    sent = store.PushResult(work.notification_id, work.registration, AttemptState.SENT, provider_id="m1")
    book(store.record_push, [sent], retry_for=HOUR, complete=True)
    assert book.rows("SELECT state, provider_id FROM attempts") == [("sent", "m1")]
    assert book(store.attempts, ids(one)) == [work]


@pytest.mark.parametrize("complete", [True, False], ids=["of all devices", "of some"])
def test_an_answer_that_comes_after_the_end_changes_nothing(book: Book, clock: Clock, complete: bool) -> None:
    one = batch("ada", when=None)
    (work,) = book.accept(one)
    clock.advance(LEASE)
    book(store.ring, limit=10, lease=LEASE)[0]
    book(store.cancel, ids(one), [], AT)
    before = book.states(ids(one)[0])
    assert before == {"notification": ("cancelled", "cancelled"), "push": ("cancelled", "cancelled")}
    late = store.PushResult(work.notification_id, work.registration, state=AttemptState.SENT)
    book(store.record_push, [late], retry_for=HOUR, complete=complete)
    assert book.states(ids(one)[0]) == before
    assert book.rows("SELECT state FROM attempts") == [("sent",)]


def test_a_push_is_not_retried_for_ever(book: Book, clock: Clock) -> None:
    one = batch("ada", when=None)
    work = book.accept(one)
    clock.advance(HOUR)
    again = [
        store.PushResult(
            w.notification_id, w.registration, state=AttemptState.OPEN, reason="quota", retry_after=timedelta(seconds=1)
        )
        for w in work
    ]
    book(store.record_push, again, retry_for=HOUR)
    assert book.states(ids(one)[0]) == {"notification": ("failed", "quota"), "push": ("failed", "quota")}
