"""A clock that was ahead for a while and came back leaves nothing asleep: rows are woken, and nothing goes early."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.sandbox import Answer, Rule

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

JUMP = timedelta(hours=26)
MINUTES = timedelta(minutes=3)
PUSH = {"push": {"title": "t", "body": "b"}}


def _notify(here: Services, **fields: Any) -> str:
    """Accept a push to a device that never answers, with an SMS behind it after ten minutes; return its id."""
    id_ = str(uuid7())
    recipient = {"id": id_, "registrations": ["silent-1"], "phone": "+16505550100"}
    plan = [{"channel": "sms", "when": "not_delivered", "after_s": 600}]
    wire = {"v": 1, "id": str(uuid7()), "content": PUSH, "plan": plan, "recipients": [recipient], **fields}
    here.pushes.send(parse_batch(wire))
    return id_


def _work(here: Services) -> None:
    """Do what rings now, as workers would."""

    def publish(task: str, ids: Any) -> None:
        match task.removeprefix("knocktwice."):
            case "check_fallback":
                here.later_steps.send(here.fallback.check(ids))
            case "send_sms":
                here.later_steps.send(ids)
            case "reconcile":
                here.reconcile.resolve(ids)
            case _:
                here.pushes.resume(ids)

    dispatch(here, publish)


def _rows(here: Services, query: str) -> Any:
    with here.engine.connect() as conn:
        return conn.execute(sa.text(query)).scalar_one()


ASLEEP = "SELECT count(*) FROM deliveries WHERE wake_at > knocktwice_now() + interval '1 hour'"


def _state(here: Services, id_: str) -> str:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return told.state


def _verdicts(here: Services, id_: str) -> list[str]:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return [moment.kind for moment in told.moments]


def test_what_was_rung_while_the_clock_was_ahead_goes_on_when_it_is_back(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    working.clock_watch.look()
    due = _notify(working)
    clock.advance(JUMP)
    working.clock_watch.look()
    # The worker dies with the task: the row sleeps until its lease is over.
    assert dispatch(working, lambda *_: None) == 1
    clock.advance(-JUMP + MINUTES)
    assert _rows(working, ASLEEP) == 1
    assert working.clock_watch.look() == 1
    _work(working)
    assert _state(working, due) == "active"
    clock.advance(timedelta(minutes=8))
    _work(working)
    assert _state(working, due) == "texted"
    assert "clock_jumped" in _verdicts(working, due)
    assert len(sandbox.texts("+16505550100")) == 1


def test_what_was_accepted_while_the_clock_was_ahead_keeps_its_countdown_from_now_on(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    working.clock_watch.look()
    clock.advance(JUMP)
    working.clock_watch.look()
    id_ = _notify(working)
    clock.advance(-JUMP)
    assert working.clock_watch.look() == 1
    assert working.clock_watch.look() == 0
    clock.advance(timedelta(minutes=9))
    _work(working)
    assert sandbox.texts("+16505550100") == []
    clock.advance(timedelta(minutes=2))
    _work(working)
    assert _state(working, id_) == "texted"


def test_a_push_that_waited_for_another_try_and_a_message_at_its_provider_are_taken_up_again(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    working.clock_watch.look()
    clock.advance(JUMP)
    working.clock_watch.look()
    sandbox.rule(Rule("push", answer=Answer(status=503)))
    waiting = _notify(working)
    sandbox.clear_rules()
    clock.advance(-JUMP)
    assert working.clock_watch.look() >= 1
    _work(working)
    assert len(sandbox.pushes("silent-1")) == 1
    clock.advance(timedelta(minutes=12))
    _work(working)
    assert _state(working, waiting) == "texted"


@pytest.mark.parametrize("ahead", [timedelta(), JUMP])
def test_a_time_that_the_application_asked_for_stays(
    working: Services, sandbox: Sandbox, clock: Clock, ahead: timedelta
) -> None:
    working.clock_watch.look()
    clock.advance(ahead)
    working.clock_watch.look()
    at = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    later = [
        _notify(working, send_at=at),
        _notify(working, send_at=at, content={"sms": {"text": "x"}}, plan=[{"channel": "sms"}]),
    ]
    clock.advance(JUMP - ahead)
    working.clock_watch.look()
    clock.advance(-JUMP)
    assert working.clock_watch.look() == 0
    for hours in (1, 69):
        clock.advance(timedelta(hours=hours))
        _work(working)
    assert (sandbox.pushes("silent-1"), sandbox.texts("+16505550100")) == ([], [])
    clock.advance(timedelta(hours=3))
    _work(working)
    _work(working)
    assert len(sandbox.pushes("silent-1")) == 1
    assert len(sandbox.texts("+16505550100")) == 1
    assert {_state(working, id_) for id_ in later} == {"active", "texted"}


def test_followers_go_on_where_the_clock_is_now(working: Services, clock: Clock) -> None:
    working.clock_watch.look()
    with working.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO followers VALUES ('x', knocktwice_now() + :jump)"), {"jump": JUMP})
    clock.advance(JUMP)
    working.clock_watch.look()
    clock.advance(-JUMP)
    working.clock_watch.look()
    assert _rows(working, "SELECT count(*) FROM followers WHERE seen_until > knocktwice_now()") == 0


def test_a_clock_that_never_went_back_costs_no_search(working: Services, clock: Clock) -> None:
    _notify(working)
    statements: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    working.clock_watch.look()
    sa.event.listen(working.engine, "before_cursor_execute", note)
    clock.advance(timedelta(seconds=30))
    working.clock_watch.look()
    clock.advance(-timedelta(seconds=30))
    working.clock_watch.look()
    assert statements == ["SELECT knocktwice_now()"] * 2
