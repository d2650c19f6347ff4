"""What nobody recorded is looked up at Twilio: adopted by the one it belongs to, sent again if it is not there,
given up in the end.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Category, parse_batch
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
    """A worker's services; one text may go to one number again and again, at any hour."""
    built = Services(working.settings.model_copy(update={"sms_same_content_s": 0.0, "quiet_hours": ""}))
    yield built
    built.close()


def _reserved(here: Services, text: str = TEXT, *, category: Category = Category.TRANSACTIONAL) -> str:
    """Have somebody's SMS reserved."""
    recipient = {"id": str(uuid7()), "phone": NUMBER}
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": text}}, "only": "sms"}
    here.pushes.send(parse_batch({**wire, "category": category, "recipients": [recipient]}))
    assert here.fallback.check([recipient["id"]]) == [recipient["id"]]
    return recipient["id"]


def _states(here: Services) -> list[tuple[str, str | None]]:
    with here.engine.connect() as conn:
        rows = conn.execute(sa.text("SELECT state, provider_id FROM deliveries ORDER BY state"))
        return [tuple(row) for row in rows]


def _notification(here: Services) -> tuple[str, str | None]:
    with here.engine.connect() as conn:
        ((state, reason),) = conn.execute(sa.text("SELECT state, reason FROM notifications"))
        return state, reason


def _run_for(here: Services, clock: Clock, id_: str, span: timedelta) -> int:
    """Do what is due about an SMS, each time at the moment at which it rings; return how often something was due."""
    waits = sa.text("SELECT state, wake_at - knocktwice_now() FROM deliveries WHERE wake_at IS NOT NULL")
    here.later_steps.send([id_])
    for rings in range(500):
        with here.engine.connect() as conn:
            waiting = conn.execute(waits).first()
        if waiting is None or waiting[1] > span:
            clock.advance(span)
            return rings
        clock.advance(wait := max(waiting[1], timedelta(milliseconds=1)))
        span -= wait
        if waiting[0] == "sending":
            here.reconcile.resolve([id_])
        else:
            here.later_steps.send([id_])
    raise AssertionError("it rings for ever")


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
    clock.advance(MINUTE)
    assert here.reconcile.resolve(ids) == []
    assert sorted(_states(here)) == [("reserved", None), ("sending", None)]


def test_what_kills_its_senders_is_not_sent_for_ever(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    id_ = _reserved(here)
    for tries, state in enumerate(("reserved", "reserved", "failed")):
        with here.engine.begin() as conn:
            assert store.claim_steps(conn, placed([id_], tries), MINUTE)[0] == [id_]
        for _ in range(2):
            clock.advance(10 * MINUTE)
            here.reconcile.resolve([id_])
        assert _states(here) == [(state, None)]
    assert sandbox.texts(NUMBER) == []
    assert _notification(here)[0] == "failed"


@pytest.mark.parametrize("category", list(Category))
@pytest.mark.parametrize("answer", [Answer(status=503), Answer(drop=True)], ids=["503", "reset"])
def test_after_an_outage_the_sms_goes_out_once(
    here: Services, sandbox: Sandbox, clock: Clock, answer: Answer, category: Category
) -> None:
    """The list answers all the time; it is the sending that does not work."""
    sandbox.rule(Rule("sms", answer=answer))
    id_ = _reserved(here, category=category)
    looks = _run_for(here, clock, id_, timedelta(seconds=15))
    assert looks
    sandbox.clear_rules()
    _run_for(here, clock, id_, timedelta(minutes=10))
    assert len(sandbox.texts(NUMBER)) == 1
    assert _notification(here)[0] == "texted"


def test_hours_without_the_provider_use_no_tries_up(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.rule(Rule("sms", answer=NOT_TAKEN))
    sandbox.rule(Rule("list", times=5, answer=NOT_TAKEN))
    id_ = _reserved(here)
    _run_for(here, clock, id_, timedelta(hours=9))
    # Somebody may have it after all, each time that its answer is lost: so the tries become rare.
    assert 5 < sandbox.requests("sms") < 20
    sandbox.clear_rules()
    _run_for(here, clock, id_, timedelta(hours=2))
    assert len(sandbox.texts(NUMBER)) == 1
    assert _notification(here)[0] == "texted"


def test_one_look_at_the_list_is_not_enough(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.rule(Rule("sms", times=1, answer=TAKEN))
    id_ = _reserved(here)
    here.later_steps.send([id_])
    # The provider's index is late: it lacks the message after the grace, and has it soon after.
    sandbox.rule(Rule("list", times=2, answer=Answer(empty=True)))
    clock.advance(3 * MINUTE)
    for _ in range(2):
        assert here.reconcile.resolve([id_]) == []
    assert _states(here) == [("sending", None)]
    clock.advance(MINUTE)
    assert here.reconcile.resolve([id_]) == [id_]
    assert len(sandbox.texts(NUMBER)) == 1


def test_looks_within_the_lease_do_not_count(working: Services, sandbox: Sandbox, clock: Clock) -> None:
    """The request of a claim may leave until its lease is nearly over, however short the grace is."""
    here = Services(working.settings.model_copy(update={"sms_unknown_grace_s": 0.0}))
    sandbox.rule(Rule("sms", answer=NOT_TAKEN))
    id_ = _reserved(here)
    here.later_steps.send([id_])
    lease = here.settings.lease
    for part, state in ((0.4, "sending"), (0.4, "sending"), (0.3, "sending"), (0.3, "sending"), (0.3, "reserved")):
        clock.advance(lease * part)
        here.reconcile.resolve([id_])
        assert _states(here) == [(state, None)], part
    here.close()


def test_a_look_without_an_answer_is_none(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.rule(Rule("sms", times=1, answer=NOT_TAKEN))
    id_ = _reserved(here)
    here.later_steps.send([id_])
    clock.advance(3 * MINUTE)
    here.reconcile.resolve([id_])
    sandbox.rule(Rule("list", times=1, answer=Answer(drop=True)))
    sandbox.rule(Rule("list", times=1, answer=Answer(status=503)))
    clock.advance(MINUTE)
    here.reconcile.resolve([id_])
    assert _states(here) == [("sending", None)]
    sandbox.clear_rules()
    here.reconcile.resolve([id_])
    assert _states(here) == [("reserved", None)]


def test_each_try_is_looked_for_anew(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    """That the list lacked the first try says nothing about the second one."""
    sandbox.rule(Rule("sms", times=2, answer=NOT_TAKEN))
    id_ = _reserved(here)
    _run_for(here, clock, id_, timedelta(minutes=3))
    assert sandbox.requests("sms") == 2
    assert _states(here) == [("sending", None)]
    for state in ("sending", "reserved"):
        clock.advance(3 * MINUTE)
        here.reconcile.resolve([id_])
        assert _states(here) == [(state, None)]


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
    sandbox.rule(Rule("sms", answer=Answer(status=429)))
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
