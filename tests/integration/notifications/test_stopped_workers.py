"""A worker that stands still between two lines, and the world that goes on:
a decision holds at the moment of the call.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.database import engine as engines
from knocktwice_worker.notifications.pipeline import cancellation, receipts
from knocktwice_worker.reporting.story import tell
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

PLAN = [{"channel": "sms", "when": "not_clicked", "after_s": 60}]
AT = datetime(2026, 1, 1, tzinfo=UTC)


def number(n: int) -> str:
    return f"+16505550{100 + n}"


@pytest.fixture
def due(working: Services, clock: Clock) -> list[str]:
    """Three pushed notifications whose countdown is over."""
    people = [{"id": str(uuid7()), "registrations": [f"silent-{n}"], "phone": number(n)} for n in range(3)]
    content = {"push": {"title": "t", "body": "b"}}
    wire = {"v": 1, "id": str(uuid7()), "content": content, "plan": PLAN, "recipients": people}
    working.pushes.send(parse_batch(wire))
    clock.advance(timedelta(seconds=61))
    return [person["id"] for person in people]  # type: ignore[misc]


def click(here: Services, *ids: str) -> None:
    receipts.record(here.engine, [ReceiptEvent(UUID(id_), Receipt.CLICKED, AT) for id_ in ids])


def stop(here: Services, id_: str) -> None:
    with here.engine.begin() as conn:
        to = conn.execute(sa.text("SELECT phone FROM notifications WHERE id = :id"), {"id": id_}).scalar_one()
        inbound_texts.receive(conn, [InboundText("SM-stop", to, Wish.STOP)], b"test")


def state(here: Services, id_: str) -> tuple[str, str | None]:
    with here.engine.connect() as conn:
        row = conn.execute(sa.text("SELECT state, reason FROM notifications WHERE id = :id"), {"id": id_}).one()
    return row.state, row.reason


def ledger(here: Services, id_: str) -> list[str]:
    with here.engine.connect() as conn:
        query = "SELECT verdict FROM decisions WHERE notification_id = :id ORDER BY id"
        return list(conn.execute(sa.text(query), {"id": id_}).scalars())


def sentences(here: Services, id_: str) -> list[str]:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return [moment.sentence for moment in told.moments]


MEANWHILE: dict[str, tuple[Callable[[Services, str], None], tuple[str, str]]] = {
    "a click": (click, ("reached", "reached_in_time")),
    "a cancellation": (lambda here, id_: cancellation.cancel(here.engine, [id_], []), ("cancelled", "cancelled")),
    "STOP": (stop, ("suppressed", "opted_out")),
}


@pytest.mark.parametrize(("happens", "end"), MEANWHILE.values(), ids=MEANWHILE)
def test_what_is_committed_between_claim_and_lock_stops_the_message(
    working: Services,
    sandbox: Sandbox,
    due: list[str],
    happens: Callable[[Services, str], None],
    end: tuple[str, str],
) -> None:
    stopped, *others = due
    reserved = working.fallback.check(due)

    def stand_still(_: object) -> None:
        if not happened:
            happened.append(True)
            happens(working, stopped)

    happened: list[bool] = []
    # The sender has claimed, and begins the transaction in which it holds the lock.
    sa.event.listen(working.senders, "begin", stand_still)
    assert sorted(working.later_steps.send(reserved)) == sorted(others)
    working.later_steps.send([stopped])
    assert state(working, stopped) == end
    assert {text.to for text in sandbox.texts()} == {number(1), number(2)}
    assert "wasted_sms" not in ledger(working, stopped)
    said = sentences(working, stopped)
    assert [s for s in said if "took up the SMS" in s] == [
        f"A sender took up the SMS to {number(0)[:5]}•••{number(0)[-2:]}; the provider has not taken it."
    ]
    assert not any(" took the SMS" in s or "after the last look" in s for s in said)


def test_a_click_while_an_sms_is_lost_is_told_with_the_sms_that_went_before_it(
    working: Services, sandbox: Sandbox, clock: Clock, due: list[str]
) -> None:
    """The provider took it, the sender died, the person clicked, and another worker finds the message in the list."""
    reserved = working.fallback.check(due[:1])
    # The provider's list goes by its own clock.
    clock.advance(-timedelta(seconds=61))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    sa.event.listen(working.senders, "commit", die)
    with pytest.raises(KeyboardInterrupt):
        working.later_steps.send(reserved)
    sa.event.remove(working.senders, "commit", die)
    click(working, *due[:1])
    for _ in range(3):
        clock.advance(timedelta(minutes=3))
        working.reconcile.resolve(due[:1])
    assert len(sandbox.texts()) == 1
    said = sentences(working, due[0])
    (taken,) = [s for s in said if " took the SMS" in s]
    assert taken.endswith(", at an earlier time than this, at which it was found.")
    assert "Its outcome had been lost; the provider's list shows that it went out." in said


def test_a_message_whose_lease_is_nearly_over_does_not_leave_and_is_sent_by_the_next(
    working: Services, sandbox: Sandbox, due: list[str]
) -> None:
    reserved = working.fallback.check(due)
    claims = replace(working.later_steps.claims, lease=timedelta(0))
    slow = replace(working.later_steps, claims=claims)
    assert slow.send(reserved) == []
    assert sandbox.texts() == []
    assert sorted(working.later_steps.send(reserved)) == sorted(due)
    assert len(sandbox.texts()) == 3


def test_a_row_that_somebody_keeps_locked_delays_only_its_own_person(working: Services, due: list[str]) -> None:
    stuck, *others = due
    with working.engine.connect() as holder:
        holder.execute(
            sa.text("SELECT FROM deliveries WHERE notification_id = :id AND step = 1 FOR UPDATE"), {"id": stuck}
        )
        click(working, *due)
        assert [state(working, id_)[0] for id_ in others] == ["reached"] * 2
        with working.engine.connect() as conn:
            clicks = conn.execute(sa.text("SELECT count(*) FROM events WHERE kind = 'clicked'")).scalar_one()
        assert clicks == 3
        holder.rollback()
    assert working.fallback.check(due) == []
    assert state(working, stuck) == ("reached", "reached_in_time")


def test_a_transaction_that_stands_still_loses_its_locks(database_url: str) -> None:
    engine = engines.create(database_url, pool_size=2, idle=timedelta(milliseconds=50))
    stopped = engine.connect()
    pid = stopped.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    eventually(lambda: not _lives(engine, pid))
    with pytest.raises(OperationalError):
        stopped.execute(sa.text("SELECT 1"))
    engine.dispose()


def _lives(engine: sa.Engine, pid: int) -> Any:
    with engine.connect() as conn:
        query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")
        return conn.execute(query, {"pid": pid}).scalar_one()


def test_nobody_waits_for_a_lock_for_ever(working: Services) -> None:
    for engine in (working.engine, working.senders):
        with engine.connect() as conn:
            assert conn.execute(sa.text("SHOW lock_timeout")).scalar_one() == "10s"
            assert conn.execute(sa.text("SHOW idle_in_transaction_session_timeout")).scalar_one() != "0"
            assert conn.execute(sa.text("SHOW jit")).scalar_one() == "off"
