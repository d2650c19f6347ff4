"""Steps that follow a success: a click or a delivery ends no plan before them, and without it they are left out."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, When, parse_batch
from knocktwice_worker.audience import opt_outs
from knocktwice_worker.lifecycle import FOLLOW_UPS, DeliveryState, Facts, Verdict, decide
from knocktwice_worker.notifications import store
from knocktwice_worker.reporting.story import tell

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

NUMBER = "+16505550100"


def _send(
    here: Services, *plan: tuple[str, int], registrations: tuple[str, ...] = ("silent-phone",), phone: str = NUMBER
) -> str:
    """Send a push with SMS behind it, each with its condition and its delay in seconds; they say their place."""
    id_ = str(uuid7())
    steps = [
        {"channel": "sms", "when": when, "after_s": after_s, "text": str(place)}
        for place, (when, after_s) in enumerate(plan, 1)
    ]
    recipients = [{"id": id_, "registrations": list(registrations), "phone": phone}]
    content = {"push": {"title": "t", "body": "b"}}
    wire = {"v": 1, "id": str(uuid7()), "content": content, "plan": steps, "recipients": recipients}
    here.pushes.send(parse_batch(wire))
    return id_


def _receipt(here: Services, id_: str, kind: Receipt) -> None:
    with here.engine.begin() as conn:
        ids = store.record_receipts(conn, [ReceiptEvent(UUID(id_), kind, datetime.now(UTC), "silent-phone", 0)])
    with here.engine.begin() as conn:
        store.settle_receipts(conn, ids)


def _pass(here: Services, clock: Clock, id_: str, seconds: int) -> None:
    """Let some time pass, then do what is due."""
    clock.advance(timedelta(seconds=seconds))
    here.later_steps.send(here.fallback.check([id_]))


def _stands(here: Services, id_: str) -> tuple[str, str | None, list[tuple[int, str, str | None]]]:
    """Return state and reason of a notification, and its later steps, each with state and reason."""
    query = "SELECT step, state, reason FROM deliveries WHERE notification_id = :id AND step > 0 ORDER BY step"
    with here.engine.connect() as conn:
        steps = [tuple(row) for row in conn.execute(sa.text(query), {"id": id_})]
        told = tell(conn, id_)
    assert told is not None
    return told.state, told.reason, steps


def _texts(sandbox: Sandbox) -> list[str]:
    return [text.body for text in sandbox.texts()]


def test_a_click_does_not_end_the_plan_before_the_step_that_follows_it(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    id_ = _send(working, ("not_clicked", 60), ("clicked", 600))
    _receipt(working, id_, Receipt.CLICKED)
    state, _, steps = _stands(working, id_)
    assert (state, steps) == ("active", [(1, "skipped", "reached_in_time"), (2, "scheduled", None)])
    _pass(working, clock, id_, 120)
    assert _texts(sandbox) == []
    _pass(working, clock, id_, 600)
    assert _texts(sandbox) == ["2"]
    state, reason, steps = _stands(working, id_)
    assert (state, reason, steps[1][1]) == ("reached", "clicked", "sent")
    with working.engine.connect() as conn:
        verdicts = list(conn.scalars(sa.text("SELECT verdict FROM decisions ORDER BY at, step")))
        assert "wasted_sms" not in verdicts
        assert "follows_click" in verdicts
        assert store.shown(conn, [id_]) == [], "it does not stand for the push, which stays where it is"


def test_without_the_receipt_nothing_follows(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    id_ = _send(working, ("clicked", 60))
    _pass(working, clock, id_, 120)
    assert _texts(sandbox) == []
    assert _stands(working, id_) == ("pushed", "no_receipt", [(1, "skipped", "no_receipt")])
    # Too late for the step, and an answer all the same.
    _receipt(working, id_, Receipt.CLICKED)
    assert _stands(working, id_)[:2] == ("reached", "clicked")


def test_one_plan_goes_on_after_success_and_after_silence(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    silent = _send(working, ("clicked", 60), ("not_clicked", 60))
    _pass(working, clock, silent, 61)
    _pass(working, clock, silent, 61)
    assert _texts(sandbox) == ["2"]
    assert _stands(working, silent)[0] == "texted"
    delivered = _send(working, ("delivered", 3_600), ("not_clicked", 60), ("clicked", 60), phone="+16505550101")
    _receipt(working, delivered, Receipt.DELIVERED)
    clock.advance(timedelta(hours=1))
    for _ in range(3):
        _pass(working, clock, delivered, 61)
    assert _texts(sandbox) == ["2", "1", "2"]
    assert _stands(working, delivered)[::2] == (
        "texted",
        [(1, "sent", None), (2, "sent", None), (3, "skipped", "no_receipt")],
    )


def test_a_push_that_could_not_go_out_has_nothing_to_follow(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    alone = _send(working, ("clicked", 60), registrations=())
    _pass(working, clock, alone, 1)
    assert _stands(working, alone) == ("failed", "no_device", [(1, "skipped", "nothing_to_follow")])
    # What would have followed silence follows at once.
    behind = _send(working, ("clicked", 60), ("not_clicked", 3_600), registrations=())
    _pass(working, clock, behind, 1)
    _pass(working, clock, behind, 1)
    assert _texts(sandbox) == ["2"]


@pytest.mark.parametrize("stop", ["cancel", "opt out"])
def test_whoever_said_stop_gets_no_step_that_follows_a_click(
    working: Services, sandbox: Sandbox, clock: Clock, stop: str
) -> None:
    id_ = _send(working, ("clicked", 60))
    _receipt(working, id_, Receipt.CLICKED)
    with working.engine.begin() as conn:
        if stop == "cancel":
            store.cancel(conn, [id_], [], datetime.now(UTC))
        else:
            opt_outs.add(conn, {NUMBER}, "sms")
    _pass(working, clock, id_, 120)
    assert _texts(sandbox) == []
    state, reason, ((_, step, why),) = _stands(working, id_)
    expected = ("cancelled", "cancelled", "cancelled") if stop == "cancel" else ("reached", "clicked", "skipped")
    assert (state, reason, step) == expected
    assert why == ("cancelled" if stop == "cancel" else "opted_out")


def test_a_click_while_the_message_before_is_with_its_sender_is_followed(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    id_ = _send(working, ("not_clicked", 60), ("clicked", 60))
    clock.advance(timedelta(seconds=61))
    reserved = working.fallback.check([id_])
    with working.engine.begin() as conn:
        store.reserved(conn, reserved)
        conn.execute(sa.text("UPDATE deliveries SET state = 'sending', claimed_at = knocktwice_now() WHERE step = 1"))
    _receipt(working, id_, Receipt.CLICKED)
    with working.engine.begin() as conn:
        unfinished = store.record_steps(conn, [store.StepResult(id_, DeliveryState.SENT, provider_id="SM1")])
    store.look_again(working.engine, unfinished, [id_])
    _pass(working, clock, id_, 61)
    assert _texts(sandbox) == ["2"]
    assert _stands(working, id_)[0] == "reached"


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_in_whatever_order_each_message_has_its_reason(
    working: Services, sandbox: Sandbox, clock: Clock, seed: int
) -> None:
    dice = random.Random(seed)
    for n in range(8):
        number = f"+1650555{seed}{n:03}"
        whens = [
            dice.choice(("not_clicked", "not_delivered", "clicked", "delivered")) for _ in range(dice.randint(1, 4))
        ]
        id_ = _send(working, *((when, dice.choice((0, 60))) for when in whens), phone=number)
        said: set[str] = set()
        known: list[set[str]] = []
        for _ in range(16):
            match dice.choice(("click", "deliver", "pass", "pass", "pass", "pass", "cancel" if not n % 4 else "pass")):
                case "click":
                    _receipt(working, id_, Receipt.CLICKED)
                    said |= {"clicked", "delivered"}
                case "deliver":
                    _receipt(working, id_, Receipt.DELIVERED)
                    said.add("delivered")
                case "cancel":
                    with working.engine.begin() as conn:
                        store.cancel(conn, [id_], [], datetime.now(UTC))
                    said.add("cancelled")
                case _:
                    _pass(working, clock, id_, 61)
            texted = [text.body for text in sandbox.texts() if text.to == number]
            known += [set(said) for _ in texted[len(known) :]]
        for _ in whens:
            _pass(working, clock, id_, 61)
        texted = [text.body for text in sandbox.texts() if text.to == number]
        known += [set(said) for _ in texted[len(known) :]]
        state, _, steps = _stands(working, id_)
        assert [place for place, step, _ in steps if step == "sent"] == list(map(int, texted))
        assert state != "active"
        for place, then in zip(map(int, texted), known, strict=True):
            when = whens[place - 1]
            assert "cancelled" not in then, whens
            assert when not in ("clicked", "delivered") or when in then, whens
            assert not (when.startswith("not_") and "clicked" in then), whens
        fell_back = any(whens[int(place) - 1].startswith("not_") for place in texted)
        if "clicked" in said and not fell_back and "cancelled" not in said:
            assert state == "reached", (whens, steps)
        if fell_back and "clicked" not in said:
            assert state == "texted", (whens, steps)


def test_a_step_is_taken_for_exactly_the_receipts_that_it_asks_for() -> None:
    yes_no = (False, True)
    for (when, before), (delivered, clicked), (undelivered, push) in product(
        product(FOLLOW_UPS, DeliveryState), product(yes_no, yes_no), product(yes_no, yes_no)
    ):
        facts = Facts(when, before, delivered, clicked, follows_push=push, undelivered=undelivered)
        taken = clicked or (delivered and when is When.DELIVERED)
        verdict = decide(facts)
        assert (verdict in (Verdict.FOLLOWS_CLICK, Verdict.FOLLOWS_DELIVERY)) is taken, facts
        assert decide(Facts(when, before, delivered, clicked, cancelled=True)) is Verdict.CANCELLED
