"""accept: what becomes of a batch, once, whatever it is repeated with."""

from __future__ import annotations

import pytest

from knocktwice_shared.messages import When
from knocktwice_worker.notifications import store
from support.store_book import Book, batch, ids


def test_a_redelivered_batch_is_not_accepted_twice(book: Book) -> None:
    one = batch("ada", "bob")
    assert len(book.accept(one)) == 1
    assert book.accept(one) == []
    assert book.rows("SELECT count(*) FROM notifications") == [(2,)]


def test_a_key_notifies_once_and_the_repeat_says_why(book: Book) -> None:
    first, second = batch("ada", keys=["order-17"]), batch("ada", "bob", keys=["order-17", "order-18"])
    book.accept(first)
    book.accept(second)
    assert book.states(ids(second)[0])["notification"] == ("duplicate", f"key already used by {ids(first)[0]}")
    assert book.states(ids(second)[1])["notification"] == ("active", None)


def test_one_key_twice_in_a_batch_notifies_once(book: Book) -> None:
    twice = batch("ada", "ada", keys=["k", "k"])
    book.accept(twice)
    assert sorted(book.states(i)["notification"][0] for i in ids(twice)) == ["active", "duplicate"]


def test_who_has_no_device_falls_back_at_once(book: Book) -> None:
    one = batch("nobody")
    assert book.accept(one) == []
    assert book.states(ids(one)[0])["push"] == ("failed", "no_device")
    assert len(book(store.due, ids(one))) == 1


@pytest.mark.parametrize("when", list(When))
def test_who_has_notifications_off_falls_back_at_once_unless_the_step_asks_for_that(book: Book, when: When) -> None:
    one = batch("bob", when=when)
    assert book.accept(one) == []
    assert book.states(ids(one)[0])["push"] == ("skipped", "notifications_disabled")
    # What nobody can answer has nothing to wait for; the delay of trigger 0 is the caller's.
    assert len(book(store.due, ids(one))) == (0 if when is When.NOTIFICATIONS_DISABLED else 1)


@pytest.mark.parametrize(("user", "end"), [("nobody", "failed"), ("bob", "suppressed")])
def test_without_a_fallback_an_impossible_push_ends_the_notification(book: Book, user: str, end: str) -> None:
    one = batch(user, when=None)
    book.accept(one)
    assert book.states(ids(one)[0])["notification"][0] == end


def test_a_recipient_that_cannot_be_served_fails_with_the_reason(book: Book) -> None:
    one = batch("ada", "bob")
    book.accept(one, {ids(one)[0]: "content.push.body: 'name' is undefined"})
    assert book.states(ids(one)[0]) == {"notification": ("failed", "content.push.body: 'name' is undefined")}
    assert book.states(ids(one)[1])["notification"][0] == "active"
