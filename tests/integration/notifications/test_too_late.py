"""What was due too long ago is of no use: it does not go out, and its reason says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import Client, Push
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Category, parse_batch
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.content import template_store
from knocktwice_worker.content.templates import InvalidDefinition, check
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.sandbox import Answer, Rule
from knocktwice_worker.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis

    from knocktwice_worker.reporting.story import Story
    from knocktwice_worker.sandbox import Sandbox
    from support.clock import Clock
    from support.commands import CommandOutput
    from support.http_gateway import HttpGateway

NUMBER = "+16505550100"
SECOND, HOUR = timedelta(seconds=1), timedelta(hours=1)
PUSH = {"push": {"title": "t", "body": "b"}}


@pytest.fixture
def here(working: Services) -> Iterator[Services]:
    """A worker's services, at any hour."""
    built = Services(working.settings.model_copy(update={"quiet_hours": ""}))
    yield built
    built.close()


def _sms(here: Services, category: Category = Category.TRANSACTIONAL, **fields: Any) -> str:
    """Accept an SMS; return its id."""
    recipient = {"id": str(uuid7()), "phone": NUMBER}
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    here.pushes.send(parse_batch({**wire, "category": category, "recipients": [recipient], **fields}))
    return recipient["id"]


def _push(here: Services, category: Category = Category.TRANSACTIONAL, **fields: Any) -> str:
    """Accept a push to a device that never answers, and behind it two SMS; return its id."""
    id_ = str(uuid7())
    recipient = {"id": id_, "registrations": ["silent-1"], "phone": NUMBER}
    plan = [{"channel": "sms", "when": "not_delivered", "after_s": s} for s in (600, 600)]
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": PUSH, "plan": plan, "category": category}
    here.pushes.send(parse_batch({**wire, "recipients": [recipient], **fields}))
    return id_


def _told(here: Services, id_: str) -> Story:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return told


def _ended_too_late(here: Services, id_: str) -> bool:
    told = _told(here, id_)
    said = [m.sentence for m in told.moments if "of no use any more" in m.sentence]
    return (told.state, told.reason) == ("suppressed", "too_late") and bool(said)


def _useful(here: Services, category: Category) -> timedelta:
    return here.settings.useless_after[category]


@pytest.mark.parametrize("category", list(Category))
def test_a_step_that_nobody_decided_in_time_is_not_sent(
    here: Services, sandbox: Sandbox, clock: Clock, category: Category
) -> None:
    late, just = _sms(here, category), _sms(here, category)
    clock.advance(_useful(here, category) - 10 * SECOND)
    here.later_steps.send(here.fallback.check([just]))
    clock.advance(11 * SECOND)
    assert here.fallback.check([late]) == []
    assert _told(here, just).state == "texted"
    assert _ended_too_late(here, late)
    assert len(sandbox.texts(NUMBER)) == 1


def test_a_message_that_its_provider_did_not_take_in_time_is_not_sent(
    here: Services, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.rule(Rule("sms", times=1, answer=Answer(status=429)))
    id_ = _sms(here, Category.CRITICAL)
    here.later_steps.send(here.fallback.check([id_]))
    assert _told(here, id_).steps[0].state == "reserved"
    clock.advance(_useful(here, Category.CRITICAL) + SECOND)
    assert here.later_steps.send([id_]) == []
    assert _ended_too_late(here, id_)
    assert sandbox.requests("sms") == 1


def test_a_message_that_becomes_useless_behind_its_claim_is_not_sent(
    here: Services, sandbox: Sandbox, clock: Clock
) -> None:
    """The sender stands still between its claim and the call."""
    id_ = _sms(here, Category.CRITICAL)
    assert here.fallback.check([id_]) == [id_]

    def stand_still(_: object) -> None:
        clock.advance(_useful(here, Category.CRITICAL))

    sa.event.listen(here.senders, "begin", stand_still)
    assert here.later_steps.send([id_]) == []
    assert _told(here, id_).steps[0].state == "reserved"
    sa.event.remove(here.senders, "begin", stand_still)
    assert here.later_steps.send([id_]) == []
    assert _ended_too_late(here, id_)
    assert sandbox.requests("sms") == 0


def test_nothing_follows_a_step_that_was_too_late(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    id_ = _push(here)
    clock.advance(_useful(here, Category.TRANSACTIONAL) + HOUR)
    assert here.fallback.check([id_]) == []
    assert _ended_too_late(here, id_)
    assert [s.step for s in _told(here, id_).steps] == [0, 1]
    assert sandbox.texts(NUMBER) == []


@pytest.mark.parametrize("at_once", [True, False])
def test_a_push_that_no_worker_took_up_in_time_ends_with_its_steps(
    here: Services, sandbox: Sandbox, clock: Clock, at_once: bool
) -> None:
    """It waited for another try, or for its time."""
    fields: dict[str, Any] = {}
    if at_once:
        sandbox.rule(Rule("push", answer=Answer(status=503)))
    else:
        fields["send_at"] = (datetime.now(UTC) + HOUR).isoformat()
    id_ = _push(here, Category.CRITICAL, **fields)
    sandbox.clear_rules()
    pushes = len(sandbox.pushes("silent-1"))
    clock.advance(_useful(here, Category.CRITICAL) + 2 * HOUR)
    here.pushes.resume([id_])
    assert len(sandbox.pushes("silent-1")) == pushes
    assert _ended_too_late(here, id_)
    assert {s.state for s in _told(here, id_).steps} == {"skipped"}


SHORT = 600 * SECOND


def test_a_message_says_itself_how_long_it_is_of_use(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    short, usual = _sms(here, valid_for_s=600), _sms(here, content={"sms": {"text": "Hi"}})
    undecided = _sms(here, valid_for_s=601)
    sandbox.rule(Rule("sms", times=2, answer=Answer(status=429)))
    assert here.fallback.check([short, usual]) == [short, usual]
    here.later_steps.send([short, usual])
    clock.advance(SHORT + 2 * SECOND)
    assert here.fallback.check([undecided]) == []
    assert here.later_steps.send([short, usual]) == [usual]
    assert _ended_too_late(here, short)
    assert _ended_too_late(here, undecided)
    assert _told(here, usual).state == "texted"


def test_a_message_may_be_of_use_for_longer_than_its_category(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    id_ = _sms(here, Category.CRITICAL, valid_for_s=7_200)
    clock.advance(HOUR)
    here.later_steps.send(here.fallback.check([id_]))
    assert _told(here, id_).state == "texted"
    (sent,) = sandbox.texts(NUMBER)
    assert sent.validity_s in range(3590, 3601)


def test_a_push_that_waits_ends_when_it_is_of_no_use_any_more(here: Services, sandbox: Sandbox, clock: Clock) -> None:
    sandbox.rule(Rule("push", answer=Answer(status=503)))
    id_ = _push(here, valid_for_s=600)
    sandbox.clear_rules()
    clock.advance(SHORT + HOUR)
    here.pushes.resume([id_])
    assert sandbox.pushes("silent-1") == []
    assert _ended_too_late(here, id_)


def test_a_send_at_that_is_over_for_longer_is_refused(here: Services) -> None:
    at = (datetime.now(UTC) - HOUR).isoformat()
    gone, fine = _sms(here, send_at=at, valid_for_s=3_000), _sms(here, send_at=at, valid_for_s=4_000)
    assert (_told(here, gone).reason or "").startswith("too_late: send_at is over for longer than the message")
    assert _told(here, fine).state == "active"


def test_a_template_says_it_for_its_messages_and_the_sender_has_the_last_word(
    here: Services, sandbox: Sandbox, clock: Clock
) -> None:
    texts = {"contents": {"en": {"push": {"title": "t", "body": "b"}}}, "default_locale": "en", "valid_for": "10m"}
    definition = check("code", {**texts, "category": "critical"})
    assert definition.as_json()["valid_for"] == "10m"
    with here.engine.begin() as conn:
        template_store.put(conn, "code", definition)
    by_template = _sms(here, content={"template": "code"})
    own = _sms(here, content={"template": "code"}, valid_for_s=3_600)
    clock.advance(SHORT + SECOND)
    here.later_steps.send(here.fallback.check([by_template, own]))
    assert _ended_too_late(here, by_template)
    assert _told(here, own).state == "texted"
    assert len(sandbox.texts(NUMBER)) == 1


@pytest.mark.parametrize(("written", "problem"), [("0s", "at least 1s"), ("31d", "30 days"), ("soon", "10m|90s")])
def test_a_template_that_is_of_use_for_an_impossible_time_is_refused(written: str, problem: str) -> None:
    texts = {"contents": {"en": {"push": {"title": "t", "body": "b"}}}, "default_locale": "en", "valid_for": written}
    with pytest.raises(InvalidDefinition, match=problem) as caught:
        check("code", texts)
    assert caught.value.field == "code.valid_for"


@pytest.mark.parametrize("seconds", [0, 0.5, -1, 2_592_001, "600", True])
def test_a_message_that_is_of_use_for_an_impossible_time_is_refused(seconds: object) -> None:
    wire = {"v": 1, "id": str(uuid7()), "content": PUSH, "recipients": [{"id": str(uuid7()), "user": "u"}]}
    with pytest.raises(InvalidMessage) as caught:
        parse_batch({**wire, "valid_for_s": seconds})
    assert caught.value.field == "valid_for_s"


@pytest.mark.parametrize(
    ("fields", "ttl_s"),
    [
        ({"valid_for_s": 60}, 60),
        ({"valid_for_s": 60, "ttl_s": 30}, 30),
        ({"valid_for_s": 60, "ttl_s": 3_600}, 60),
        ({"valid_for_s": 3_600}, 630),
        ({"valid_for_s": 3_600, "plan": []}, 3_600),
        ({"plan": [], "category": "critical"}, 1_800),
        ({"plan": [], "category": "critical", "ttl_s": 9_000}, 9_000),
    ],
)
def test_fcm_keeps_a_push_no_longer_than_it_is_of_use(
    here: Services, sandbox: Sandbox, fields: dict[str, Any], ttl_s: int
) -> None:
    _push(here, **fields)
    (pushed,) = sandbox.pushes("silent-1")
    assert pushed.message["android"]["ttl"] == f"{ttl_s}s"


def test_the_library_the_gateway_and_the_command_line_say_it(
    gateway: HttpGateway, valkey: redis.Redis, valkey_url: str, run: Callable[..., CommandOutput]
) -> None:
    with Client(valkey_url) as client:
        client.notify(user="u", push=Push("t", "b"), valid_for=timedelta(minutes=10))
        client.blast({"everyone": True}, key="k", push=Push("t", "b"), valid_for=timedelta(minutes=10))
        with pytest.raises(InvalidMessage, match="valid_for: must be at least 1 second"):
            client.notify(user="u", push=Push("t", "b"), valid_for=timedelta())
    http = gateway.client()
    assert http.post("/v1/notifications", json={"user": "u", **PUSH, "valid_for_s": 600}).status_code == 202
    refused = http.post("/v1/notifications", json={"user": "u", **PUSH, "valid_for_s": 0})
    assert (refused.status_code, refused.json()["field"]) == (422, "valid_for_s")
    words = ("notify", "--user", "u", "--title", "t", "--body", "b", "--valid-for")
    assert run(*words, "10m").code == 0
    assert "--valid-for" in run(*words, "31d").err
    entries: Any = valkey.hvals(INBOX_MESSAGES)
    assert [json.loads(entry)["message"]["valid_for_s"] for entry in entries] == [600] * 4


def test_a_time_in_1999_is_refused_and_one_a_moment_ago_is_not(here: Services, sandbox: Sandbox) -> None:
    gone, now = (
        send(here, send_at=at)
        for send, at in ((_sms, "1999-12-31T23:59:00+00:00"), (_sms, (datetime.now(UTC) - HOUR).isoformat()))
    )
    told = _told(here, gone)
    assert (told.state, told.steps) == ("failed", [])
    assert (told.reason or "").startswith("too_late: send_at is over")
    here.later_steps.send(here.fallback.check([gone, now]))
    assert _told(here, now).state == "texted"
    assert len(sandbox.texts(NUMBER)) == 1


@pytest.mark.parametrize(
    ("category", "waited", "validity"),
    [
        (Category.CRITICAL, timedelta(), range(1790, 1801)),
        (Category.CRITICAL, timedelta(minutes=29), range(50, 61)),
        (Category.TRANSACTIONAL, timedelta(), [None]),
        (Category.TRANSACTIONAL, 23 * HOUR, range(3590, 3601)),
    ],
)
def test_twilio_is_told_how_long_it_may_hold_a_message(
    here: Services,
    sandbox: Sandbox,
    clock: Clock,
    category: Category,
    waited: timedelta,
    validity: Sequence[int | None],
) -> None:
    id_ = _sms(here, category)
    clock.advance(waited)
    here.later_steps.send(here.fallback.check([id_]))
    (sent,) = sandbox.texts(NUMBER)
    assert sent.validity_s in validity
