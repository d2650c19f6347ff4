"""What every channel promises the pipeline, whatever its provider. A new channel joins by one entry in ``CASES``."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_worker.channels.fcm import FcmChannel
from knocktwice_worker.channels.http import NoResponse, Response
from knocktwice_worker.channels.http_sms.file import ProviderSpec
from knocktwice_worker.channels.http_sms.provider import HttpSmsChannel
from knocktwice_worker.channels.messages import PushMessage, StepMessage
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown
from knocktwice_worker.channels.provider import Provider, deliver
from knocktwice_worker.channels.twilio.sms import TwilioSmsChannel
from knocktwice_worker.channels.twilio.whatsapp import TwilioWhatsappChannel
from knocktwice_worker.sandbox import Answer, Rule, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


#: Recognisable wherever they turn up.
REGISTRATION, NUMBER, TEXT = "silent-SECRETREGISTRATION", "+16505550987", "SECRETTEXT"


@dataclass(frozen=True)
class Case:
    """How to make a channel speak and its provider misbehave.

    Attributes:
        build: makes the channel from the sandbox's environment.
        message: makes the n-th message.
        too_fast, broken: answers of its provider.
        permanent: an error code of its provider.
        without: the settings that are its credentials.
    """

    kind: Any
    build: Callable[[Mapping[str, str]], Provider[Any]]
    message: Callable[[int], object]
    too_fast: Answer
    broken: Answer
    permanent: str | int
    without: tuple[str, ...]


def _fcm(environment: Mapping[str, str]) -> FcmChannel:
    file = environment.get("GOOGLE_APPLICATION_CREDENTIALS")
    return FcmChannel(url=environment["KNOCKTWICE_FCM_URL"], credentials_file=Path(file) if file else None, project="p")


def _twilio(environment: Mapping[str, str]) -> TwilioSmsChannel:
    return TwilioSmsChannel(
        url=environment["KNOCKTWICE_TWILIO_URL"],
        account_sid=environment.get("TWILIO_ACCOUNT_SID"),
        auth_token=environment.get("TWILIO_AUTH_TOKEN"),
        sender=environment.get("KNOCKTWICE_TWILIO_FROM"),
        public_url=None,
        secret="test",
    )


def _push(n: int) -> PushMessage:
    return PushMessage(f"01939e2b-6b43-7e5a-9f6e-{n:012}", f"{REGISTRATION}-{n}", TEXT, TEXT, timedelta(hours=1))


def _sms(n: int) -> StepMessage:
    return StepMessage(f"intent-{n}", NUMBER, f"{TEXT} {n}")


def _whatsapp(environment: Mapping[str, str]) -> TwilioWhatsappChannel:
    return TwilioWhatsappChannel(
        url=environment["KNOCKTWICE_TWILIO_URL"],
        account_sid=environment.get("TWILIO_ACCOUNT_SID"),
        auth_token=environment.get("TWILIO_AUTH_TOKEN"),
        sender=environment.get("KNOCKTWICE_WHATSAPP_FROM"),
        public_url=None,
        secret="test",
    )


def _http(environment: Mapping[str, str]) -> HttpSmsChannel:
    """Speak to the sandbox's Twilio as a file of providers would have it."""
    spec = {
        "name": "acme",
        "weight": 1,
        "url": environment["KNOCKTWICE_TWILIO_URL"] + "/2010-04-01/Accounts/${TWILIO_ACCOUNT_SID}/Messages.json",
        "basic_auth": {"user": "${TWILIO_ACCOUNT_SID}", "password": "${TWILIO_AUTH_TOKEN}"},
        "form": {"To": "{to}", "From": "{sender}", "Body": "{text}"},
        "sender": "+15005550006",
        "id": "sid",
        "answers": [{"where": {"code": [21211, 21214]}, "means": "rejected", "reason": "invalid_number"}],
    }
    return HttpSmsChannel(ProviderSpec.model_validate(spec), environment=environment)


def _template(n: int) -> StepMessage:
    return StepMessage(f"intent-{n}", NUMBER, json.dumps(["HX" + "0" * 32, {"1": f"{TEXT} {n}"}]))


CASES = {
    "push": Case(
        "push", _fcm, _push, Answer(error_code="QUOTA_EXCEEDED", of_project=True), Answer(error_code="INTERNAL"), "UNREGISTERED",
        ("GOOGLE_APPLICATION_CREDENTIALS",),
    ),
    "sms": Case(
        "sms", _twilio, _sms, Answer(error_code=20429), Answer(status=500), 21211,
        ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "KNOCKTWICE_TWILIO_FROM"),
    ),
    "http": Case(
        "sms", _http, _sms, Answer(error_code=20429), Answer(status=500), 21211, ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"),
    ),
    "whatsapp": Case(
        "sms", _whatsapp, _template, Answer(error_code=20429), Answer(status=500), 63016,
        ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "KNOCKTWICE_WHATSAPP_FROM"),
    ),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def transport() -> Iterator[Transport]:
    built = Transport(timeout=2, in_flight=50)
    yield built
    built.close()


class Wire:
    """Sends through the channel under test."""

    def __init__(self, case: Case, sandbox: Sandbox, transport: Transport, folder: Path) -> None:
        self.case, self.sandbox, self.transport = case, sandbox, transport
        self.environment = sandbox.environment(folder)
        self.channel = case.build(self.environment)

    def send(self, count: int = 1, channel: Provider[Any] | None = None) -> list[Outcome]:
        return deliver(self.transport, channel or self.channel, [self.case.message(n) for n in range(count)])

    def answered(self, answer: Answer, times: int | None = None) -> Outcome:
        self.sandbox.rule(Rule(self.case.kind, times=times, answer=answer))
        (outcome,) = self.send()
        return outcome


@pytest.fixture
def wire(case: Case, sandbox: Sandbox, transport: Transport, tmp_path: Path) -> Wire:
    return Wire(case, sandbox, transport, tmp_path)


def test_what_the_provider_takes_is_sent_and_has_its_id(wire: Wire) -> None:
    outcomes = wire.send(20)
    ids = {outcome.provider_id for outcome in outcomes if isinstance(outcome, Sent)}
    assert len(ids) == 20


def test_nothing_to_send_asks_nobody(wire: Wire) -> None:
    assert wire.send(0) == []
    assert wire.sandbox.requests("token") == 0


def test_outcomes_come_in_the_order_of_the_messages(wire: Wire) -> None:
    wire.send()
    wire.sandbox.rule(Rule(wire.case.kind, times=1, answer=Answer(error_code=wire.case.permanent, latency=0.3)))
    outcomes = wire.send(10)
    rejected = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Rejected)]
    assert len(rejected) == 1
    taken = [m.provider_id for m in outcomes if isinstance(m, Sent)]
    assert len(set(taken)) == 9


def test_a_provider_that_gets_too_much_is_left_alone_for_as_long_as_it_asks(wire: Wire) -> None:
    outcome = wire.answered(replace(wire.case.too_fast, retry_after=7))
    assert isinstance(outcome, Retry)
    assert (outcome.after, outcome.too_fast) == (timedelta(seconds=7), True)


def test_it_may_ask_with_a_date(wire: Wire) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    outcome = wire.channel.outcome(Response(429, b"{}", {"retry-after": at}))
    assert isinstance(outcome, Retry)
    assert outcome.after
    assert timedelta(seconds=50) < outcome.after <= timedelta(seconds=100)


def test_what_is_refused_for_good_is_not_tried_again(wire: Wire) -> None:
    outcome = wire.answered(Answer(error_code=wire.case.permanent))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == outcome.reason.lower().replace(" ", "_")


@pytest.mark.parametrize("accept", [True, False])
def test_nobody_knows_what_a_broken_provider_did(wire: Wire, accept: bool) -> None:
    assert isinstance(wire.answered(replace(wire.case.broken, accept=accept)), Unknown)


@pytest.mark.parametrize("answer", [Answer(drop=True), Answer(hang=True)], ids=["closes the connection", "is silent"])
def test_nobody_knows_what_a_provider_did_that_does_not_answer(wire: Wire, answer: Answer) -> None:
    assert isinstance(wire.answered(answer), Unknown)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"7", b"null", b"{}", b'{"name": null, "sid": ""}', b"\xff"])
@pytest.mark.parametrize("status", [200, 201, 302, 400, 404, 500, 503])
def test_an_answer_that_makes_no_sense_raises_nothing_and_is_no_success(wire: Wire, status: int, body: bytes) -> None:
    assert not isinstance(wire.channel.outcome(Response(status, body, {"retry-after": "soon"})), Sent)


def test_a_provider_that_cannot_be_reached_has_received_nothing(wire: Wire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
    away = {"KNOCKTWICE_FCM_URL": nowhere, "KNOCKTWICE_TWILIO_URL": nowhere}
    (outcome,) = wire.send(channel=wire.case.build(wire.environment | away))
    assert isinstance(outcome, Retry)
    assert not outcome.too_fast


def test_without_credentials_nothing_is_sent_and_the_setting_is_named(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    without = {name: value for name, value in wire.environment.items() if name not in wire.case.without}
    (outcome,) = wire.send(channel=wire.case.build(without))
    assert isinstance(outcome, Retry)
    assert all(name in outcome.reason for name in wire.case.without)
    assert wire.sandbox.requests(wire.case.kind) == 0


def test_no_reason_shows_whom_or_what(wire: Wire) -> None:
    """Reasons are logged and shown; providers like to quote the number."""
    refusals = (Answer(error_code=wire.case.permanent), wire.case.too_fast)
    seen: list[object] = [wire.answered(answer, times=1) for answer in (*refusals, wire.case.broken, Answer(drop=True))]
    seen.append(wire.channel.outcome(NoResponse("the provider did not answer in time", sent=True)))
    for secret in ("SECRET", NUMBER, NUMBER[1:], wire.environment["TWILIO_AUTH_TOKEN"]):
        assert secret not in str(seen)
