"""Messages that their provider took, and failed later for what the operator must mend: sent again,
and never two arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.audience import opt_outs
from knocktwice_worker.channels.twilio.reports import read_callback
from knocktwice_worker.lifecycle import FAILED_LATER, DeliveryState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import failed_later, provider_reports
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.sandbox import Answer, Rule

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

NUMBER = "+16502530100"
SMS = [{"channel": "sms", "when": "not_clicked", "after_s": 0}]
UNREGISTERED = 30034


@dataclass
class Texted:
    """One notification whose SMS the provider has taken."""

    here: Services
    sandbox: Sandbox
    clock: Clock
    id: str

    @property
    def sids(self) -> list[str]:
        return [text.sid for text in self.sandbox.texts(NUMBER)]

    def report(self, status: str, *, of: int = 0, code: int | None = None) -> None:
        """Let Twilio call back about the n-th message, at the address that names its step."""
        form = {"MessageSid": self.sids[of], "MessageStatus": status}
        if code is not None:
            form["ErrorCode"] = str(code)
        said = read_callback(form, datetime.now(UTC), (self.id, 1))
        assert said is not None
        with self.here.engine.begin() as conn:
            provider_reports.accept(conn, [said])
        useless_after = self.here.settings.useless_after
        assert provider_reports.bring_and_take_up(self.here.engine, {said.provider_id}, useless_after) == 0

    def fails(self, *, of: int = 0) -> None:
        self.report("undelivered", of=of, code=UNREGISTERED)

    def later(self, **wait: float) -> None:
        """Do what is due after a while, as a worker would."""
        self.clock.advance(timedelta(**wait))
        rung: list[tuple[str, Any]] = []
        dispatch(self.here, lambda task, ids: rung.append((task, ids)))
        for task, ids in rung:
            if task == "knocktwice.send_sms":
                self.here.later_steps.send(ids)

    def receipt(self, kind: Receipt) -> None:
        with self.here.engine.begin() as conn:
            ids = store.record_receipts(conn, [ReceiptEvent(UUID(self.id), kind, datetime.now(UTC), "silent-1")])
        with self.here.engine.begin() as conn:
            store.settle_receipts(conn, ids)

    def states(self) -> tuple[str, ...]:
        query = """SELECT n.state, d.state, coalesce(d.provider_status, '') FROM notifications n
            JOIN deliveries d ON d.notification_id = n.id AND d.step = 1 WHERE n.id = :id"""
        with self.here.engine.connect() as conn:
            return tuple(conn.execute(sa.text(query), {"id": self.id}).one())

    def story(self) -> list[str]:
        with self.here.engine.connect() as conn:
            told = tell(conn, self.id)
        assert told is not None
        return [moment.sentence for moment in told.moments]


def _send(here: Services, **fields: Any) -> str:
    id_ = str(uuid7())
    person = {"id": id_, "registrations": ["silent-1"], "phone": NUMBER}
    content = {"push": {"title": "t", "body": f"b {id_}"}}
    wire = {"v": 1, "id": str(uuid7()), "content": content, "plan": SMS, "recipients": [person], **fields}
    here.pushes.send(parse_batch(wire))
    here.later_steps.send(here.fallback.check([id_]))
    return id_


@pytest.fixture
def texted(working: Services, sandbox: Sandbox, clock: Clock) -> Texted:
    return Texted(working, sandbox, clock, _send(working))


def test_it_is_sent_again_once_it_may_be_mended_and_counts_once(texted: Texted) -> None:
    assert texted.states() == ("texted", "sent", "")
    texted.fails()
    assert texted.states() == ("active", "reserved", "")
    assert texted.sids == texted.sids[:1]
    texted.later(seconds=59)
    assert len(texted.sids) == 1
    texted.later(seconds=2)
    assert len(texted.sids) == 2
    assert texted.states() == ("texted", "sent", "")
    texted.report("delivered", of=1)
    assert texted.states() == ("texted", "sent", "delivered")
    (line,) = [line for line in texted.story() if "sent it to nobody" in line]
    assert line.startswith("twilio had taken the SMS and sent it to nobody (Twilio 30034: the sender is not registered")
    assert line.endswith(": it is tried again, 1 of 5.")
    # One place in the limits, in Redis and in the rows by which Redis is counted again.
    query = "SELECT count(*) FROM deliveries WHERE number = :n AND counted_at IS NOT NULL"
    with texted.here.engine.connect() as conn:
        assert conn.execute(sa.text(query), {"n": NUMBER}).scalar_one() == 1


def test_the_limits_of_its_number_do_not_count_it_twice(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    most = working.settings.sms_per_day
    texted = [Texted(working, sandbox, clock, _send(working)) for _ in range(most)]
    texted[-1].report("failed", of=most - 1, code=30002)
    texted[-1].later(seconds=61)
    assert len(texted[-1].sids) == most + 1
    assert Texted(working, sandbox, clock, _send(working)).states()[:2] == ("suppressed", "skipped")


@pytest.mark.parametrize("again", [False, True], ids=["while it waits", "after it was sent again"])
@pytest.mark.parametrize("status", ["sent", "undelivered", "failed"])
def test_a_repeated_or_late_report_about_the_failed_message_is_not_about_the_next(
    texted: Texted, status: str, *, again: bool
) -> None:
    texted.fails()
    if again:
        texted.later(seconds=61)
    before = texted.states()
    texted.report(status, code=UNREGISTERED)
    assert texted.states() == before
    texted.later(hours=2)
    assert len(texted.sids) == 2


def test_a_message_that_has_arrived_after_all_is_not_sent_again(texted: Texted) -> None:
    texted.fails()
    texted.report("delivered")
    assert texted.states() == ("texted", "sent", "delivered")
    texted.later(hours=2)
    assert len(texted.sids) == 1
    # A failure that is reported after the delivery is weaker than it.
    texted.fails()
    assert texted.states() == ("texted", "sent", "delivered")


def test_an_arrival_that_comes_after_the_second_was_sent_is_a_receipt_and_no_more(texted: Texted) -> None:
    texted.fails()
    texted.later(seconds=61)
    texted.report("delivered")
    assert texted.states() == ("texted", "sent", "")
    texted.fails(of=1)
    assert texted.states() == ("texted", "sent", "undelivered")


@pytest.mark.parametrize("stop", ["click", "cancel", "opt-out"])
@pytest.mark.parametrize("before", [False, True], ids=["while it waits", "before the report"])
def test_what_was_answered_cancelled_or_opted_out_of_is_not_sent_again(
    texted: Texted, stop: str, *, before: bool
) -> None:
    if not before:
        texted.fails()
    if stop == "click":
        texted.receipt(Receipt.CLICKED)
    with texted.here.engine.begin() as conn:
        if stop == "cancel":
            store.cancel(conn, [texted.id], [], datetime.now(UTC))
        if stop == "opt-out":
            opt_outs.add(conn, [NUMBER], "test")
    if before:
        texted.fails()
    texted.later(seconds=61)
    assert len(texted.sids) == 1
    expected = {"click": "reached", "cancel": "cancelled", "opt-out": "suppressed"}[stop]
    if before and stop != "opt-out":
        # It had ended before, and stays so.
        assert texted.states() == ("texted", "sent", "undelivered")
    else:
        assert texted.states()[0] == expected


def test_it_is_tried_a_few_times_and_then_stays_undelivered(texted: Texted) -> None:
    for n in range(failed_later.MOST_AGAIN):
        texted.fails(of=n)
        assert texted.states()[0] == "active"
        texted.later(minutes=1 * 4**n + 1)
        assert len(texted.sids) == n + 2
    texted.fails(of=failed_later.MOST_AGAIN)
    assert texted.states() == ("texted", "sent", "undelivered")
    texted.later(hours=12)
    assert len(texted.sids) == failed_later.MOST_AGAIN + 1


def test_a_message_of_no_use_any_more_is_not_taken_up(texted: Texted) -> None:
    texted.clock.advance(timedelta(seconds=texted.here.settings.useless_after_transactional_s + 1))
    texted.fails()
    assert texted.states() == ("texted", "sent", "undelivered")


def test_one_that_waits_for_longer_than_it_is_of_use_ends_as_too_late(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    texted = Texted(working, sandbox, clock, _send(working, valid_for_s=60))
    texted.fails()
    texted.later(seconds=61)
    assert texted.states()[:2] == ("suppressed", "skipped")
    assert len(texted.sids) == 1


def test_a_plan_that_goes_on_does_so(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    plan = [*SMS, {"channel": "sms", "when": "not_delivered", "after_s": 3600}]
    texted = Texted(working, sandbox, clock, _send(working, plan=plan))
    texted.fails()
    assert texted.states() == ("active", "sent", "undelivered")
    query = "SELECT due_at <= knocktwice_now() FROM deliveries WHERE step = 2"
    with working.engine.connect() as conn:
        assert conn.execute(sa.text(query)).scalar_one()


def test_a_report_that_comes_before_the_answer_was_recorded_counts_too(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.rule(Rule("sms", times=1, answer=Answer(drop=True, accept=True)))
    texted = Texted(working, sandbox, clock, _send(working))
    assert texted.states()[1] == "sending"
    texted.fails()
    assert texted.states() == ("active", "reserved", "")
    texted.later(seconds=61)
    assert texted.states() == ("texted", "sent", "")
    assert len(texted.sids) == 2


def test_a_failure_that_only_the_providers_list_tells_counts_too(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    fails = Answer(statuses=("sent", "undelivered"), error_code=UNREGISTERED)
    sandbox.rule(Rule("sms", times=1, answer=fails))
    texted = Texted(working, sandbox, clock, _send(working))
    sandbox.wait_until(lambda: sandbox.texts(NUMBER)[0].status == "undelivered")
    clock.advance(timedelta(minutes=1))
    assert working.delivery_reports.read_lists() == 1
    assert texted.states() == ("active", "reserved", "")
    texted.later(minutes=1, seconds=1)
    assert texted.states() == ("texted", "sent", "")
    # The failed one is on the list still.
    working.delivery_reports.read_lists()
    assert texted.states()[:2] == ("texted", "sent")
    assert len(texted.sids) == 2


def test_the_failed_message_is_not_taken_for_the_next_one_whose_answer_was_lost(texted: Texted) -> None:
    texted.fails()
    texted.sandbox.rule(Rule("sms", times=1, answer=Answer(drop=True)))
    # So soon that the provider's list is read from before the first one.
    with texted.here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET wake_at = knocktwice_now() WHERE step = 1"))
    texted.later(seconds=1)
    assert texted.states()[1] == "sending"
    texted.clock.advance(timedelta(seconds=5))
    assert texted.here.reconcile.resolve([texted.id]) == []
    assert texted.states()[1] == "sending"


@pytest.mark.parametrize("code", [30001, 30002, 30010, 30022, 21408, 21704, 30454])
def test_codes_of_account_sender_and_region_are_the_operators(texted: Texted, code: int) -> None:
    texted.report("failed", code=code)
    assert texted.states()[:2] == ("active", "reserved")


@pytest.mark.parametrize("code", [30003, 30005, 30006, 30007, 30008, 21610, 21614, None])
def test_codes_of_number_and_text_are_not(texted: Texted, code: int | None) -> None:
    texted.report("undelivered", code=code)
    assert texted.states() == ("texted", "sent", "undelivered")


def test_a_person_who_was_erased_is_left_alone(texted: Texted) -> None:
    with texted.here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET number = NULL, text = NULL WHERE step = 1"))
    texted.fails()
    assert texted.states() == ("texted", "sent", "undelivered")


def test_only_what_was_sent_is_taken_up() -> None:
    assert {before for before, _ in FAILED_LATER} == {DeliveryState.SENT}
