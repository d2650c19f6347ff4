"""record_receipts against the decision: who wins, and what it costs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.messages import Receipt
from knocktwice_worker.lifecycle import DeliveryState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import removal
from support.sent_messages import placed
from support.store_book import LEASE, Book, batch, ids

if TYPE_CHECKING:
    from support.clock import Clock


@pytest.mark.parametrize(
    ("when", "kind", "ends"),
    [
        ("not_delivered", Receipt.DELIVERED, True),
        ("not_delivered", Receipt.CLICKED, True),
        ("not_clicked", Receipt.CLICKED, True),
        ("not_clicked", Receipt.DELIVERED, False),
        ("notifications_disabled", Receipt.CLICKED, False),
    ],
)
@pytest.mark.parametrize("stage", ["scheduled", "reserved"])
def test_a_receipt_ends_a_fallback_nobody_has_claimed(
    book: Book, when: str, kind: Receipt, ends: bool, stage: str
) -> None:
    one = batch("ada", when=when)
    book.pushed(one)
    if stage == "reserved":
        book.reserve(*ids(one))
    book.receipt(ids(one)[0], kind)
    expected: dict[str, tuple[str, str | None]] = {"push": ("sent", None)}
    ended = {"notification": ("reached", "reached_in_time"), "sms": ("skipped", "reached_in_time")}
    expected |= ended if ends else {"notification": ("active", None), "sms": (stage, None)}
    assert book.states(ids(one)[0]) == expected


def test_a_receipt_before_the_rows_is_kept_and_seen(book: Book) -> None:
    one = batch("ada", after=0)
    book.receipt(ids(one)[0])
    book.pushed(one)
    assert [row.delivered is not None for row in book(store.due, ids(one))] == [True]
    assert book.reserve(*ids(one)) == set()


def test_a_receipt_that_comes_twice_counts_once(book: Book) -> None:
    one = batch("ada")
    book.pushed(one)
    for _ in range(3):
        book.receipt(ids(one)[0])
    assert book.rows("SELECT count(*) FROM events") == [(1,)]
    assert book.rows("SELECT verdict FROM decisions") == [("reached_in_time",)]


def test_a_receipt_after_the_claim_is_a_wasted_sms(book: Book) -> None:
    one = batch("ada", after=0)
    book.pushed(one)
    book.reserve(*ids(one))
    book(store.claim_steps, placed(ids(one)), LEASE)
    book.receipt(ids(one)[0])
    assert book.states(ids(one)[0])["sms"][0] == "sending"
    # It may be refused yet, and then it was not wasted.
    assert book.rows("SELECT verdict FROM decisions") == []
    book(store.record_steps, [store.StepResult(ids(one)[0], DeliveryState.SENT, provider_id="SM1")])
    book.receipt(ids(one)[0], Receipt.CLICKED)
    book.receipt(ids(one)[0], Receipt.CLICKED, "reg-other")
    assert book.states(ids(one)[0])["notification"][0] == "texted"
    assert book.rows("SELECT verdict FROM decisions") == [("wasted_sms",)]


def test_of_a_receipt_and_a_fallback_at_the_same_moment_one_wins(book: Book) -> None:
    many = batch(*["ada"] * 200, after=0)
    book.pushed(many)
    together = threading.Barrier(2)

    def both(id_: str) -> None:
        def fall_back() -> set[str]:
            together.wait()
            won = book.reserve(id_)
            return set(book(store.claim_steps, placed([id_]), LEASE)[0]) if won else set()

        with ThreadPoolExecutor(1) as pool:
            falling = pool.submit(fall_back)
            together.wait()
            book.receipt(id_)
            claimed = falling.result()
        state = book.states(id_)
        if claimed:
            assert state["sms"][0] == "sending"
        else:
            assert state["notification"] == ("reached", "reached_in_time")

    for id_ in ids(many):
        both(id_)


def test_a_receipt_whose_notification_never_came_is_forgotten_after_a_month(book: Book, clock: Clock) -> None:
    one, never = batch("ada"), batch("eve")
    book.pushed(one)
    for id_ in (*ids(one), *ids(never)):
        book.receipt(id_)
    assert book(removal.forget_orphans) == 0
    clock.advance(timedelta(days=30))
    assert book(removal.forget_orphans) == 0
    clock.advance(timedelta(days=2))
    assert book(removal.forget_orphans) == 1
    assert [str(id_) for (id_,) in book.rows("SELECT notification_id FROM events")] == ids(one)
