"""What an operator has paused waits as a row, and goes exactly once when it is resumed;
anything else goes as always.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice import Client
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Category, Receipt, ReceiptEvent, parse_batch
from knocktwice_shared.names import Task
from knocktwice_worker.audience import opt_outs
from knocktwice_worker.channels.deadline import Deadline
from knocktwice_worker.channels.http import NoResponse
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.flower import steering
from knocktwice_worker.notifications import pipeline, store
from knocktwice_worker.notifications.pipeline import cancellation, receipts
from knocktwice_worker.notifications.pipeline.pauses import PauseGate
from knocktwice_worker.notifications.store import paused
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.sandbox.rules import Answer, Rule
from knocktwice_worker.services import Services
from knocktwice_worker.switches import audit, pauses
from knocktwice_worker.switches.audit import By
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_worker.channels.http import Request, Response
    from knocktwice_worker.reporting.story import Story
    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
ADA = By("ada@desk", "the wrong text went out")
SMS = Scope("sms")
ORDER = {"default_locale": "en", "contents": {"en": {"push": {"title": "Order", "body": "It is ready"}}}}


class Installation:
    """Workers at one sandbox, whose known pauses are as old as nothing."""

    def __init__(self, here: Services, sandbox: Sandbox, clock: Clock) -> None:
        self.here, self.sandbox, self.clock = here, sandbox, clock
        self._number = 0

    def worker(self) -> Services:
        """Return a worker that has just started."""
        return self.here.with_settings(self.here.settings)

    def pause(self, scope: Scope, **more: Any) -> int:
        with self.here.engine.begin() as conn:
            return pauses.pause(conn, scope, ADA, **more)

    def resume(self, scope: Scope) -> None:
        with self.here.engine.begin() as conn:
            pauses.resume(conn, scope, ADA)

    def sms(self, **fields: Any) -> str:
        """Accept an SMS alone to a number of its own; return its id."""
        self._number += 1
        recipient = {"id": str(uuid7()), "phone": f"+16505551{self._number:03}", **fields.pop("recipient", {})}
        wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
        self.worker().pushes.send(parse_batch({**wire, "recipients": [recipient], **fields}))
        return str(recipient["id"])

    def push(self, **fields: Any) -> str:
        """Accept a push to a phone that never answers, with an SMS ten minutes later; return its id."""
        self._number += 1
        number, registration = f"+16505551{self._number:03}", f"silent-{self._number}"
        recipient = fields.pop("recipient", {"id": str(uuid7()), "registrations": [registration], "phone": number})
        plan = [{"channel": "sms", "when": "not_delivered", "after_s": 600}]
        wire: dict[str, Any] = {
            "v": 1,
            "id": str(uuid7()),
            "content": {"push": {"title": "t", "body": "b"}},
            "plan": plan,
        }
        self.worker().pushes.send(parse_batch({**wire, "recipients": [recipient], **fields}))
        return str(recipient["id"])

    def run(self) -> None:
        """Let a worker do everything that is due, until nothing is."""
        here = self.worker()
        paused.wake(here.engine)

        def publish(task: Task, ids: Sequence[str]) -> None:
            if task is Task.RESUME_PUSH:
                here.pushes.resume(ids)
            elif task is Task.CHECK_FALLBACK:
                here.later_steps.send(here.fallback.check(ids))
            elif task is Task.SEND_SMS:
                here.later_steps.send(ids)

        while dispatch(here, publish):
            pass

    def told(self, id_: str) -> Story:
        with self.here.engine.connect() as conn:
            told = tell(conn, id_)
        assert told
        return told

    def state(self, id_: str) -> str:
        return self.told(id_).state

    @property
    def paused(self) -> bool:
        with self.here.senders.connect() as conn:
            return bool(paused.active(conn))

    @property
    def texts(self) -> int:
        return self.sandbox.requests("sms")


@pytest.fixture
def at(working: Services, sandbox: Sandbox, clock: Clock) -> Iterator[Installation]:
    here = Services(working.settings.model_copy(update={"quiet_hours": "", "sms_per_day": 1}))
    # All workers of a test share them.
    for part in ("engine", "senders", "redis", "transport", "push"):
        getattr(here, part)
    yield Installation(here, sandbox, clock)
    here.close()


@pytest.mark.parametrize(
    ("scope", "fields"),
    [
        (Scope(), {}),
        (Scope("sms"), {}),
        (Scope(provider="twilio"), {}),
        (Scope("sms", country="DE"), {"recipient": {"phone": "+4915123456789"}}),
        (Scope(category="critical"), {"category": "critical"}),
    ],
    ids=str,
)
def test_only_what_a_pause_covers_waits_and_goes_once_when_it_is_resumed(
    at: Installation, scope: Scope, fields: dict[str, Any]
) -> None:
    at.pause(scope)
    covered, other = at.sms(**fields), at.sms()
    at.run()
    assert at.state(covered) == "active"
    assert at.state(other) == ("active" if scope in (Scope(), Scope("sms"), Scope(provider="twilio")) else "texted")
    assert [w.why for w in at.told(covered).waits] == ["pause"]
    assert "the wrong text went out" in at.told(covered).waits[0].sentence
    at.run()
    before = at.texts
    at.resume(scope)
    at.run()
    at.run()
    assert (at.state(covered), at.state(other)) == ("texted", "texted")
    assert at.texts == (before + 2 if before == 0 else before + 1)


def test_a_paused_sender_and_a_paused_template_hold_their_own(at: Installation) -> None:
    with at.here.engine.begin() as conn:
        template_store.put(conn, "order", templates.check("order", ORDER))
    at.pause(Scope(sender="+16505559999"))
    at.pause(Scope(template="order"))
    usual, other = at.sms(), at.sms(content={"template": "order"})
    at.run()
    assert (at.state(usual), at.state(other)) == ("texted", "active")
    at.resume(Scope(template="order"))
    at.pause(Scope("sms", sender=at.here.channels["sms"].sender))
    usual = at.sms()
    at.run()
    assert (at.state(usual), at.state(other)) == ("active", "active")
    at.resume(Scope("sms", sender=at.here.channels["sms"].sender))
    at.run()
    assert (at.state(usual), at.state(other)) == ("texted", "texted")


def test_a_paused_push_starts_its_countdown_when_it_goes(at: Installation) -> None:
    at.pause(Scope("push"))
    id_ = at.push()
    at.run()
    assert at.sandbox.requests("push") == 0
    (push, sms) = at.told(id_).waits
    assert (push.step, push.why, sms.step) == (0, "pause", 1)
    # The pause is nobody's fault: the SMS does not become due by it.
    at.clock.advance(2 * HOUR)
    at.run()
    assert (at.texts, at.sandbox.requests("push")) == (0, 0)
    at.resume(Scope("push"))
    at.run()
    assert (at.texts, at.sandbox.requests("push")) == (0, 1)
    at.clock.advance(timedelta(seconds=590))
    at.run()
    assert at.texts == 0
    at.clock.advance(20 * SECOND)
    at.run()
    assert (at.texts, at.sandbox.requests("push")) == (1, 1)


def test_a_click_ends_what_waits_and_an_opt_out_does(at: Installation) -> None:
    at.pause(SMS)
    clicked, opted_out = at.push(), at.push()
    at.clock.advance(timedelta(seconds=602))
    at.run()
    now = at.told(clicked).created_at
    receipts.record(at.here.engine, [ReceiptEvent(UUID(clicked), Receipt.CLICKED, now, "")])
    assert at.state(clicked) == "reached"
    with at.here.engine.begin() as conn:
        opt_outs.add(conn, [f"+16505551{at._number:03}"], "test")
    at.resume(SMS)
    at.run()
    assert (at.told(opted_out).state, at.told(opted_out).reason) == ("suppressed", "opted_out")
    assert at.texts == 0


def test_what_waits_uses_no_limit_and_ends_when_it_is_of_no_use_any_more(at: Installation) -> None:
    number = {"phone": "+16505550777"}
    at.pause(Scope("sms", category="critical"))
    late = at.sms(category="critical", recipient=number)
    at.run()
    # The number may have one SMS a day, and the one that waits has not taken it.
    other = at.sms(recipient=number, content={"sms": {"text": "Another"}})
    at.run()
    assert at.state(other) == "texted"
    at.clock.advance(at.here.settings.useless_after[Category.CRITICAL] + 2 * SECOND)
    at.run()
    assert (at.told(late).state, at.told(late).reason) == ("suppressed", "too_late")
    push = at.push(category="critical")
    assert at.state(push) == "active"


def test_a_paused_push_that_is_of_no_use_any_more_ends(at: Installation) -> None:
    at.pause(Scope("push"))
    id_ = at.push(category="critical")
    at.run()
    at.clock.advance(HOUR)
    at.run()
    assert (at.told(id_).state, at.told(id_).reason) == ("suppressed", "too_late")
    assert (at.texts, at.sandbox.requests("push")) == (0, 0)


def test_a_pause_ends_by_itself_after_its_time(at: Installation) -> None:
    id_ = at.pause(SMS, span=HOUR)
    one = at.sms()
    at.run()
    with at.here.engine.connect() as conn:
        assert at.told(one).waits[0].until == pauses.list_all(conn)[0].until
    at.clock.advance(HOUR - 2 * SECOND)
    at.run()
    assert at.state(one) == "active"
    at.clock.advance(4 * SECOND)
    at.run()
    assert at.state(one) == "texted"
    with at.here.engine.connect() as conn:
        (over,) = pauses.list_all(conn, everything=True)
    assert (over.id, over.waiting, over.ended_at == over.until) == (id_, 0, True)


def test_what_is_reserved_waits_too_unless_the_pause_drains(at: Installation) -> None:
    first, second = at.sms(), at.sms()
    here = at.worker()
    assert here.fallback.check([first, second]) == sorted([first, second])
    at.pause(SMS, drains=True)
    assert at.worker().later_steps.send([first]) == [first]
    third = at.sms()
    assert at.worker().fallback.check([third]) == []
    at.pause(SMS)
    assert at.worker().later_steps.send([second]) == []
    assert [w.why for w in at.told(second).waits] == ["pause"]
    with at.here.engine.begin() as conn:
        pauses.resume(conn, Scope(), ADA, everything=True)
    at.run()
    assert {at.state(id_) for id_ in (first, second, third)} == {"texted"}
    assert at.texts == 3


def test_a_message_that_was_claimed_before_the_pause_does_not_leave_after_it(at: Installation) -> None:
    id_ = at.sms()
    at.worker().fallback.check([id_])
    sender = at.worker()

    def pause(_: object) -> None:
        at.pause(SMS)
        # The sender stands still for longer than what it knows is fresh.
        sender.pauses._last = PauseGate()._last

    sa.event.listen(at.here.senders, "begin", pause, once=True)
    assert sender.later_steps.send([id_]) == []
    at.run()
    assert (at.texts, at.state(id_)) == (0, "active")
    at.resume(SMS)
    at.run()
    assert (at.texts, at.state(id_)) == (1, "texted")


def test_nothing_sleeps_on_that_a_worker_lets_wait_for_a_pause_that_just_ended(
    at: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is, what this worker has read stays fresh.
    monkeypatch.setattr(pipeline.pauses, "_FRESH", timedelta(minutes=1))
    monkeypatch.setattr(pipeline.pauses, "_HOLDS", timedelta(minutes=1))
    at.pause(SMS)
    stale = at.worker()
    with at.here.engine.connect() as conn:
        assert stale.pauses.look(conn).pauses
    id_ = at.sms()
    at.resume(SMS)
    paused.wake(at.here.engine)
    assert stale.fallback.check([id_]) == []
    at.run()
    assert (at.texts, at.state(id_)) == (1, "texted")


def test_a_resume_waits_for_a_worker_that_is_letting_messages_wait(at: Installation) -> None:
    at.pause(SMS)
    id_ = at.sms()
    with at.here.engine.begin() as conn:
        (one,) = paused.active(conn)
        until = at.told(id_).created_at + DAY
        paused.wait(conn, [paused.Stopped(id_, 1, one, until, known=False)])
        with at.here.engine.connect() as other:
            other.execute(sa.text("SET LOCAL lock_timeout = '50ms'"))
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                pauses.resume(other, SMS, ADA)
    at.resume(SMS)
    at.run()
    assert at.state(id_) == "texted"


def test_a_worker_that_dies_while_it_wakes_leaves_the_rest_to_the_next(at: Installation) -> None:
    at.pause(SMS)
    ids = [at.sms() for _ in range(3)]
    at.run()
    at.resume(SMS)
    with at.here.engine.connect() as holder:
        # Somebody holds one of the rows, so that it is passed over.
        store.lock_open(holder, ids[:1])
        assert paused.wake(at.here.engine) == 2
    with at.here.engine.connect() as conn:
        assert [one.waiting for one in pauses.list_all(conn)] == [1]
    at.run()
    assert [at.state(id_) for id_ in ids] == ["texted"] * 3
    with at.here.engine.connect() as conn:
        assert pauses.list_all(conn) == []


def test_pauses_are_read_twice_a_second_and_not_for_each_message(at: Installation) -> None:
    asked: list[str] = []
    here = at.worker()

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM pauses" in statement:
            asked.append(statement)

    sa.event.listen(at.here.engine, "before_cursor_execute", note)
    with at.here.engine.connect() as conn:
        for _ in range(100):
            assert not here.pauses.look(conn).pauses
    sa.event.remove(at.here.engine, "before_cursor_execute", note)
    assert len(asked) == 1


def test_a_scope_that_covers_nothing_is_refused_with_all_its_problems(at: Installation) -> None:
    with at.here.engine.connect() as conn, pytest.raises(InvalidMessage) as error:
        pauses.checked(conn, Scope("smoke", "acme", "MyVeryLongCompanyName", "XX", "orders", "vital"), at.here.channels)
    said = str(error.value)
    for name in ("channel", "provider", "sender", "country", "template", "category"):
        assert f"{name}: " in said
    with at.here.engine.connect() as conn:
        assert pauses.checked(conn, Scope("sms", country="de"), at.here.channels) == Scope("sms", country="DE")
        with pytest.raises(InvalidMessage, match="a push has no sender and no country"):
            pauses.checked(conn, Scope("push", country="DE"), at.here.channels)


def test_each_change_leaves_a_line_and_an_alarm_for_webhooks(at: Installation) -> None:
    at.pause(Scope("sms", country="DE"))
    at.resume(Scope("sms", country="DE"))
    with pytest.raises(pauses.NotPaused, match="sms is not paused; paused now: nothing"):
        at.resume(SMS)
    with at.here.engine.connect() as conn:
        found = [(line.actor, line.action, line.subject["country"], line.reason) for line in audit.lines(conn)]
        alarms = conn.execute(sa.text("SELECT type, data ->> 'what' FROM alarms ORDER BY type")).all()
    assert found == [("ada@desk", "resume", "DE", ADA.reason), ("ada@desk", "pause", "DE", ADA.reason)]
    assert [tuple(row) for row in alarms] == [("pause.on", "sms, country DE"), ("pause.over", "sms, country DE")]
    with pytest.raises(InvalidMessage, match="reason: say why"):
        By("ada@desk", " ")


def test_a_push_that_was_accepted_before_the_pause_does_not_leave_after_it(at: Installation) -> None:
    sender = at.worker()
    recipient = {"id": str(uuid7()), "registrations": ["silent-1"], "phone": "+16505550100"}
    plan = [{"channel": "sms", "when": "not_delivered", "after_s": 600}]
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}, "plan": plan}

    def pause_meanwhile(_: object) -> bool:
        at.pause(Scope("push"))
        sender.pauses._last = PauseGate()._last
        return True

    sender.pushes.send_all([parse_batch({**wire, "recipients": [recipient]})], pause_meanwhile)
    at.run()
    assert at.sandbox.requests("push") == 0
    assert at.told(str(recipient["id"])).waits[0].why == "pause"
    at.clock.advance(2 * HOUR)
    at.run()
    at.resume(Scope("push"))
    at.run()
    at.clock.advance(timedelta(seconds=590))
    at.run()
    assert (at.texts, at.sandbox.requests("push")) == (0, 1)
    at.clock.advance(20 * SECOND)
    at.run()
    assert (at.texts, at.sandbox.requests("push")) == (1, 1)


def test_a_push_that_was_taken_up_again_before_the_pause_does_not_leave_after_it(at: Installation) -> None:
    at.sandbox.rule(Rule("push", times=1, answer=Answer(status=503, retry_after=1)))
    id_ = at.push()
    sender = at.worker()

    def pause_meanwhile(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM pauses" not in statement and "d.state = 'sending' AND (" in statement and not at.paused:
            at.pause(Scope("push"))
            sender.pauses._last = PauseGate()._last

    sa.event.listen(at.here.engine, "before_cursor_execute", pause_meanwhile)
    at.clock.advance(5 * SECOND)
    sender.pushes.resume([id_])
    sa.event.remove(at.here.engine, "before_cursor_execute", pause_meanwhile)
    assert at.paused
    assert at.sandbox.requests("push") == 1
    at.run()
    assert at.told(id_).waits[0].why == "pause"
    at.resume(Scope("push"))
    at.run()
    assert at.sandbox.requests("push") == 2


@dataclass
class Seeing:
    """A carrier that notes until when its requests may leave, and sends none of them."""

    until: list[Deadline] = field(default_factory=list)
    meanwhile: Callable[[Deadline], None] = lambda _: None

    def send(self, requests: Sequence[Request], not_after: Deadline | None = None, /) -> list[Response | NoResponse]:
        assert not_after is not None
        self.until.append(not_after)
        self.meanwhile(not_after)
        return [NoResponse("late", sent=False, late=True)] * len(requests)


def test_a_message_leaves_only_while_the_last_look_at_the_pauses_holds(at: Installation) -> None:
    id_ = at.sms()
    sender = at.worker()
    with at.here.engine.connect() as conn:
        look = replace(sender.pauses.look(conn), fresh=Deadline(float("inf")))
    sender.pauses._last = look
    seen = Seeing()
    reserved = sender.fallback.check([id_])
    assert replace(sender.later_steps, transport=seen).send(reserved) == []
    replace(sender.pushes, delivery=replace(sender.pushes.delivery, transport=seen)).send(
        parse_batch(
            {
                "v": 1,
                "id": str(uuid7()),
                "content": {"push": {"title": "t", "body": "b"}},
                "recipients": [{"id": str(uuid7()), "registrations": ["silent-1"]}],
            }
        )
    )
    assert [until <= look.holds for until in seen.until] == [True, True]
    assert look.holds < Deadline.within(timedelta(seconds=2))


def test_a_pause_reaches_a_message_that_waits_for_a_slow_connection(at: Installation) -> None:
    id_ = at.sms()
    sender = at.worker()
    reserved = sender.fallback.check([id_])
    with at.here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET tries = 5"))

    def pause(not_after: Deadline) -> None:
        assert not not_after.over
        at.pause(SMS)
        eventually(lambda: not_after.over)
        # By itself it would last for half a minute.
        assert not Deadline(not_after.at).over

    assert replace(sender.later_steps, transport=Seeing(meanwhile=pause)).send(reserved) == []
    at.run()
    assert (at.texts, at.told(id_).waits[0].why) == (0, "pause")
    at.resume(SMS)
    at.run()
    assert (at.texts, at.state(id_)) == (1, "texted")


@pytest.mark.parametrize("carried_out", [True, False], ids=["committed", "accepted"])
def test_a_cancellation_reaches_a_message_that_waits_for_a_slow_connection(
    at: Installation, valkey_url: str, carried_out: bool
) -> None:
    id_ = at.sms()
    sender = at.worker()
    reserved = sender.fallback.check([id_])
    with at.here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET tries = 5"))

    def cancel(not_after: Deadline) -> None:
        assert not not_after.over
        if carried_out:
            with at.here.engine.begin() as conn:
                store.note_cancelled(conn, [id_], [], datetime.now(UTC), None)
        else:
            with Client(valkey_url) as client:
                client.cancel(UUID(id_))
        eventually(lambda: not_after.over)
        assert not Deadline(not_after.at).over

    assert replace(sender.later_steps, transport=Seeing(meanwhile=cancel)).send(reserved) == []
    at.run()
    assert (at.texts, at.state(id_)) == (0, "cancelled")


def test_a_late_deadline_holds_only_while_somebody_looks(at: Installation) -> None:
    late, past = Deadline.within(HOUR), Deadline.within(-SECOND)
    with at.worker().pauses.watching(at.here.engine, [], late, past, lambda: False) as until:
        # As of a process that stood still: what it knows is too old.
        assert until.over
        eventually(lambda: not until.over)


def test_a_push_that_stumbles_after_a_long_pause_is_tried_again_and_texts_nobody(at: Installation) -> None:
    at.pause(Scope("push"))
    id_ = at.push()
    at.run()
    at.clock.advance(timedelta(seconds=at.here.settings.push_retry_s) + HOUR)
    at.resume(Scope("push"))
    at.sandbox.rule(Rule("push", times=1, answer=Answer(status=503, retry_after=5)))
    at.run()
    assert (at.texts, at.sandbox.requests("push")) == (0, 1)
    at.clock.advance(10 * SECOND)
    at.run()
    assert (at.state(id_), at.texts, at.sandbox.requests("push")) == ("active", 0, 2)


@pytest.mark.parametrize("reserved", [False, True])
def test_an_sms_that_stumbles_after_a_long_pause_is_tried_again(at: Installation, reserved: bool) -> None:
    id_ = at.sms()
    if reserved:
        at.worker().fallback.check([id_])
    at.pause(SMS)
    at.run()
    at.clock.advance(timedelta(seconds=at.here.settings.sms_retry_s) + HOUR)
    if reserved:
        at.worker().later_steps.send([id_])
    at.resume(SMS)
    at.sandbox.rule(Rule("sms", times=1, answer=Answer(status=429)))
    at.run()
    assert at.state(id_) == "active"
    at.clock.advance(timedelta(minutes=15))
    at.run()
    assert (at.state(id_), at.sandbox.requests("sms")) == ("texted", 2)


def test_what_two_pauses_cover_waits_for_both(at: Installation) -> None:
    german = Scope("sms", country="DE")
    for first, second in ((SMS, german), (german, SMS)):
        at.pause(SMS)
        at.pause(german)
        id_ = at.sms(recipient={"phone": f"+49151234567{at._number:02}"})
        at.run()
        at.resume(first)
        at.run()
        assert (at.state(id_), [w.why for w in at.told(id_).waits]) == ("active", ["pause"])
        at.resume(second)
        at.run()
        assert at.state(id_) == "texted"
    assert at.texts == 2


def test_a_pause_of_pushes_holds_no_sms_that_stands_alone(at: Installation) -> None:
    at.pause(Scope("push"))
    id_ = at.sms()
    at.run()
    assert at.state(id_) == "texted"


def test_a_pause_that_drains_lets_a_push_be_tried_again_and_stops_new_ones(at: Installation) -> None:
    at.sandbox.rule(Rule("push", times=1, answer=Answer(status=503, retry_after=1)))
    tried = at.push()
    at.pause(Scope("push"), drains=True)
    new = at.push()
    at.clock.advance(5 * SECOND)
    at.run()
    assert at.sandbox.requests("push") == 2
    assert [next((w.step, w.why) for w in at.told(id_).waits) for id_ in (tried, new)] == [
        (1, "countdown"),
        (0, "pause"),
    ]
    at.resume(Scope("push"))
    at.run()
    assert at.sandbox.requests("push") == 3


@pytest.mark.parametrize("later", [False, True])
def test_a_pause_of_pushes_holds_no_sms_of_a_person_without_a_device(at: Installation, later: bool) -> None:
    people = [f"{name}-{later}" for name in ("without", "off", "with-one")]
    with at.here.engine.begin() as conn:
        for place, name in enumerate(people):
            given = {"name": name, "number": f"+165055502{place:02}", "on": place == 2, "device": f"silent-{name}"}
            conn.execute(sa.text("INSERT INTO users (id) VALUES (:name)"), given)
            conn.execute(sa.text("INSERT INTO phones (user_id, number) VALUES (:name, :number)"), given)
            if place:
                conn.execute(
                    sa.text(
                        "INSERT INTO devices (registration, user_id, notifications_enabled) VALUES (:device, :name, :on)"
                    ),
                    given,
                )
    when = (at.told(at.sms()).created_at + HOUR).isoformat()
    more = {"send_at": when} if later else {}
    at.pause(Scope("push"))
    ids = [at.push(recipient={"id": str(uuid7()), "user": name}, **more) for name in people]
    given = {"id": str(uuid7()), "registrations": [f"silent-{people[1]}"], "phone": "+16505550210"}
    ids.append(at.push(recipient=given, **more))
    at.clock.advance(HOUR + SECOND if later else SECOND)
    at.run()
    assert [at.state(id_) for id_ in ids] == ["texted", "texted", "active", "texted"]
    assert at.told(ids[2]).waits[0].why == "pause"
    assert at.sandbox.requests("push") == 0


def test_nested_and_repeated_pauses_each_hold_until_their_own_end(at: Installation) -> None:
    with at.here.engine.begin() as conn:
        template_store.put(conn, "order", templates.check("order", ORDER))
    german, both = Scope("sms", country="DE"), Scope("sms", country="DE", template="order")
    at.pause(german, span=HOUR)
    at.pause(both, span=3 * HOUR)
    second = at.pause(both)
    plain = at.sms(recipient={"phone": "+4915123456701"})
    order = at.sms(content={"template": "order"}, recipient={"phone": "+4915123456702"})
    at.run()
    # The first pause ends while no worker runs.
    at.clock.advance(2 * HOUR)
    at.run()
    assert (at.state(plain), at.state(order)) == ("texted", "active")
    # The same scope once more: the end of one leaves the other on.
    at.clock.advance(2 * HOUR)
    at.run()
    with pytest.raises(pauses.NotPaused, match=r"sms, country DE is not paused; paused now: .*template order"):
        at.resume(german)
    with at.here.engine.connect() as conn:
        assert [(one.id, one.waiting) for one in pauses.list_all(conn)] == [(second, 1)]
    at.resume(both)
    at.run()
    assert (at.state(order), at.texts) == ("texted", 2)


def test_a_cancelled_message_ends_while_it_is_paused(at: Installation) -> None:
    at.pause(SMS)
    id_ = at.sms()
    at.run()
    cancellation.cancel(at.here.engine, [id_], [])
    assert at.state(id_) == "cancelled"
    at.resume(SMS)
    at.run()
    assert at.texts == 0


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (Scope("sms", country=""), "country: "),
        (Scope("sms", sender=""), "sender: "),
        (Scope("sms", template=""), "template: "),
        (Scope("sms", provider="fcm"), "provider: there is no fcm; there are: twilio"),
        (Scope("push", provider="twilio"), "provider: there is no twilio; there are: fcm"),
        (Scope(provider="fcm", country="DE"), "provider: a push has no sender and no country"),
    ],
    ids=str,
)
def test_a_pause_that_could_stop_nothing_is_refused(at: Installation, scope: Scope, said: str) -> None:
    with at.here.engine.connect() as conn, pytest.raises(InvalidMessage, match=said):
        pauses.checked(conn, scope, at.here.channels)


def test_a_pause_is_ended_by_the_words_that_set_it(at: Installation) -> None:
    words = Scope("sms", sender=" +1 650 555 0199 ", country="us")
    with at.here.engine.begin() as conn:
        pauses.pause(conn, pauses.checked(conn, words, at.here.channels), ADA)
    at.resume(words)
    with at.here.engine.begin() as conn, pytest.raises(pauses.NotPaused, match="is not on"):
        pauses.resume(conn, Scope(), ADA, id_=10**30)


@pytest.mark.parametrize("reason", ["", "  ", "x" * 501, "two\nlines", "\x1b[2Ja clean sheet", "\udcff"])
def test_a_reason_is_one_line_that_a_terminal_shows_as_it_is(reason: str) -> None:
    with pytest.raises(InvalidMessage, match="reason: "):
        By("ada", reason)


def test_a_form_that_says_too_little_or_nonsense_pauses_nothing(at: Installation) -> None:
    empty = dict.fromkeys(steering.FIELDS, "")
    for given, said in (
        ({"verb": "pause"}, "channel: say what"),
        ({"verb": "pause", "channel": "sms", "for": "0"}, "for: must be longer than nothing"),
        ({"verb": "pause", "channel": "sms", "for": "-1h"}, "for: must be"),
        ({"verb": "resume", "id": "\u00b2"}, "id: must be"),
        ({"verb": "stop"}, "verb: "),
    ):
        with at.here.engine.begin() as conn, pytest.raises(InvalidMessage, match=said):
            steering.switch(conn, {**empty, **given}, ADA, at.here.channels)
    with at.here.engine.begin() as conn:
        steering.switch(conn, {**empty, "verb": "pause", "channel": "all"}, ADA, at.here.channels)
        with pytest.raises(pauses.NotPaused):
            steering.switch(conn, {**empty, "verb": "resume", "id": "9" * 40}, ADA, at.here.channels)
        assert [(one.scope, one.until) for one in pauses.list_all(conn)] == [(Scope(), None)]
