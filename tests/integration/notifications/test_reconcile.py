"""What nobody recorded is looked up at Twilio: adopted by the one it belongs to, sent again seldom, and given up in the end."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.channels.messages import StepMessage
from knocktwice_worker.channels.outcomes import Sent
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.notifications import store
from knocktwice_worker.sandbox import Answer, Rule
from knocktwice_worker.services import Services
from support.sent_messages import placed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock

NUMBER, TEXT = "+16505550100", "Your code is 4711."
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
#: Twilio answers unclearly, and has taken it or not.
TAKEN, NOT_TAKEN = Answer(status=500, accept=True), Answer(status=500)


@pytest.fixture
def here(working: Services) -> Iterator[Services]:
    """A worker's services; one text may go to one number again and again."""
    built = Services(working.settings.model_copy(update={"sms_same_content_s": 0.0}))
    yield built
    built.close()


def _reserved(here: Services, text: str = TEXT) -> str:
    """Have somebody's SMS reserved."""
    recipient = {"id": str(uuid7()), "phone": NUMBER}
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": text}}, "only": "sms"}
    here.pushes.send(parse_batch({**wire, "recipients": [recipient]}))
    assert here.fallback.check([recipient["id"]]) == [recipient["id"]]
    return recipient["id"]


def _states(here: Services) -> list[tuple[str, str | None]]:
    with here.engine.connect() as conn:
        rows = conn.execute(sa.text("SELECT state, provider_id FROM deliveries ORDER BY state"))
        return [tuple(row) for row in rows]


@pytest.mark.parametrize("together", [True, False])
def test_one_message_is_adopted_by_one_of_two_that_say_the_same(
    here: Services, sandbox: Sandbox, together: bool
) -> None:
    ids = [_reserved(here), _reserved(here)]
    for id_, answer in zip(ids, (TAKEN, NOT_TAKEN), strict=True):
        sandbox.rule(Rule("sms", times=1, answer=answer))
        here.later_steps.send([id_])
    for some in [ids] if together else [ids[:1], ids[1:]]:
        here.reconcile.resolve(some)
    (text,) = sandbox.texts(NUMBER)
    assert _states(here) == [("sending", None), ("sent", text.sid)]


def test_a_message_that_was_there_before_is_not_taken_for_it(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    # Another application of the same account said the same.
    (other,) = deliver(
        here.transport, here.channels.usual("sms"), [StepMessage("another", NUMBER, TEXT, here.settings.twilio_from)]
    )
    assert isinstance(other, Sent)
    sandbox.rule(Rule("sms", times=2, answer=NOT_TAKEN))
    # One that says something else has been looked for since then, so that the list goes back as far.
    ids = [_reserved(here, "Something else")]
    here.later_steps.send(ids)
    clock.advance(10 * MINUTE)
    ids.append(_reserved(here))
    here.later_steps.send(ids[1:])
    assert here.reconcile.resolve(ids) == []
    assert sorted(_states(here)) == [("sending", None), ("unknown", None)]


def test_what_kills_its_senders_is_not_sent_for_ever(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    id_ = _reserved(here)
    for tries, state in enumerate(("reserved", "reserved", "unknown")):
        with here.engine.begin() as conn:
            assert store.claim_steps(conn, placed([id_], tries), MINUTE)[0] == [id_]
        clock.advance(10 * MINUTE)
        here.reconcile.resolve([id_])
        assert _states(here) == [(state, None)]
    assert sandbox.texts(NUMBER) == []


def test_a_list_that_cannot_be_read_is_asked_for_a_day(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    id_ = _reserved(here)
    sandbox.rule(Rule("sms", times=1, answer=TAKEN))
    here.later_steps.send([id_])
    sandbox.rule(Rule("list", answer=Answer(status=500)))
    clock.advance(DAY - MINUTE)
    here.reconcile.resolve([id_])
    assert _states(here) == [("sending", None)]
    clock.advance(2 * MINUTE)
    here.reconcile.resolve([id_])
    assert _states(here) == [("unknown", None)]


def test_what_twilio_puts_off_for_too_long_is_given_up(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.rule(Rule("sms", answer=Answer(status=401)))
    id_ = _reserved(here)
    clock.advance(timedelta(seconds=here.settings.sms_retry_s) - MINUTE)
    assert here.later_steps.send([id_]) == []
    assert _states(here) == [("reserved", None)]
    clock.advance(2 * MINUTE)
    assert here.later_steps.send([id_]) == []
    assert _states(here) == [("failed", None)]
    with here.engine.connect() as conn:
        ((state, reason),) = conn.execute(sa.text("SELECT state, reason FROM notifications"))
    assert (state, reason.split(":")[0]) == ("failed", "gave up")
