"""cancel: stops what is unclaimed, remembers what it overtakes, comes too late after a claim."""

from __future__ import annotations

from datetime import timedelta

import pytest

from knocktwice_worker.lifecycle import DeliveryState
from knocktwice_worker.notifications import store
from support.sent_messages import placed
from support.store_book import AT, LEASE, Book, batch, ids


@pytest.mark.parametrize("stage", ["scheduled", "reserved"])
def test_cancelling_stops_what_nobody_has_claimed(book: Book, stage: str) -> None:
    one = batch("ada", keys=["k"])
    book.pushed(one)
    if stage == "reserved":
        book.reserve(*ids(one))
    book(store.cancel, [], ["k"], AT)
    assert book.states(ids(one)[0])["notification"] == ("cancelled", "cancelled")
    assert book.states(ids(one)[0])["sms"] == ("cancelled", "cancelled")


def test_a_cancellation_that_overtakes_its_notification_is_remembered(book: Book) -> None:
    one = batch("ada")
    book(store.cancel, ids(one), [], AT)
    assert book.accept(one) == []
    assert book.states(ids(one)[0]) == {"notification": ("cancelled", "cancelled")}


def test_cancelling_after_the_claim_is_too_late(book: Book) -> None:
    one = batch("ada", after=0)
    book.pushed(one)
    book.reserve(*ids(one))
    book(store.claim_steps, placed(ids(one)), LEASE)
    book(store.cancel, ids(one), [], AT)
    assert book.states(ids(one)[0])["sms"][0] == "sending"


def test_cancelling_leaves_a_push_alone_whose_sms_is_being_sent(book: Book) -> None:
    one = batch("ada", after=0)
    book.pushed(one, state="open", retry_after=timedelta(minutes=5))
    assert book.reserve(*ids(one)) == set(ids(one))
    book(store.claim_steps, placed(ids(one)), LEASE)
    book(store.cancel, ids(one), [], AT)
    assert {name: state for name, (state, _) in book.states(ids(one)[0]).items()} == {
        "notification": "active",
        "push": "scheduled",
        "sms": "sending",
    }
    book(store.record_steps, [store.StepResult(ids(one)[0], DeliveryState.SENT, provider_id="SM1")])
    assert book.states(ids(one)[0])["notification"][0] == "texted"
