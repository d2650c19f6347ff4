"""What the operator must mend is nobody else's fault: messages wait, the log says it, doctor shows it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.auth.exceptions import RefreshError, TransportError
from sqlalchemy import text
from structlog.testing import capture_logs

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.channels.fcm import FcmChannel
from knocktwice_worker.channels.messages import PushMessage
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outbound.troubles import Troubles
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.channels.twilio.reports import read_callback
from knocktwice_worker.diagnosis import doctor
from knocktwice_worker.gateway.intake.callbacks import CallbackIntake
from knocktwice_worker.reporting.story import Story, tell
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.sandbox import Answer, Rule

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

NUMBER = "+16505550100"
SMS = [{"channel": "sms", "when": "not_clicked", "after_s": 0}]
#: Twilio's codes for what the operator must mend.
OPERATORS = [20003, 21212, 21408, 21603, 21606, 21608, 21659, 21705]


@pytest.fixture(autouse=True)
def quiet_before(working: Services) -> None:
    working.redis.delete("knocktwice:troubles")


def _send(here: Services, registration: str = "silent-1", **fields: Any) -> str:
    person = {"id": str(uuid7()), "registrations": [registration], "phone": NUMBER}
    content = {"push": {"title": "t", "body": f"b {person['id']}"}}
    wire = {"v": 1, "id": str(uuid7()), "content": content, "recipients": [person], **fields}
    here.pushes.send(parse_batch(wire))
    return str(person["id"])


def _text(here: Services) -> str:
    id_ = _send(here, plan=SMS)
    here.later_steps.send(here.fallback.check([id_]))
    return id_


def _work(here: Services) -> None:
    """Do what is due, as a worker would."""
    rung: list[tuple[str, Any]] = []
    dispatch(here, lambda task, ids: rung.append((task, ids)))
    for task, ids in rung:
        if task == "knocktwice.send_sms":
            here.later_steps.send(ids)
        elif task == "knocktwice.resume_push":
            here.pushes.resume(ids)
        elif task == "knocktwice.check_fallback":
            here.later_steps.send(here.fallback.check(ids))


def _told(here: Services, id_: str) -> Story:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told is not None
    return told


def _doctor(here: Services) -> tuple[str, str]:
    (check,) = [check for check in doctor.examine(here) if check.name == "refusals"]
    return check.level.value, check.finding


@pytest.mark.parametrize("code", OPERATORS)
def test_a_message_waits_until_the_operator_has_mended_it(
    working: Services, sandbox: Sandbox, clock: Clock, code: int
) -> None:
    sandbox.rule(Rule("sms", answer=Answer(error_code=code)))
    with capture_logs() as logs:
        id_ = _text(working)
    told = _told(working, id_)
    assert (told.state, told.steps[1].state) == ("active", "reserved")
    (line,) = [entry for entry in logs if entry["event"].startswith("provider refuses us")]
    assert (line["log_level"], line["provider"], line["messages"]) == ("warning", "twilio", 1)
    assert f"Twilio {code}" in line["reason"]
    level, finding = _doctor(working)
    assert level == "error"
    assert finding.startswith("twilio refuses us (1 message,")
    assert f"Twilio {code}: " in finding
    # Longer than a provider gets that only asks for patience.
    clock.advance(timedelta(hours=6))
    sandbox.clear_rules()
    _work(working)
    assert _told(working, id_).state == "texted"


def test_a_message_that_is_of_no_use_any_more_ends_as_too_late(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    sandbox.rule(Rule("sms", answer=Answer(error_code=21212)))
    id_ = _text(working)
    clock.advance(timedelta(hours=25))
    _work(working)
    told = _told(working, id_)
    assert (told.state, told.reason) == ("suppressed", "too_late")
    assert sandbox.requests("sms") == 1


def test_a_wrong_token_is_the_operators_too(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("sms", answer=Answer(status=401)))
    id_ = _text(working)
    assert _told(working, id_).steps[1].state == "reserved"
    assert _doctor(working)[0] == "error"


def test_a_refusal_of_the_number_stays_the_recipients(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("sms", answer=Answer(error_code=21211)))
    assert _told(working, _text(working)).state == "failed"
    assert _doctor(working) == ("ok", "no provider refuses us")


def test_devices_of_another_project_wait_until_one_of_ours_is_pushed(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    with working.engine.begin() as conn:
        conn.execute(text("INSERT INTO users (id) VALUES ('u')"))
        conn.execute(text("INSERT INTO devices (registration, user_id, platform) VALUES ('silent-10', 'u', 'ios')"))
    sandbox.rule(Rule("push", answer=Answer(error_code="SENDER_ID_MISMATCH")))
    ids = [_send(working, f"silent-{n}", plan=SMS) for n in range(10, 14)]
    # A worker that has just started knows nothing of its credentials: not even the first device is to blame.
    assert [_told(working, id_).steps[0].state for id_ in ids] == ["scheduled"] * 4
    level, finding = _doctor(working)
    assert level == "error"
    assert "the credentials are of another Firebase project" in finding
    sandbox.clear_rules()
    sandbox.rule(Rule("push", match="silent-10", answer=Answer(error_code="SENDER_ID_MISMATCH")))
    assert _told(working, _send(working, "silent-2")).state == "pushed"
    clock.advance(timedelta(minutes=2))
    _work(working)
    assert [_told(working, id_).steps[0].state for id_ in ids] == ["failed", "sent", "sent", "sent"]
    with working.engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM devices")).scalar_one() == 1
    # More devices in a row than have ever been strangers: the credentials again.
    sandbox.rule(Rule("push", answer=Answer(error_code="SENDER_ID_MISMATCH")))
    states = [_told(working, _send(working, f"silent-{n}", plan=SMS)).steps[0].state for n in range(20, 25)]
    assert states[2:] == ["scheduled"] * 3


def test_a_lapsed_apns_key_is_shown_at_once(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("push", answer=Answer(error_code="THIRD_PARTY_AUTH_ERROR")))
    with capture_logs() as logs:
        _send(working)
    assert [entry["provider"] for entry in logs if entry["event"].startswith("provider refuses us")] == ["fcm"]
    assert _doctor(working) == ("error", _doctor(working)[1])
    assert "check the APNs key" in _doctor(working)[1]


@pytest.mark.parametrize(
    ("kind", "said", "operators", "told"),
    [
        (RefreshError, ["invalid_grant: Invalid JWT: iat and exp", {"error": "invalid_grant"}], True, "clock"),
        (RefreshError, ["invalid_client: no such client"], True, "RefreshError"),
        (TransportError, ["connection refused"], False, "TransportError"),
    ],
)
def test_credentials_that_google_refuses_are_the_operators_and_a_network_is_not(
    kind: type[Exception], said: list[Any], operators: bool, told: str
) -> None:
    class Credential:
        valid, expired, token = False, True, None

        def refresh(self, _: object) -> None:
            raise kind(*said)

    channel = FcmChannel(url="http://127.0.0.1:1", credentials_file=None, project="p")
    channel.__dict__["_credential"] = Credential()
    transport = Transport(timeout=1, in_flight=1)
    push = PushMessage("01939e2b-6b43-7e5a-9f6e-000000000001", "silent-1", "t", "b", timedelta(hours=1))
    (outcome,) = deliver(transport, channel, [push])
    transport.close()
    assert isinstance(outcome, Retry)
    assert (outcome.operators, told in outcome.reason) == (operators, True)


@pytest.mark.parametrize("code", [30002, 30034, 30018])
def test_a_message_that_twilio_fails_later_for_the_account_is_shown_and_says_nothing_of_the_number(
    working: Services, sandbox: Sandbox, code: int
) -> None:
    told = _text(working)
    (sent,) = sandbox.texts()
    form = {"MessageSid": sent.sid, "MessageStatus": "undelivered", "ErrorCode": str(code)}
    report = read_callback(form, datetime.now(UTC))
    assert report is not None

    async def taken() -> None:
        intake = CallbackIntake(working)
        await intake.take(report)
        await intake.close()

    asyncio.run(taken())
    level, finding = _doctor(working)
    assert (level, f"Twilio {code}: " in finding) == ("error", True)
    with working.engine.connect() as conn:
        assert conn.execute(text("SELECT count(*) FROM untextable")).scalar_one() == 0
    # It waits for the operator, as if it had been refused at once.
    assert _told(working, told).steps[1].state == "reserved"


def test_fcms_refusal_of_our_credentials_is_shown(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("push", answer=Answer(status=403)))
    assert _told(working, _send(working)).state == "active"
    assert _doctor(working)[1].startswith("fcm refuses us (1 message,")


def test_a_provider_that_fails_half_of_a_minute_is_shown_and_one_failure_is_not(working: Services) -> None:
    troubles = Troubles(working.redis)
    troubles.note("acme", [Unknown("acme 500"), Sent("1")])
    assert troubles.current() == []
    with capture_logs() as logs:
        troubles.note("acme", [Unknown("acme 500")] * 5)
        troubles.note("acme", [Unknown("acme 500")] * 5)
    (found,) = troubles.current()
    assert (found.provider, found.reason, found.operators, found.count) == ("acme", "acme 500", False, 10)
    # Once in a minute.
    assert [entry["event"] for entry in logs] == ["provider fails"]
    assert _doctor(working)[0] == "warning"


def test_patience_and_refusals_of_recipients_are_no_trouble(working: Services) -> None:
    troubles = Troubles(working.redis)
    harmless: list[Outcome] = [
        Retry("429", too_fast=True),
        Retry("late", ours=True),
        Rejected("invalid_number"),
        Sent("1"),
    ]
    troubles.note("acme", harmless * 10)
    assert troubles.current() == []


@pytest.mark.parametrize(
    ("outcome", "enough"),
    [
        (Unknown("acme 500"), 3),
        (Rejected("refused", "acme 4711"), 3),
        (Rejected("sender_mismatch", "FCM SENDER_ID_MISMATCH"), 3),
        # Numbers and devices may be to blame for some.
        (Rejected("unregistered", "FCM UNREGISTERED", address_dead=True), 20),
        (Rejected("invalid_number", "Twilio 21211"), 20),
    ],
)
def test_a_provider_that_takes_nothing_is_a_trouble_however_few_messages_there_are(
    working: Services, outcome: Outcome, enough: int
) -> None:
    troubles = Troubles(working.redis)
    for _ in range(enough - 1):
        troubles.note("acme", [outcome])
    # What goes begins the count anew.
    troubles.note("acme", [Sent("1")] * 10)
    with capture_logs() as logs:
        for _ in range(enough - 1):
            troubles.note("acme", [outcome])
        assert troubles.current() == []
        troubles.note("acme", [outcome])
    assert [entry["event"] for entry in logs] == ["provider fails"]
    assert _doctor(working)[0] == "warning"
