"""A message that went out is never hidden behind what stopped the steps after it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import Task
from knocktwice_worker.reporting.story import tell

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

NUMBER = "+16505550100"
TWO_SMS = [
    {"channel": "sms", "when": "not_clicked", "after_s": 60},
    {"channel": "sms", "when": "not_clicked", "after_s": 600, "text": "Last call"},
]


def _texted_once(here: Services, clock: Clock) -> str:
    """Notify somebody whose first SMS has gone and whose second one waits; return the id."""
    id_ = str(uuid7())
    wire: dict[str, Any] = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "plan": TWO_SMS,
    }
    recipient = {"id": id_, "registrations": ["silent-1"], "phone": NUMBER}
    here.pushes.send(parse_batch({**wire, "recipients": [recipient]}))
    clock.advance(timedelta(seconds=70))
    assert here.later_steps.send(here.fallback.check([id_])) == [id_]
    return id_


@pytest.mark.parametrize(("stopped_by", "reason"), [("cancellation", "cancelled"), ("opt-out", "opted_out")])
def test_a_stop_behind_an_sms_leaves_the_notification_texted(
    working: Services, sandbox: Sandbox, clock: Clock, stopped_by: str, reason: str
) -> None:
    id_ = _texted_once(working, clock)
    if stopped_by == "cancellation":
        working.accepted[Task.CANCEL]([{"v": 1, "ids": [id_]}])
    else:
        with working.engine.begin() as conn:
            conn.execute(sa.text("INSERT INTO opt_outs (number, source) VALUES (:number, 'sms')"), {"number": NUMBER})
        clock.advance(timedelta(seconds=700))
        assert working.fallback.check([id_]) == []
    with working.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    assert (told.state, told.reason) == ("texted", reason)
    assert [step.state for step in told.steps][:2] == ["sent", "sent"]
    assert len(sandbox.texts(NUMBER)) == 1


def test_a_cancellation_before_any_sms_is_cancelled_as_ever(working: Services, sandbox: Sandbox) -> None:
    id_ = str(uuid7())
    wire: dict[str, Any] = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "plan": TWO_SMS,
    }
    recipient = {"id": id_, "registrations": ["silent-1"], "phone": NUMBER}
    working.pushes.send(parse_batch({**wire, "recipients": [recipient]}))
    working.accepted[Task.CANCEL]([{"v": 1, "ids": [id_]}])
    with working.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    assert told.state == "cancelled"
    assert sandbox.texts(NUMBER) == []
