"""claim_steps, hold, record_steps and skip: one sender per message, and an end that stays."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import Batch, Receipt, ReceiptEvent
from knocktwice_worker.lifecycle import DeliveryState, NotificationState, Refusal
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import ends
from support.sent_messages import placed
from support.store_book import AT, LEASE, Book, batch, ids

if TYPE_CHECKING:
    from support.clock import Clock


def claimed(book: Book, one: Batch) -> datetime:
    book.pushed(one)
    assert book.reserve(*ids(one)) == set(ids(one))
    won, at = book(store.claim_steps, placed(ids(one)), LEASE)
    assert sorted(won) == ids(one)
    assert isinstance(at, datetime)
    return at


def test_only_one_sender_claims(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    # Neither one that has seen the message before the first, nor one that has seen it since.
    for tries in (0, 1):
        assert book(store.claim_steps, placed(ids(one), tries), LEASE) == ([], None)


def places(of: Batch, placement: store.Placement) -> dict[str, store.Placement]:
    return dict.fromkeys(ids(of), placement)


def test_an_opt_out_between_reservation_and_claim_stops_the_sms(book: Book) -> None:
    one = batch("ada", after=0)
    book.pushed(one)
    book.reserve(*ids(one))
    with book.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO opt_outs (number, source) VALUES ('+16505550100', 'stop')"))
    assert book(store.claim_steps, placed(ids(one)), LEASE) == ([], None)
    # Its end is written at the next look, which does not wait for the lease.
    assert book.rows("SELECT wake_at <= knocktwice_now() FROM deliveries WHERE step = 1") == [(True,)]


def test_a_click_that_is_committed_before_the_claim_stops_the_sms(book: Book) -> None:
    one = batch("ada", after=0)
    book.pushed(one)
    book.reserve(*ids(one))
    with book.engine.begin() as conn:
        # Its writer died before it looked for what the click makes needless.
        insert = "INSERT INTO events (notification_id, kind, registration, at) VALUES (:id, 'clicked', 'reg-ada', :at)"
        conn.execute(sa.text(insert), {"id": ids(one)[0], "at": AT})
    assert book(store.claim_steps, placed(ids(one)), LEASE) == ([], None)


def test_a_choice_of_a_provider_that_is_old_claims_nothing(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    book(store.record_steps, [store.StepResult(ids(one)[0], DeliveryState.RESERVED, wake_after=timedelta())])
    assert book(store.claim_steps, places(one, store.Placement("acme", 0)), LEASE) == ([], None)
    won, _ = book(store.claim_steps, places(one, store.Placement("acme", 1)), LEASE)
    assert won == ids(one)


def test_what_was_sent_meanwhile_stays_with_the_provider_that_sent_it(book: Book) -> None:
    one = batch("ada", after=0)
    book.pushed(one)
    book.reserve(*ids(one))
    book(store.claim_steps, places(one, store.Placement("acme", 0)), LEASE)
    book(store.record_steps, [store.StepResult(ids(one)[0], DeliveryState.SENT, provider_id="acme:1")])
    moved = store.StepResult(ids(one)[0], DeliveryState.RESERVED, reason="busy", provider="twilio")
    book(store.record_steps, [moved])
    assert book.rows("SELECT state, provider, provider_id FROM deliveries WHERE step = 1") == [
        ("sent", "acme", "acme:1")
    ]


def test_a_refusal_that_comes_after_the_claim_changes_nothing(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    book(store.skip, [store.Decision(ids(one)[0], Refusal.OPTED_OUT, {})])
    assert book.states(ids(one)[0])["sms"] == ("sending", None)
    assert book.states(ids(one)[0])["notification"][0] == "active"
    assert book.rows("SELECT verdict FROM decisions") == []


def test_a_sender_that_lost_its_claim_cannot_send(book: Book, clock: Clock) -> None:
    one = batch("ada", after=0)
    first = claimed(book, one)
    book(store.record_steps, [store.StepResult(ids(one)[0], DeliveryState.RESERVED, wake_after=timedelta())])
    clock.advance(timedelta(seconds=1))
    _, second = book(store.claim_steps, placed(ids(one), tries=1), LEASE)
    assert book(store.hold, ids(one), first) == []
    assert len(book(store.hold, ids(one), second)) == 1


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ("UPDATE phones SET consented_at = now()", (True, True)),
        ("UPDATE phones SET number = '+16505550199' WHERE user_id = 'ada'", (False, False)),
        ("DELETE FROM phones WHERE user_id = 'ada'", (False, False)),
    ],
)
def test_what_was_said_of_a_person_after_the_claim_is_seen(book: Book, change: str, facts: tuple[bool, bool]) -> None:
    one = batch("ada", after=0)
    at = claimed(book, one)
    assert [(row.theirs, row.consented) for row in book(store.hold, ids(one), at)] == [(True, False)]
    with book.engine.begin() as conn:
        conn.execute(sa.text(change))
    assert [(row.theirs, row.consented) for row in book(store.hold, ids(one), at)] == [facts]
    assert [(row.theirs, row.consented) for row in book(store.peek, ids(one))] == [facts]


def test_nobody_reconciles_under_a_living_sender(book: Book, clock: Clock) -> None:
    one = batch("ada", after=0)
    at = claimed(book, one)
    clock.advance(LEASE)
    with book.engine.begin() as sender:
        assert len(store.hold(sender, ids(one), at)) == 1
        assert book(store.unresolved, ids(one), LEASE) == []
    assert len(book(store.unresolved, ids(one), LEASE)) == 1


def test_a_receipt_does_not_wait_for_a_sender_at_work(book: Book) -> None:
    one = batch("ada", after=0)
    at = claimed(book, one)
    with book.engine.begin() as sender:
        store.hold(sender, ids(one), at)
        with book.engine.begin() as conn:
            conn.execute(sa.text("SET LOCAL lock_timeout = '1s'"))
            store.settle_receipts(
                conn, store.record_receipts(conn, [ReceiptEvent(UUID(ids(one)[0]), Receipt.CLICKED, AT, "reg-ada")])
            )
    assert book.states(ids(one)[0])["sms"] == ("sending", None)


def test_nobody_reconciles_before_the_lease_is_over(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    assert book(store.unresolved, ids(one), LEASE) == []


@pytest.mark.parametrize(
    ("state", "reason", "end"),
    [
        (DeliveryState.SENT, None, ("texted", "sms accepted by the provider")),
        (DeliveryState.FAILED, "invalid_number", ("failed", "invalid_number")),
        (DeliveryState.FAILED, "opted_out", ("suppressed", "opted_out")),
        (DeliveryState.UNKNOWN, "timeout", ("unknown", "timeout")),
    ],
)
def test_the_providers_answer_ends_the_notification(
    book: Book, state: DeliveryState, reason: str | None, end: tuple[str, str]
) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    book(store.record_steps, [store.StepResult(ids(one)[0], state, reason=reason, opted_out=reason == "opted_out")])
    assert book.states(ids(one)[0])["notification"] == end
    assert book.rows("SELECT number FROM opt_outs") == ([("+16505550100",)] if reason == "opted_out" else [])


@pytest.mark.parametrize("state", [s for s in NotificationState if s is not NotificationState.ACTIVE])
def test_of_two_ends_the_first_stays(book: Book, state: NotificationState) -> None:
    one = batch("ada", after=0)
    (id_,) = ids(one)
    book.pushed(one)
    book(ends.finish, [ends.End(id_, state, "first")])
    ended = book.rows("SELECT state, reason, finished_at FROM notifications")
    book(ends.finish, [ends.End(id_, NotificationState.TEXTED, "second")])
    assert book.rows("SELECT state, reason, finished_at FROM notifications") == ended


def test_an_end_is_never_changed(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    book(store.record_steps, [store.StepResult(ids(one)[0], DeliveryState.SENT, provider_id="SM1")])
    before = book.states(ids(one)[0])
    book(store.record_steps, [store.StepResult(ids(one)[0], DeliveryState.FAILED, reason="late")])
    book(store.cancel, ids(one), [], AT)
    book(store.skip, [store.Decision(ids(one)[0], Refusal.OPTED_OUT, {})])
    assert book.states(ids(one)[0]) == before
