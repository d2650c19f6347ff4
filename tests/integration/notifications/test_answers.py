"""Answers that are no clicks on the push: replies to messages, and receipts that it was seen elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, When, parse_batch
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.evidence import whatif
from knocktwice_worker.evidence.whatif import Rules
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import receipts, replies
from knocktwice_worker.notifications.store.receipts import Event, insert_events
from knocktwice_worker.reporting.story import tell
from support.sent_messages import placed

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

NUMBER, OURS, OTHER = "+16505550100", "+15005550006", "+15005550009"


def _send(here: Services, *plan: tuple[str, int], sender: str | None = None) -> str:
    """Send a push with SMS behind it, each with its condition and its delay in seconds; they say their place."""
    id_ = str(uuid7())
    steps = [
        {"channel": "sms", "when": when, "after_s": after_s, "text": f"{id_} {place}"}
        for place, (when, after_s) in enumerate(plan, 1)
    ]
    wire = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "plan": [{**step, **({} if sender is None else {"sender": sender})} for step in steps],
        "recipients": [{"id": id_, "registrations": ["silent-phone"], "phone": NUMBER}],
    }
    here.pushes.send(parse_batch(wire))
    return id_


def _write(here: Services, words: str = "yes, at nine", *, to: str = OURS, wish: Wish | None = None) -> list[str]:
    """Write to one of our senders, and return the notifications that it answers, which are not settled yet."""
    text = InboundText(f"SM{uuid7().hex}", NUMBER, wish, words, "twilio", "sms", to)
    with here.engine.begin() as conn:
        return replies.receive(conn, [text], b"test", here.channels, here.settings.reply_within)


def _see(here: Services, id_: str) -> None:
    receipts.record(here.engine, [ReceiptEvent(UUID(id_), Receipt.SEEN, datetime.now(UTC))])


def _read(here: Services, id_: str, step: int = 1) -> None:
    """Note that the provider reported a message as read."""
    with here.engine.begin() as conn:
        insert_events(conn, [Event(id_, "clicked", "SM-of-the-message", datetime.now(UTC), step)])
    receipts.settle(here.engine, [id_])


def _due(here: Services, clock: Clock, id_: str, seconds: int = 61) -> None:
    clock.advance(timedelta(seconds=seconds))
    here.later_steps.send(here.fallback.check([id_]))


def _stands(here: Services, id_: str) -> tuple[str, list[tuple[str, str | None]]]:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
        rows = conn.execute(
            sa.text("SELECT state, reason FROM deliveries WHERE notification_id = :id AND step > 0 ORDER BY step"),
            {"id": id_},
        )
        assert told is not None
        return told.state, [(row.state, row.reason) for row in rows]


SENT, ANSWERED = ("sent", None), ("skipped", "reached_in_time")


def test_a_reply_ends_the_plan_that_waits_for_an_answer(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    id_ = _send(working, ("not_delivered", 60), ("not_answered", 600), ("not_clicked", 600))
    _due(working, clock, id_)
    answered = _write(working)
    assert answered == [id_]
    receipts.settle(working.engine, answered)
    assert _stands(working, id_) == ("reached", [SENT, ANSWERED])
    with working.engine.connect() as conn:
        told = tell(conn, id_)
        assert told is not None
        assert "The person replied to the SMS." in [moment.sentence for moment in told.moments]
        assert str(conn.scalar(sa.text("SELECT answers FROM inbound_texts"))) == id_
    assert len(sandbox.texts(NUMBER)) == 1


@pytest.mark.parametrize(("hours", "about"), [(1, True), (25, True), (49, True), (71, True), (73, False)])
def test_a_reply_is_about_the_newest_message_of_the_last_three_days(
    working: Services, clock: Clock, hours: int, about: bool
) -> None:
    id_ = _send(working, ("not_delivered", 60))
    _due(working, clock, id_)
    clock.advance(timedelta(hours=hours))
    _write(working)
    with working.engine.connect() as conn:
        answers = conn.scalar(sa.text("SELECT answers FROM inbound_texts"))
    assert answers == (id_ if about else None)


def test_a_reply_counts_from_the_moment_at_which_it_was_kept(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    decided = _send(working, ("not_delivered", 60), ("not_answered", 60))
    _due(working, clock, decided)
    # The gateway dies before it settles the reply. The step is due, and its decision finds the answer.
    assert _write(working) == [decided]
    _due(working, clock, decided)
    assert _stands(working, decided) == ("reached", [SENT, ANSWERED])
    held = _send(working, ("not_delivered", 60), ("not_answered", 60))
    _due(working, clock, held)
    clock.advance(timedelta(seconds=61))
    reserved = working.fallback.check([held])
    assert reserved == [held]
    assert _write(working) == [held]
    working.later_steps.send(reserved)
    assert len(sandbox.texts(NUMBER)) == 2
    receipts.settle(working.engine, [held])
    assert _stands(working, held) == ("reached", [SENT, ANSWERED])
    with working.engine.connect() as conn:
        found = whatif.compare(conn, timedelta(days=1), Rules())
    assert found.decisions >= 4
    assert found.differing == []


@pytest.mark.parametrize("wish", [Wish.STOP, Wish.START, Wish.HELP])
def test_a_word_about_texts_answers_nothing(working: Services, sandbox: Sandbox, clock: Clock, wish: Wish) -> None:
    id_ = _send(working, ("not_delivered", 60), ("not_answered", 60))
    _due(working, clock, id_)
    assert _write(working, wish.value, wish=wish) == []
    _due(working, clock, id_)
    opted_out = wish is Wish.STOP
    assert _stands(working, id_)[1][1] == (("skipped", "opted_out") if opted_out else SENT)
    assert len(sandbox.texts(NUMBER)) == 2 - opted_out


def test_a_reply_is_about_the_newest_message_from_its_sender_within_a_time(working: Services, clock: Clock) -> None:
    older = _send(working, ("not_delivered", 60), ("not_answered", 86_400))
    _due(working, clock, older)
    newer = _send(working, ("not_delivered", 60), ("not_answered", 86_400))
    _due(working, clock, newer)
    other = _send(working, ("not_delivered", 60), sender=OTHER)
    _due(working, clock, other)
    assert _write(working) == [newer]
    assert _write(working, to=OTHER) == [other]
    assert _write(working, to="+15005550001") == []
    assert _stands(working, older)[1][1] == ("scheduled", None)
    clock.advance(working.settings.reply_within)
    assert _write(working) == []


@pytest.mark.parametrize("asked_first", [True, False])
def test_of_two_messages_that_left_together_the_one_is_answered_that_more_may_follow(
    working: Services, clock: Clock, asked_first: bool
) -> None:
    plans = [(("not_delivered", 60), ("not_answered", 600)), (("not_delivered", 60),)]
    ids = [_send(working, *plan) for plan in (plans if asked_first else plans[::-1])]
    clock.advance(timedelta(seconds=61))
    working.later_steps.send(working.fallback.check(ids))
    assert _write(working) == [ids[0 if asked_first else 1]]


def test_while_nobody_knows_whether_the_newest_message_left_the_one_before_it_is_answered_too(
    working: Services, clock: Clock
) -> None:
    older = _send(working, ("not_delivered", 60), ("not_answered", 600))
    _due(working, clock, older)
    newer = _send(working, ("not_delivered", 60), ("not_answered", 600))
    clock.advance(timedelta(seconds=61))
    assert working.fallback.check([newer]) == [newer]
    with working.engine.begin() as conn:
        # Its sender dies right after this.
        store.claim_steps(conn, placed([newer]), timedelta(minutes=1))
    assert set(_write(working)) == {older, newer}
    receipts.settle(working.engine, [older, newer])
    assert _stands(working, older) == ("reached", [SENT, ANSWERED])
    with working.engine.connect() as conn:
        assert str(conn.scalar(sa.text("SELECT answers FROM inbound_texts"))) == older


def test_a_pool_of_senders_is_known_by_its_name_only(working: Services, clock: Clock) -> None:
    id_ = _send(working, ("not_delivered", 60), sender="MG" + "0" * 32)
    _due(working, clock, id_)
    assert _write(working, to="+15005550001") == [id_]


def test_a_reply_counts_only_where_the_plan_asks_for_an_answer(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    id_ = _send(working, ("not_delivered", 60), ("not_clicked", 60), ("not_answered", 60))
    _due(working, clock, id_)
    receipts.settle(working.engine, _write(working))
    _due(working, clock, id_)
    assert _stands(working, id_) == ("reached", [SENT, SENT, ANSWERED])
    assert len(sandbox.texts(NUMBER)) == 2


def test_who_has_only_read_a_message_has_not_answered(working: Services, clock: Clock) -> None:
    id_ = _send(working, ("not_delivered", 60), ("not_clicked", 60), ("not_answered", 60))
    _due(working, clock, id_)
    _read(working, id_)
    assert _stands(working, id_) == ("active", [SENT, ANSWERED, ("scheduled", None)])
    _due(working, clock, id_)
    assert _stands(working, id_) == ("texted", [SENT, ANSWERED, SENT])
    # Where nothing waits for more, a message that was read ends the plan as before.
    short = _send(working, ("not_delivered", 60), ("not_clicked", 60), ("not_clicked", 60))
    _due(working, clock, short)
    _read(working, short)
    assert _stands(working, short) == ("reached", [SENT, ANSWERED])
    with working.engine.connect() as conn:
        assert whatif.compare(conn, timedelta(days=1), Rules()).differing == []


@pytest.mark.parametrize("when", [When.NOT_DELIVERED, When.NOT_CLICKED, When.NOT_ANSWERED])
def test_what_was_seen_elsewhere_needs_no_message(
    working: Services, sandbox: Sandbox, clock: Clock, when: When
) -> None:
    id_ = _send(working, (when, 60))
    _see(working, id_)
    assert _stands(working, id_) == ("reached", [ANSWERED])
    _due(working, clock, id_)
    assert sandbox.texts(NUMBER) == []


def test_what_was_seen_elsewhere_is_no_click(working: Services, clock: Clock) -> None:
    id_ = _send(working, ("not_clicked", 60), ("clicked", 60))
    _see(working, id_)
    _due(working, clock, id_)
    assert _stands(working, id_) == ("reached", [ANSWERED, ("skipped", "no_receipt")])
    # The push had ended without an answer.
    pushed = _send(working)
    assert _stands(working, pushed)[0] == "pushed"
    _see(working, pushed)
    with working.engine.connect() as conn:
        told = tell(conn, pushed)
    assert told is not None
    assert (told.state, told.reason) == ("reached", "seen")
    # And one that comes after its SMS shows that this was needless.
    late = _send(working, ("not_answered", 60))
    _due(working, clock, late)
    _see(working, late)
    with working.engine.connect() as conn:
        wasted = sa.text("SELECT inputs ->> 'receipt' FROM decisions WHERE verdict = 'wasted_sms'")
        assert list(conn.scalars(wasted)) == ["seen"]
