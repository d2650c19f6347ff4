"""What the provider reports afterwards: any order, any number of times, the same rows;
and what it means for the next step.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import Receipt, ReceiptEvent, Step, When
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.lifecycle import DeliveryState, ProviderState
from knocktwice_worker.notifications import store
from support.sent_messages import HOUR, SentMessages

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
WHATSAPP = Step("whatsapp", When.NOT_DELIVERED, HOUR, content={"content_sid": "HX" + "0" * 32})
SMS = Step("sms", When.NOT_CLICKED, HOUR)


@pytest.fixture
def post(here: Services) -> SentMessages:
    return SentMessages(here)


def _report(n: int, status: ProviderState, **facts: Any) -> StatusReport:
    return StatusReport("twilio", f"SM{n}", status, AT, **facts)


def test_a_whatsapp_message_that_was_read_ends_the_plan(post: SentMessages) -> None:
    (id_,) = post.handed_over(WHATSAPP, SMS)
    assert post.report([_report(0, ProviderState.READ)]) == set()
    assert post.state(id_) == "reached"
    assert post.step(id_, 1) == ("sent", None, "read")
    assert post.step(id_, 2) == ("skipped", "reached_in_time", None)


def test_one_that_was_delivered_leaves_an_sms_that_waits_for_a_click(post: SentMessages) -> None:
    (id_,) = post.handed_over(WHATSAPP, SMS)
    post.report([_report(0, ProviderState.DELIVERED)])
    assert post.state(id_) == "active"
    assert post.step(id_, 2)[0] == "scheduled"


def test_one_that_was_delivered_ends_an_sms_that_waits_for_that(post: SentMessages) -> None:
    (id_,) = post.handed_over(WHATSAPP, replace(SMS, when=When.NOT_DELIVERED))
    post.report([_report(0, ProviderState.DELIVERED)])
    assert post.state(id_) == "reached"


def test_a_push_that_arrives_late_does_not_speak_for_the_message_behind_it(post: SentMessages) -> None:
    (id_,) = post.handed_over(WHATSAPP, replace(SMS, when=When.NOT_DELIVERED))
    with post.here.engine.begin() as conn:
        store.settle_receipts(conn, store.record_receipts(conn, [ReceiptEvent(UUID(id_), Receipt.DELIVERED, AT)]))
    assert post.step(id_, 2)[0] == "scheduled"


@pytest.mark.parametrize("status", [ProviderState.UNDELIVERED, ProviderState.FAILED])
def test_one_that_will_not_arrive_makes_the_next_step_due_at_once(post: SentMessages, status: ProviderState) -> None:
    (id_,) = post.handed_over(WHATSAPP, SMS)
    with post.here.engine.begin() as conn:
        assert not store.due(conn, [id_])
    post.report([_report(0, status, error=63024)])
    with post.here.engine.begin() as conn:
        (row,) = store.due(conn, [id_])
    assert (row.step, row.provider_status) == (2, status)


@pytest.mark.parametrize(
    ("cancelled", "ends", "step"),
    [(False, "reached", ("skipped", "reached_in_time", None)), (True, "texted", ("cancelled", "cancelled", None))],
    ids=["a click", "a cancellation"],
)
def test_what_comes_while_a_step_is_sent_ends_the_next_one_at_once(
    post: SentMessages, cancelled: bool, ends: str, step: tuple[Any, ...]
) -> None:
    (id_,) = post.handed_over(WHATSAPP, SMS, SMS)
    post.claimed([id_])
    with post.here.engine.begin() as conn:
        if cancelled:
            store.cancel(conn, [id_], [], AT)
        else:
            store.settle_receipts(
                conn, store.record_receipts(conn, [ReceiptEvent(UUID(id_), Receipt.CLICKED, AT, "r0")])
            )
    assert post.state(id_) == "active"
    post.sent([id_], first=1)
    assert post.step(id_, 2)[0] == "sent"
    assert post.step(id_, 3) == step
    assert post.state(id_) == ends


@pytest.mark.parametrize("status", [ProviderState.DELIVERED, ProviderState.READ])
def test_a_message_that_arrives_was_not_wasted(post: SentMessages, status: ProviderState) -> None:
    (id_,) = post.handed_over(WHATSAPP)
    post.report([_report(0, status)])
    assert post.state(id_) == "texted"
    assert post.rows("SELECT verdict FROM decisions WHERE verdict = 'wasted_sms'") == []


def test_a_report_about_a_step_that_nobody_has_sent_changes_nothing(post: SentMessages) -> None:
    (id_,) = post.handed_over(WHATSAPP, SMS)
    assert post.report([StatusReport("twilio", "SM9", ProviderState.DELIVERED, AT, intent=(id_, 2))]) == {"SM9"}
    assert post.step(id_, 2) == ("scheduled", None, None)
    assert post.rows("SELECT count(*) FROM events") == [(0,)]


def test_one_that_will_not_arrive_brings_nothing_back_that_is_over(post: SentMessages) -> None:
    (id_,) = post.handed_over(WHATSAPP, SMS)
    with post.here.engine.begin() as conn:
        store.settle_receipts(conn, store.record_receipts(conn, [ReceiptEvent(UUID(id_), Receipt.CLICKED, AT, "r0")]))
    post.report([_report(0, ProviderState.UNDELIVERED)])
    assert post.state(id_) == "reached"
    rows = post.rows("SELECT state, wake_at, due_at > knocktwice_now() FROM deliveries WHERE step = 2")
    assert rows == [("skipped", None, True)]


def test_of_two_messages_that_claim_one_delivery_one_is_its_own(post: SentMessages) -> None:
    (id_,) = post.handed_over(SMS)
    with post.here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET provider_id = NULL WHERE step = 1"))
    twice = [_report(n, ProviderState.DELIVERED, intent=(id_, 1)) for n in (7, 8)]
    (other,) = post.report(twice)
    ((own,),) = post.rows("SELECT provider_id FROM deliveries WHERE step = 1")
    assert {own, other} == {"SM7", "SM8"}
    assert post.report(twice) == {other}
    assert post.step(id_, 1)[2] == "delivered"
    assert post.rows("SELECT count(*) FROM events WHERE step = 1") == [(1,)]


def test_one_that_will_not_arrive_does_not_hurry_what_waits_for_another(post: SentMessages) -> None:
    (id_,) = post.handed_over(WHATSAPP, SMS, SMS)
    post.claimed([id_])
    post.sent([id_], first=1)
    waits = "SELECT due_at > knocktwice_now() FROM deliveries WHERE notification_id = :id AND step = 3"
    post.report([_report(0, ProviderState.UNDELIVERED)])
    assert post.rows(waits, id=id_) == [(True,)]
    post.report([_report(1, ProviderState.UNDELIVERED)])
    assert post.rows(waits, id=id_) == [(False,)]


def test_one_that_is_read_after_the_sms_shows_that_the_sms_was_wasted(post: SentMessages) -> None:
    (id_,) = post.handed_over(WHATSAPP, SMS)
    post.claimed([id_])
    with post.here.engine.begin() as conn:
        store.record_steps(conn, [store.StepResult(id_, DeliveryState.SENT, provider_id="SM-next")])
    # What becomes of the SMS itself wastes nothing.
    post.report([StatusReport("twilio", "SM-next", ProviderState.DELIVERED, AT)])
    assert post.rows("SELECT count(*) FROM decisions WHERE verdict = 'wasted_sms'") == [(0,)]
    post.report([_report(0, ProviderState.READ)])
    assert post.rows("SELECT step FROM decisions WHERE verdict = 'wasted_sms'") == [(2,)]
    assert post.state(id_) == "texted"


def test_an_unknown_message_is_named_so_that_its_report_can_be_brought_again(post: SentMessages) -> None:
    post.handed_over(WHATSAPP, SMS)
    assert post.report([_report(0, ProviderState.SENT), _report(7, ProviderState.READ)]) == {"SM7"}


def test_a_callback_adopts_a_message_whose_sender_died(post: SentMessages) -> None:
    (id_,) = post.handed_over(SMS, SMS)
    post.claimed([id_])
    assert post.report([StatusReport("twilio", "SM9", ProviderState.DELIVERED, AT, intent=(id_, 2))]) == set()
    assert post.step(id_, 2) == ("sent", "the provider called back about it", "delivered")
    assert post.state(id_) == "texted"


def test_a_message_that_a_sender_holds_is_not_waited_for(post: SentMessages) -> None:
    (id_,) = post.handed_over(SMS, SMS)
    post.claimed([id_])
    report = StatusReport("twilio", "SM9", ProviderState.DELIVERED, AT, intent=(id_, 2))
    with post.here.engine.begin() as sender:
        sender.execute(sa.text("SELECT FROM deliveries WHERE step = 2 FOR UPDATE"))
        assert post.report([report]) == {"SM9"}
    assert post.report([report]) == set()


def test_a_callback_cannot_take_over_a_message_that_has_another_id(post: SentMessages) -> None:
    (id_,) = post.handed_over(SMS)
    assert post.report([StatusReport("twilio", "SM9", ProviderState.FAILED, AT, intent=(id_, 1))]) == {"SM9"}
    assert post.step(id_, 1) == ("sent", None, None)


def test_shuffled_and_tripled_reports_end_in_the_same_rows(post: SentMessages) -> None:
    lives = [
        (ProviderState.SENT, ProviderState.DELIVERED, ProviderState.READ),
        (ProviderState.SENT, ProviderState.UNDELIVERED),
        (ProviderState.SENT, ProviderState.DELIVERED),
        (ProviderState.FAILED,),
        (),
    ]
    ids = post.handed_over(WHATSAPP, SMS, people=100)
    reports = [_report(n, status) for n in range(len(ids)) for status in lives[n % len(lives)]] * 3
    random.Random(7).shuffle(reports)
    for first in range(0, len(reports), 50):
        assert post.report(reports[first : first + 50]) == set()
    for n, id_ in enumerate(ids):
        life = lives[n % len(lives)]
        assert post.step(id_, 1)[2] == (life[-1] if life else None)
        assert post.state(id_) == ("reached" if ProviderState.READ in life else "active")
    due = post.rows("SELECT notification_id FROM deliveries WHERE step = 2 AND due_at <= knocktwice_now()")
    assert len(due) == 40
