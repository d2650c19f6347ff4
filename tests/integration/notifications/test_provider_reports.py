"""Callbacks from the provider's word to the rows: late, twice, shuffled, and while a sender still holds them."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import Step, When
from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications.store import provider_reports
from support.sent_messages import SentMessages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.services import Services
    from support.clock import Clock

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
SMS = Step("sms", When.NOT_CLICKED, timedelta(hours=1))
NUMBER = "+16505550100"


@pytest.fixture
def post(here: Services) -> SentMessages:
    return SentMessages(here)


def _heard(n: int, status: str, **facts: Any) -> StatusReport:
    return StatusReport("twilio", f"SM{n}", ProviderState(status), facts.pop("at", AT), **facts)


def _take(post: SentMessages, heard: Sequence[StatusReport]) -> int:
    """Take callbacks as the gateway does."""
    with post.here.engine.begin() as conn:
        provider_reports.accept(conn, heard)
    with post.here.engine.begin() as conn:
        return provider_reports.bring(conn, {c.provider_id for c in heard})


def _states(post: SentMessages) -> list[tuple[Any, ...]]:
    return post.rows(
        "SELECT provider_id, d.state, provider_status, provider_error, price, reported_at IS NOT NULL, n.state "
        "FROM deliveries d JOIN notifications n ON n.id = d.notification_id WHERE step = 1 ORDER BY provider_id"
    )


def test_a_storm_of_shuffled_and_tripled_callbacks_ends_as_the_ordered_ones_do(post: SentMessages) -> None:
    count = 2_500
    for first in range(0, count, 500):
        post.handed_over(SMS, people=500, first=first)
    journeys = [("sent", "delivered"), ("sent", "undelivered"), ("failed",), ("sent",), ("sent", "delivered", "read")]
    story = [
        _heard(n, status, error=30003 if status == "undelivered" else None, at=AT + timedelta(seconds=place))
        for n in range(count)
        for place, status in enumerate((*journeys[n % len(journeys)], "sent", "sent")[:4])
    ]
    assert len(story) >= 9_000
    storm = story * 3
    random.Random(7).shuffle(storm)
    for start in range(0, len(storm), 1_000):
        assert _take(post, storm[start : start + 1_000]) == 0
    stormy = _states(post)
    with post.here.engine.begin() as conn:
        conn.execute(
            sa.text(
                "UPDATE deliveries SET provider_status = NULL, provider_error = NULL, provider_status_at = NULL, reported_at = NULL"
            )
        )
        conn.execute(sa.text("DELETE FROM events"))
    for start in range(0, len(story), 1_000):
        _take(post, story[start : start + 1_000])
    assert _states(post) == stormy
    assert {row[2] for row in stormy} == {"sent", "delivered", "undelivered", "failed", "read"}
    assert post.rows("SELECT count(*) FROM provider_reports") == [(0,)]


def test_each_final_report_leaves_one_line_in_the_ledger(post: SentMessages) -> None:
    (id_,) = post.handed_over(SMS)
    for status in ("sent", "delivered", "delivered", "sent"):
        _take(post, [_heard(0, status)])
    lines = post.rows(
        "SELECT inputs FROM decisions WHERE verdict = 'delivery_report' AND notification_id = :id", id=id_
    )
    assert lines == [({"status": "delivered"},)]


def test_a_callback_that_comes_while_its_sender_holds_the_row_waits_for_it(post: SentMessages) -> None:
    (id_,) = post.handed_over(SMS)
    with post.here.senders.begin() as held:
        held.execute(sa.text("SELECT FROM deliveries WHERE notification_id = :id AND step = 1 FOR UPDATE"), {"id": id_})
        assert _take(post, [_heard(0, "delivered")]) == 1
        assert post.step(id_, 1)[2] is None
    with post.here.engine.begin() as conn:
        assert provider_reports.bring(conn) == 0
    assert post.step(id_, 1)[2] == "delivered"


def test_any_number_of_reports_that_are_not_ours_keep_none_of_ours_waiting(post: SentMessages) -> None:
    """An account that sends other messages, too, may report more of them than are brought at once."""
    (id_,) = post.handed_over(SMS)
    foreign = [_heard(n, "delivered") for n in range(1, provider_reports.LIMIT + 1)]
    with post.here.engine.begin() as conn:
        provider_reports.accept(conn, foreign)
        # In whatever order the table gives them, ours comes behind all of these.
        provider_reports.accept(conn, [replace(_heard(0, "delivered"), provider_id="SM~ours")])
        conn.execute(sa.text("UPDATE deliveries SET provider_id = 'SM~ours' WHERE step = 1"))
        conn.execute(
            sa.text(
                "UPDATE provider_reports SET received_at = received_at + interval '1 hour' WHERE provider_id = 'SM~ours'"
            )
        )
    for _ in range(100):
        with post.here.engine.begin() as conn:
            provider_reports.bring(conn)
        if post.step(id_, 1)[2] == "delivered":
            return
    raise AssertionError("1,000 others are always first")


def test_a_report_that_somebody_else_is_at_is_left_to_them(post: SentMessages) -> None:
    (id_,) = post.handed_over(SMS)
    with post.here.engine.begin() as conn:
        provider_reports.accept(conn, [_heard(0, "sent"), _heard(0, "delivered")])
    with post.here.senders.begin() as other:
        other.execute(sa.text("SELECT FROM provider_reports WHERE status = 'delivered' FOR UPDATE"))
        with post.here.engine.begin() as conn:
            conn.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
            assert provider_reports.bring(conn) == 0
        assert post.step(id_, 1)[2] == "sent"
    with post.here.engine.begin() as conn:
        assert provider_reports.bring(conn) == 0
    assert post.step(id_, 1)[2] == "delivered"
    assert post.rows("SELECT count(*) FROM provider_reports") == [(0,)]


def test_a_callback_names_the_message_whose_id_nobody_could_record(post: SentMessages) -> None:
    (id_,) = post.handed_over(SMS)
    with post.here.engine.begin() as conn:
        lost = "UPDATE deliveries SET state = 'sending', provider_id = NULL, finished_at = NULL, wake_at = knocktwice_now()"
        conn.execute(sa.text(lost + " WHERE step = 1"))
        conn.execute(sa.text("UPDATE notifications SET state = 'active', finished_at = NULL, reason = NULL"))
    assert _take(post, [_heard(9, "delivered", intent=(id_, 1))]) == 0
    assert _states(post) == [("SM9", "sent", "delivered", None, None, True, "texted")]


def test_reports_about_messages_that_are_not_ours_are_dropped_after_two_days(post: SentMessages, clock: Clock) -> None:
    assert _take(post, [_heard(5, "delivered")]) == 1
    clock.advance(timedelta(days=1))
    with post.here.engine.begin() as conn:
        assert provider_reports.forget(conn) == 0
        assert provider_reports.bring(conn) == 1
    clock.advance(timedelta(days=2))
    with post.here.engine.begin() as conn:
        assert provider_reports.forget(conn) == 1


@pytest.mark.parametrize(
    ("keep", "kept"), [(1, 7), (30, 30), (365, 365), (0, 7)], ids=["a day", "a month", "a year", "not at all"]
)
def test_what_people_wrote_is_kept_as_long_as_a_repeat_may_come(
    post: SentMessages, clock: Clock, keep: int, kept: int
) -> None:
    with post.here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText("SMin", NUMBER, Wish.START)], b"test")
    hour = timedelta(hours=1)
    clock.advance(timedelta(days=kept) - hour)
    with post.here.engine.begin() as conn:
        assert inbound_texts.forget(conn, timedelta(days=keep)) == 0
    clock.advance(2 * hour)
    with post.here.engine.begin() as conn:
        assert inbound_texts.forget(conn, timedelta(days=keep)) == 1


def test_a_price_that_comes_after_the_last_status_is_kept(post: SentMessages) -> None:
    post.handed_over(SMS)
    _take(post, [_heard(0, "delivered")])
    _take(post, [_heard(0, "delivered", price="0.0075", price_unit="USD")])
    _take(post, [_heard(0, "delivered")])
    assert [str(row[4]) for row in _states(post)] == ["0.0075"]
    assert post.rows("SELECT count(*) FROM decisions WHERE verdict = 'delivery_report'") == [(1,)]


def test_a_price_completes_a_report_that_still_waits_for_its_message(post: SentMessages) -> None:
    early = [_heard(0, "delivered"), _heard(0, "delivered", price="0.0075", price_unit="USD"), _heard(0, "delivered")]
    for one in early:
        with post.here.engine.begin() as conn:
            provider_reports.accept(conn, [one])
    post.handed_over(SMS)
    with post.here.engine.begin() as conn:
        provider_reports.bring(conn)
    assert [str(row[4]) for row in _states(post)] == ["0.0075"]


def test_a_report_whose_row_somebody_else_has_locked_is_left_to_them(post: SentMessages) -> None:
    post.handed_over(SMS, people=2)
    with post.here.engine.begin() as conn:
        provider_reports.accept(conn, [_heard(0, "delivered"), _heard(1, "delivered")])
    with post.here.engine.begin() as other, post.here.engine.begin() as conn:
        other.execute(sa.text("SELECT FROM provider_reports WHERE provider_id = 'SM0' FOR UPDATE"))
        conn.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        provider_reports.bring(conn, {"SM0", "SM1"})
    assert [row[2] for row in _states(post)] == [None, "delivered"]


@pytest.mark.parametrize("first", [True, False], ids=["the price first", "the price last"])
def test_of_two_reports_at_once_the_one_with_the_price_is_kept(post: SentMessages, first: bool) -> None:
    post.handed_over(SMS)
    priced = _heard(0, "delivered", price="0.0075", price_unit="USD")
    both = [priced, _heard(0, "delivered")]
    assert _take(post, both if first else both[::-1]) == 0
    assert [str(row[4]) for row in _states(post)] == ["0.0075"]


def test_an_opt_out_that_the_provider_reports_afterwards_reaches_the_list(post: SentMessages) -> None:
    post.handed_over(SMS)
    _take(post, [_heard(0, "failed", error=21610)])
    assert post.rows("SELECT number, source FROM opt_outs") == [(NUMBER, "provider")]


@pytest.mark.parametrize(("status", "error"), [("failed", 30003), ("undelivered", 30007), ("failed", None)])
def test_a_message_that_failed_for_another_reason_opts_nobody_out(
    post: SentMessages, status: str, error: int | None
) -> None:
    post.handed_over(SMS)
    _take(post, [_heard(0, status, error=error)])
    assert post.rows("SELECT provider_status, provider_error FROM deliveries WHERE step = 1") == [(status, error)]
    assert post.rows("SELECT number FROM opt_outs") == []


def test_who_has_come_back_since_is_not_opted_out_by_an_old_report(post: SentMessages) -> None:
    post.handed_over(SMS)
    with post.here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText("SMin", NUMBER, Wish.START)], b"test")
    _take(post, [_heard(0, "failed", error=21610)])
    assert post.rows("SELECT number FROM opt_outs") == []


def test_stop_start_and_a_stop_that_comes_again(post: SentMessages) -> None:
    def write(sid: str, wish: Wish) -> list[tuple[Any, ...]]:
        with post.here.engine.begin() as conn:
            inbound_texts.receive(conn, [InboundText(sid, NUMBER, wish)], b"test")
        return post.rows("SELECT number, source FROM opt_outs")

    assert write("SM1", Wish.STOP) == [(NUMBER, "sms")]
    assert write("SM2", Wish.HELP) == [(NUMBER, "sms")]
    assert write("SM3", Wish.START) == []
    # Replayed: it was answered before.
    assert write("SM1", Wish.STOP) == []


def test_an_operator_that_never_reports_leaves_the_delivery_unknown_and_the_notification_as_it_is(
    post: SentMessages, clock: Clock
) -> None:
    (id_,) = post.handed_over(SMS)
    _take(post, [_heard(0, "sent")])
    wait = timedelta(days=1)

    def close() -> int:
        with post.here.engine.begin() as conn:
            return provider_reports.close(conn, wait, provider_reports.unreported(conn, age=wait, limit=10))

    assert close() == 0
    clock.advance(wait)
    assert close() == 1
    assert close() == 0
    assert post.rows("SELECT verdict FROM decisions WHERE verdict LIKE 'delivery%'") == [("delivery_unknown",)]
    assert post.state(id_) == "texted"
    # It comes all the same.
    _take(post, [_heard(0, "delivered")])
    assert post.step(id_, 1)[2] == "delivered"
