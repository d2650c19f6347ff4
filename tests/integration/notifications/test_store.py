"""Every transition on a real PostgreSQL: who wins, what is left behind, and that nothing open is forgotten."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import (
    Batch,
    DeviceRegistered,
    DeviceUnregistered,
    PhoneBound,
    Receipt,
    ReceiptEvent,
    parse_batch,
)
from knocktwice_worker.audience import people
from knocktwice_worker.lifecycle import DeliveryState, Verdict
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from knocktwice_shared.messages import AudienceChange
    from knocktwice_worker.services import Services
    from support.clock import Clock

LEASE, TTL, HOUR = timedelta(minutes=1), timedelta(hours=1), timedelta(hours=1)
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def batch(*users: str, when: str | None = "not_delivered", after: float = 3600, keys: Sequence[str] = ()) -> Batch:
    return parse_batch(
        {
            "v": 1,
            "id": str(uuid7()),
            "content": {"push": {"title": "t", "body": "b"}},
            "plan": [{"channel": "sms", "when": when, "after_s": after}] if when else [],
            "recipients": [
                {"id": str(uuid7()), "user": user} | ({"key": keys[i]} if keys else {}) for i, user in enumerate(users)
            ],
        }
    )


def ids(of: Batch) -> list[str]:
    return [str(r.id) for r in of.recipients]


class Book:
    """The store with a transaction per call, and a look at its tables."""

    def __init__(self, here: Services) -> None:
        self.engine = here.engine

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self.engine.begin() as conn:
            return function(conn, *args, **kwargs)

    def accept(self, of: Batch, problems: dict[str, str] | None = None) -> list[store.PushWork]:
        work: list[store.PushWork] = self(store.accept, [store.Intake(of, problems or {}, TTL)], lease=LEASE)
        return work

    def pushed(self, of: Batch, *, state: str = "sent", **facts: Any) -> None:
        work = self.accept(of)
        self(store.record_push, [store.PushResult(*w, state=state, **facts) for w in work], retry_for=HOUR)

    def receipt(self, id_: str, kind: Receipt = Receipt.DELIVERED, registration: str = "reg-ada") -> None:
        self(store.record_receipts, [ReceiptEvent(UUID(id_), kind, AT, registration)])

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(sa.text(query), values)]

    def states(self, id_: str) -> dict[str, tuple[str, str | None]]:
        """Return ``{"notification": (state, reason), "push": …, "sms": …}``."""
        found = self.rows(
            "SELECT 'notification', state, reason FROM notifications WHERE id = CAST(:id AS uuid)", id=id_
        )
        found += self.rows(
            "SELECT channel, state, reason FROM deliveries WHERE notification_id = CAST(:id AS uuid)", id=id_
        )
        return {name: (state, reason) for name, state, reason in found}

    def reserve(self, *wanted: str) -> set[str]:
        won: set[str] = self(store.reserve, [store.Reservation(i, "+16505550100", "b", b"f") for i in wanted], LEASE)
        return won


@pytest.fixture
def book(here: Services) -> Book:
    made = Book(here)
    changes = [DeviceRegistered("ada", "reg-ada", AT), PhoneBound("ada", "+16505550100", AT)]
    changes += [
        DeviceRegistered("bob", "reg-bob", AT, notifications_enabled=False),
        PhoneBound("bob", "+16505550101", AT),
    ]
    made(people.apply, changes)
    return made


# -- accepting


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


def test_who_has_notifications_off_waits_for_the_delay(book: Book) -> None:
    one = batch("bob")
    assert book.accept(one) == []
    assert book.states(ids(one)[0])["push"] == ("skipped", "notifications_disabled")
    assert book(store.due, ids(one)) == []


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


# -- the push


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
    book(store.record_push, [store.PushResult(*w, state="rejected") for w in work], retry_for=HOUR)
    assert book.states(ids(one)[0])["notification"] == ("reached", "reached_in_time")
    assert book.rows("SELECT state, wake_at, due_at > knocktwice_now() FROM deliveries WHERE step = 1") == [
        ("skipped", None, True)
    ]


def test_one_device_that_takes_the_push_is_enough(book: Book) -> None:
    book(people.apply, [DeviceRegistered("ada", "reg-old", AT)])
    one = batch("ada")
    answers = {"reg-ada": "sent", "reg-old": "rejected"}
    work = book.accept(one)
    book(store.record_push, [store.PushResult(*w, state=answers[w.registration]) for w in work], retry_for=HOUR)
    assert book.states(ids(one)[0])["push"][0] == "sent"


def test_a_push_to_be_retried_rings_and_is_claimed_by_one(book: Book, clock: Clock) -> None:
    one = batch("ada")
    book.pushed(one, state="open", reason="quota", retry_after=timedelta(seconds=10))
    assert book.states(ids(one)[0])["push"][0] == "scheduled"
    assert book(store.ring, limit=10, lease=LEASE) == []
    clock.advance(timedelta(seconds=16))
    assert [(r.step, r.state) for r in book(store.ring, limit=10, lease=LEASE)] == [(0, "scheduled")]
    assert book(store.claim_push, ids(one), LEASE) == [(ids(one)[0], "reg-ada")]
    assert book(store.claim_push, ids(one), LEASE) == []


def test_a_push_whose_worker_died_rings_when_the_lease_is_over(book: Book, clock: Clock) -> None:
    one = batch("ada")
    book.accept(one)
    assert book(store.ring, limit=10, lease=LEASE) == []
    clock.advance(LEASE)
    assert [(r.step, r.state) for r in book(store.ring, limit=10, lease=LEASE)] == [(0, "scheduled")]


def test_a_push_whose_worker_died_is_dropped_once_its_notification_has_ended(book: Book, clock: Clock) -> None:
    one = batch("ada", after=10)
    (id_,) = ids(one)
    book.accept(one)
    clock.advance(timedelta(seconds=10))
    book.reserve(id_)
    claimed, at = book(store.claim_sms, [id_], LEASE)
    book(store.hold, claimed, at)
    book(store.record_sms, [store.SmsResult(id_, DeliveryState.SENT, provider_id="SM1")])
    clock.advance(LEASE)
    assert [(str(row.notification_id), row.step) for row in book(store.ring, limit=10, lease=LEASE)] == [(id_, 0)]
    assert book(store.claim_push, [id_], LEASE) == []
    assert book.states(id_)["push"] == ("skipped", "superseded")
    clock.advance(LEASE)
    assert not book(store.ring, limit=10, lease=LEASE)


@pytest.mark.parametrize("complete", [True, False], ids=["of all devices", "of some"])
def test_an_answer_that_comes_after_the_end_changes_nothing(book: Book, clock: Clock, complete: bool) -> None:
    one = batch("ada", when=None)
    (work,) = book.accept(one)
    clock.advance(LEASE)
    book(store.ring, limit=10, lease=LEASE)
    book(store.cancel, ids(one), [], AT)
    before = book.states(ids(one)[0])
    assert before == {"notification": ("cancelled", "cancelled"), "push": ("cancelled", "cancelled")}
    late = store.PushResult(*work, state="sent")
    book(store.record_push, [late], retry_for=HOUR, complete=complete)
    assert book.states(ids(one)[0]) == before
    assert book.rows("SELECT state FROM attempts") == [("sent",)]


def test_a_push_is_not_retried_for_ever(book: Book, clock: Clock) -> None:
    one = batch("ada", when=None)
    work = book.accept(one)
    clock.advance(HOUR)
    again = [store.PushResult(*w, state="open", reason="quota", retry_after=timedelta(seconds=1)) for w in work]
    book(store.record_push, again, retry_for=HOUR)
    assert book.states(ids(one)[0]) == {"notification": ("failed", "quota"), "push": ("failed", "quota")}


# -- the countdown


def test_a_row_rings_once_per_lease(book: Book, clock: Clock) -> None:
    one = batch("ada", after=7200)
    book.pushed(one)
    clock.advance(timedelta(hours=2))
    assert len(book(store.ring, limit=10, lease=LEASE)) == 1
    assert book(store.ring, limit=10, lease=LEASE) == []
    clock.advance(LEASE)
    assert len(book(store.ring, limit=10, lease=LEASE)) == 1


def test_a_check_that_comes_early_finds_nothing_due(book: Book, clock: Clock) -> None:
    one = batch("ada", after=7200)
    book.pushed(one)
    clock.advance(timedelta(hours=2) - timedelta(seconds=5))
    assert book(store.due, ids(one)) == []
    clock.advance(timedelta(seconds=5))
    assert len(book(store.due, ids(one))) == 1


def test_concurrent_dispatchers_share_the_rows(book: Book, clock: Clock) -> None:
    many = batch(*["ada"] * 200)
    book.pushed(many)
    clock.advance(HOUR)
    with ThreadPoolExecutor(8) as pool:
        rung = list(pool.map(lambda _: book(store.ring, limit=25, lease=LEASE), range(8)))
    got = [str(row.notification_id) for rows in rung for row in rows]
    assert sorted(got) == sorted(ids(many))


# -- the decision against receipts


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
    book(store.claim_sms, ids(one), LEASE)
    book.receipt(ids(one)[0])
    assert book.states(ids(one)[0])["sms"][0] == "sending"
    book(store.record_sms, [store.SmsResult(ids(one)[0], DeliveryState.SENT, provider_id="SM1")])
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
            return set(book(store.claim_sms, [id_], LEASE)[0]) if won else set()

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


# -- cancelling


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
    book(store.claim_sms, ids(one), LEASE)
    book(store.cancel, ids(one), [], AT)
    assert book.states(ids(one)[0])["sms"][0] == "sending"


def test_cancelling_leaves_a_push_alone_whose_sms_is_being_sent(book: Book) -> None:
    one = batch("ada", after=0)
    book.pushed(one, state="open", retry_after=timedelta(minutes=5))
    assert book.reserve(*ids(one)) == set(ids(one))
    book(store.claim_sms, ids(one), LEASE)
    book(store.cancel, ids(one), [], AT)
    assert {name: state for name, (state, _) in book.states(ids(one)[0]).items()} == {
        "notification": "active",
        "push": "scheduled",
        "sms": "sending",
    }
    book(store.record_sms, [store.SmsResult(ids(one)[0], DeliveryState.SENT, provider_id="SM1")])
    assert book.states(ids(one)[0])["notification"][0] == "texted"


# -- the SMS


def claimed(book: Book, one: Batch) -> datetime:
    book.pushed(one)
    assert book.reserve(*ids(one)) == set(ids(one))
    won, at = book(store.claim_sms, ids(one), LEASE)
    assert sorted(won) == ids(one)
    assert isinstance(at, datetime)
    return at


def test_only_one_sender_claims(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    assert book(store.claim_sms, ids(one), LEASE) == ([], None)


#: How senders claim with Twilio alone, and where there are several providers.
PLACEMENTS = pytest.mark.parametrize("placement", [None, store.Placement("acme", 0)], ids=["one", "several"])


def places(of: Batch, placement: store.Placement | None) -> dict[str, store.Placement] | None:
    return None if placement is None else dict.fromkeys(ids(of), placement)


@PLACEMENTS
def test_an_opt_out_between_reservation_and_claim_stops_the_sms(book: Book, placement: store.Placement | None) -> None:
    one = batch("ada", after=0)
    book.pushed(one)
    book.reserve(*ids(one))
    with book.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO opt_outs (number, source) VALUES ('+16505550100', 'stop')"))
    assert book(store.claim_sms, ids(one), LEASE, places(one, placement)) == ([], None)


@PLACEMENTS
def test_a_click_that_is_committed_before_the_claim_stops_the_sms(
    book: Book, placement: store.Placement | None
) -> None:
    one = batch("ada", after=0)
    book.pushed(one)
    book.reserve(*ids(one))
    with book.engine.begin() as conn:
        # Its writer died before it looked for what the click makes needless.
        insert = "INSERT INTO events (notification_id, kind, registration, at) VALUES (:id, 'clicked', 'reg-ada', :at)"
        conn.execute(sa.text(insert), {"id": ids(one)[0], "at": AT})
    assert book(store.claim_sms, ids(one), LEASE, places(one, placement)) == ([], None)


def test_a_choice_of_a_provider_that_is_old_claims_nothing(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    book(store.record_sms, [store.SmsResult(ids(one)[0], DeliveryState.RESERVED, wake_after=timedelta())])
    assert book(store.claim_sms, ids(one), LEASE, places(one, store.Placement("acme", 0))) == ([], None)
    won, _ = book(store.claim_sms, ids(one), LEASE, places(one, store.Placement("acme", 1)))
    assert won == ids(one)


def test_what_was_sent_meanwhile_stays_with_the_provider_that_sent_it(book: Book) -> None:
    one = batch("ada", after=0)
    book.pushed(one)
    book.reserve(*ids(one))
    book(store.claim_sms, ids(one), LEASE, places(one, store.Placement("acme", 0)))
    book(store.record_sms, [store.SmsResult(ids(one)[0], DeliveryState.SENT, provider_id="acme:1")])
    moved = store.SmsResult(ids(one)[0], DeliveryState.RESERVED, reason="busy", provider="twilio")
    book(store.record_sms, [moved])
    assert book.rows("SELECT state, provider, provider_id FROM deliveries WHERE step = 1") == [
        ("sent", "acme", "acme:1")
    ]


def test_a_refusal_that_comes_after_the_claim_changes_nothing(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    book(store.skip, [store.Decision(ids(one)[0], Verdict.OPTED_OUT, {})])
    assert book.states(ids(one)[0])["sms"] == ("sending", None)
    assert book.states(ids(one)[0])["notification"][0] == "active"
    assert book.rows("SELECT verdict FROM decisions") == []


def test_a_sender_that_lost_its_claim_cannot_send(book: Book, clock: Clock) -> None:
    one = batch("ada", after=0)
    first = claimed(book, one)
    book(store.record_sms, [store.SmsResult(ids(one)[0], DeliveryState.RESERVED, wake_after=timedelta())])
    clock.advance(timedelta(seconds=1))
    _, second = book(store.claim_sms, ids(one), LEASE)
    assert book(store.hold, ids(one), first) == []
    assert len(book(store.hold, ids(one), second)) == 1


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
            store.record_receipts(conn, [ReceiptEvent(UUID(ids(one)[0]), Receipt.CLICKED, AT, "reg-ada")])
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
    book(store.record_sms, [store.SmsResult(ids(one)[0], state, reason=reason)])
    assert book.states(ids(one)[0])["notification"] == end
    assert book.rows("SELECT number FROM opt_outs") == ([("+16505550100",)] if reason == "opted_out" else [])


def test_an_end_is_never_changed(book: Book) -> None:
    one = batch("ada", after=0)
    claimed(book, one)
    book(store.record_sms, [store.SmsResult(ids(one)[0], DeliveryState.SENT, provider_id="SM1")])
    before = book.states(ids(one)[0])
    book(store.record_sms, [store.SmsResult(ids(one)[0], DeliveryState.FAILED, reason="late")])
    book(store.cancel, ids(one), [], AT)
    book(store.skip, [store.Decision(ids(one)[0], Verdict.OPTED_OUT, {})])
    assert book.states(ids(one)[0]) == before


# -- people


def test_the_latest_owner_of_a_registration_keeps_it_in_whatever_order_the_news_comes(book: Book) -> None:
    later, earlier = AT + timedelta(minutes=2), AT + timedelta(minutes=1)
    book(people.apply, [DeviceRegistered("bob", "reg-ada", later)])
    book(people.apply, [DeviceRegistered("ada", "reg-ada", earlier), DeviceUnregistered("reg-ada", earlier)])
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'reg-ada'") == [("bob",)]


def test_logging_in_again_after_a_logout_registers_within_one_message(book: Book) -> None:
    out, in_again = AT + timedelta(minutes=1), AT + timedelta(minutes=2)
    book(people.apply, [DeviceUnregistered("reg-ada", out), DeviceRegistered("ada", "reg-ada", in_again)])
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'reg-ada'") == [("ada",)]


def test_nobody_is_pushed_to_on_a_device_that_logged_out(book: Book) -> None:
    book(people.apply, [DeviceUnregistered("reg-ada", AT + timedelta(minutes=1))])
    assert book.accept(batch("ada")) == []


def test_a_device_with_a_clock_in_the_future_can_still_log_out(book: Book) -> None:
    book(people.apply, [DeviceRegistered("ada", "reg-future", datetime(2100, 1, 1, tzinfo=UTC))])
    book(people.apply, [DeviceUnregistered("reg-future", datetime.now(UTC) + timedelta(minutes=1))])
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'reg-future'") == [(None,)]


# -- a phone changes hands


@pytest.mark.parametrize(
    "change", [DeviceRegistered("bob", "reg-ada", AT + HOUR), DeviceUnregistered("reg-ada", AT + HOUR)]
)
def test_a_push_that_waits_is_not_shown_to_whoever_has_the_phone_now(book: Book, change: AudienceChange) -> None:
    of = batch("ada", after=3600)
    book.pushed(of, state="open", reason="QUOTA_EXCEEDED", retry_after=timedelta(seconds=1))
    book(people.apply, [change])
    assert book(store.claim_push, ids(of), LEASE) == []
    assert book.states(ids(of)[0])["push"] == ("failed", "device_moved")
    ((due,),) = book.rows("SELECT due_at <= knocktwice_now() FROM deliveries WHERE step = 1")
    assert due, "the SMS has nothing to wait for"


def test_her_other_phone_still_gets_it(book: Book) -> None:
    book(people.apply, [DeviceRegistered("ada", "reg-ada-2", AT)])
    of = batch("ada", after=3600)
    book.pushed(of, state="open", reason="QUOTA_EXCEEDED", retry_after=timedelta(seconds=1))
    book(people.apply, [DeviceRegistered("bob", "reg-ada", AT + HOUR)])
    (work,) = book(store.claim_push, ids(of), LEASE)
    assert work.registration == "reg-ada-2"
    book(store.record_push, [store.PushResult(work.notification_id, work.registration, "sent")], retry_for=HOUR)
    assert book.states(ids(of)[0])["push"] == ("sent", None)


def test_a_registration_given_inline_is_the_applications_to_know(book: Book) -> None:
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "recipients": [{"id": str(uuid7()), "registrations": ["reg-ada"]}],
    }
    of = parse_batch(wire)
    book.pushed(of, state="open", reason="QUOTA_EXCEEDED", retry_after=timedelta(seconds=1))
    book(people.apply, [DeviceRegistered("bob", "reg-ada", AT + HOUR)])
    assert [w.registration for w in book(store.claim_push, ids(of), LEASE)] == ["reg-ada"]


def test_a_phone_that_changes_hands_is_asked_for_the_new_owner_only(book: Book) -> None:
    book(people.apply, [DeviceRegistered("bob", "reg-ada", AT + HOUR)])
    assert [w.registration for w in book.accept(batch("ada"))] == []
    assert [w.registration for w in book.accept(batch("bob"))] == ["reg-ada"]
    # A registration of the old owner's that arrives late changes nothing.
    book(people.apply, [DeviceRegistered("ada", "reg-ada", AT + HOUR / 2)])
    assert [w.registration for w in book.accept(batch("bob"))] == ["reg-ada"]
