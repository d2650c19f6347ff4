"""Who is pushed to when a phone changes hands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, DeviceUnregistered, LoggedOutEverywhere, Platform, parse_batch
from knocktwice_worker.audience import forgetting, people
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from support.store_book import AT, HOUR, LEASE, Book, batch, ids

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import AudienceChange


def test_the_latest_owner_of_a_registration_keeps_it_in_whatever_order_the_news_comes(book: Book) -> None:
    later, earlier = AT + timedelta(minutes=2), AT + timedelta(minutes=1)
    book(people.apply, [DeviceRegistered("bob", "reg-ada", later)])
    book(people.apply, [DeviceRegistered("ada", "reg-ada", earlier), DeviceUnregistered("reg-ada", earlier)])
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'reg-ada'") == [("bob",)]


def test_logging_in_again_after_a_logout_registers_within_one_message(book: Book) -> None:
    out, in_again = AT + timedelta(minutes=1), AT + timedelta(minutes=2)
    book(people.apply, [DeviceUnregistered("reg-ada", out), DeviceRegistered("ada", "reg-ada", in_again)])
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'reg-ada'") == [("ada",)]


MINUTE = timedelta(minutes=1)
#: Mum logs in, the kid logs in on the same tablet, mum logs out, each a minute after the other.
TABLET = (
    DeviceRegistered("mum", "tablet", AT),
    DeviceRegistered("kid", "tablet", AT + MINUTE),
    DeviceUnregistered("tablet", AT + 2 * MINUTE, "mum"),
)
#: The same, but mum logs out before the kid logs in, and logs in once more at the end.
HANDED_BACK = (
    DeviceUnregistered("tablet", AT + MINUTE, "mum"),
    DeviceRegistered("kid", "tablet", AT + 2 * MINUTE),
    DeviceUnregistered("tablet", AT + 3 * MINUTE, "kid"),
    DeviceRegistered("mum", "tablet", AT + 4 * MINUTE),
)


@pytest.mark.parametrize(
    "order", list(permutations(TABLET)), ids=lambda order: "-".join(type(c).__name__ for c in order)
)
def test_a_logout_removes_a_device_only_from_who_logs_out_in_whatever_order_the_news_comes(
    book: Book, order: Sequence[AudienceChange]
) -> None:
    for change in order:
        book(people.apply, [change])
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'tablet'") == [("kid",)]


@pytest.mark.parametrize("order", list(permutations(HANDED_BACK)))
def test_the_last_to_log_in_has_the_device_in_whatever_order_the_news_comes(
    book: Book, order: Sequence[AudienceChange]
) -> None:
    for change in order:
        book(people.apply, [change])
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'tablet'") == [("mum",)]


def test_a_registration_that_arrives_after_a_later_logout_of_the_same_person_changes_nothing(book: Book) -> None:
    book(people.apply, [DeviceUnregistered("tablet", AT + MINUTE, "mum")])
    book(people.apply, [DeviceRegistered("mum", "tablet", AT)])
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'tablet'") == [(None,)]


EVERYWHERE = (
    DeviceRegistered("ada", "reg-old", AT + MINUTE),
    LoggedOutEverywhere("ada", AT + 2 * MINUTE),
    DeviceRegistered("ada", "reg-new", AT + 3 * MINUTE),
)


@pytest.mark.parametrize("order", list(permutations(EVERYWHERE)))
def test_logging_out_everywhere_takes_all_devices_from_before_in_whatever_order_the_news_comes(
    book: Book, order: Sequence[AudienceChange]
) -> None:
    for change in order:
        book(people.apply, [change])
    assert book.rows("SELECT registration FROM devices WHERE user_id = 'ada'") == [("reg-new",)]
    assert book.rows("SELECT user_id FROM devices WHERE registration = 'reg-bob'") == [("bob",)]


def test_a_trace_of_a_logout_is_forgotten_with_the_person_and_with_time(book: Book) -> None:
    book(people.apply, [DeviceUnregistered("tablet", AT - timedelta(days=91), "mum")])
    book(people.apply, [DeviceUnregistered("reg-ada", AT + MINUTE, "ada")])
    book(forgetting.forget, timedelta())
    assert book.rows("SELECT registration, left_user FROM devices ORDER BY 1") == [
        ("reg-ada", "ada"),
        ("reg-bob", None),
    ]


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
    book(
        store.record_push,
        [store.PushResult(work.notification_id, work.registration, AttemptState.SENT)],
        retry_for=HOUR,
    )
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


SAID = (
    DeviceRegistered("ada", "tablet", AT, locale="de", notifications_enabled=False, platform=Platform.ANDROID),
    DeviceRegistered("ada", "tablet", AT + MINUTE, locale="fr", time_zone="Europe/Paris"),
    DeviceRegistered("ada", "tablet", AT + 2 * MINUTE, app_version="2"),
)


@pytest.mark.parametrize("order", list(permutations(SAID)))
def test_a_change_says_only_what_it_says_in_whatever_order_the_news_comes(
    book: Book, order: Sequence[AudienceChange]
) -> None:
    for change in order:
        book(people.apply, [change])
    said = "user_id, platform, notifications_enabled, locale, time_zone, app_version, changed_at"
    assert book.rows(f"SELECT {said} FROM devices WHERE registration = 'tablet'") == [  # noqa: S608 - no input
        ("ada", "android", False, "fr", "Europe/Paris", "2", AT + 2 * MINUTE)
    ]
