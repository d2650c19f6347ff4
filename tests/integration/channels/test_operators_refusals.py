"""What the operator must mend is nobody else's fault: messages wait, the log says it, doctor shows it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.channels.outbound.troubles import Troubles
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown
from knocktwice_worker.cli import doctor
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
    assert finding.startswith("twilio refuses us (1 messages")
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


def test_one_device_of_another_project_fails_and_all_of_them_wait(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("push", match="silent-1", answer=Answer(error_code="SENDER_ID_MISMATCH")))
    assert _told(working, _send(working)).state == "failed"
    assert _told(working, _send(working, "silent-2")).state == "pushed"
    sandbox.clear_rules()
    sandbox.rule(Rule("push", answer=Answer(error_code="SENDER_ID_MISMATCH")))
    states = [_told(working, _send(working, f"silent-{n}", plan=SMS)).steps[0].state for n in range(10, 16)]
    assert states == ["failed", "failed", "scheduled", "scheduled", "scheduled", "scheduled"]
    level, finding = _doctor(working)
    assert level == "error"
    assert "the credentials are of another Firebase project" in finding


def test_fcms_refusal_of_our_credentials_is_shown(working: Services, sandbox: Sandbox) -> None:
    sandbox.rule(Rule("push", answer=Answer(status=403)))
    assert _told(working, _send(working)).state == "active"
    assert _doctor(working)[1].startswith("fcm refuses us (1 messages")


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
