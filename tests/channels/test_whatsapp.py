"""WhatsApp messages as Twilio documents them, and as the sandbox takes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest

from knocktwice_worker.channels.messages import StepMessage
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outcomes import Rejected, Sent
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.channels.twilio.whatsapp import TwilioWhatsappChannel
from knocktwice_worker.sandbox import Answer, Rule, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUMBER, ADDRESS = "+4915112345678", "whatsapp:+4915112345678"
SID = "HX" + "0" * 32


def _text(variables: dict[str, str], sid: str = SID) -> str:
    return json.dumps([sid, variables])


@pytest.fixture
def transport() -> Iterator[Transport]:
    built = Transport(timeout=10, in_flight=50)
    yield built
    built.close()


@pytest.fixture
def channel(sandbox: Sandbox, tmp_path: Path) -> TwilioWhatsappChannel:
    return _channel(sandbox.url, sandbox.environment(tmp_path))


def _channel(url: str, environment: dict[str, str], sender: str | None = None) -> TwilioWhatsappChannel:
    return TwilioWhatsappChannel(
        url=url,
        account_sid=environment["TWILIO_ACCOUNT_SID"],
        auth_token=environment["TWILIO_AUTH_TOKEN"],
        sender=sender or environment["KNOCKTWICE_WHATSAPP_FROM"],
        public_url=None,
        secret="test",
    )


def _form(channel: TwilioWhatsappChannel, message: StepMessage) -> dict[str, Any]:
    return dict(parse_qsl(channel.request(message).body.decode(), strict_parsing=True))


def test_both_addresses_name_the_channel_and_the_template_goes_with_its_variables(
    channel: TwilioWhatsappChannel,
) -> None:
    form = _form(channel, StepMessage("i", NUMBER, _text({"1": "Grüße", "name": "Ana"})))
    assert form.keys() == {"To", "From", "ContentSid", "ContentVariables"}
    assert (form["To"], form["From"][:10], form["ContentSid"]) == (ADDRESS, "whatsapp:+", SID)
    assert json.loads(form["ContentVariables"]) == {"1": "Grüße", "name": "Ana"}


def test_a_message_may_have_a_sender_of_its_own(channel: TwilioWhatsappChannel) -> None:
    form = _form(channel, StepMessage("i", NUMBER, _text({}), sender="+16505550199"))
    assert form == {"To": ADDRESS, "From": "whatsapp:+16505550199", "ContentSid": SID}
    service = "MG" + "a" * 32
    form = _form(channel, StepMessage("i", NUMBER, _text({}), sender=service))
    assert form == {"To": ADDRESS, "MessagingServiceSid": service, "ContentSid": SID}


def test_what_was_sent_is_found_in_the_list_by_its_variables(
    sandbox: Sandbox, transport: Transport, channel: TwilioWhatsappChannel
) -> None:
    texts = [_text({"1": "Ana"}), _text({"1": "Ben"})]
    outcomes = deliver(transport, channel, [StepMessage("i", NUMBER, text) for text in texts])
    listed = channel.list_messages(transport, {NUMBER: datetime.now(UTC) - timedelta(minutes=1)})[NUMBER]
    for outcome, text in zip(outcomes, texts, strict=True):
        assert [Sent(m.sid) for m in listed if channel.is_message(m, StepMessage("i", NUMBER, text))] == [outcome]
    assert {text.to for text in sandbox.texts()} == {ADDRESS}


@pytest.mark.parametrize(
    ("text", "sender", "code"),
    [(_text({}, "HX1"), None, 21655), (_text({}), "MG" + "a" * 32, None), (_text({"1": "x"}), None, None)],
)
def test_the_sandbox_checks_a_template_as_twilio_does(
    transport: Transport, channel: TwilioWhatsappChannel, text: str, sender: str | None, code: int | None
) -> None:
    (outcome,) = deliver(transport, channel, [StepMessage("i", NUMBER, text, sender)])
    assert isinstance(outcome, Sent) if code is None else outcome == Rejected("refused", f"Twilio {code}")


def test_a_message_is_read_after_it_was_delivered(
    sandbox: Sandbox, transport: Transport, channel: TwilioWhatsappChannel
) -> None:
    sandbox.rule(Rule("sms", match=ADDRESS, answer=Answer(statuses=("sent", "delivered", "read", "delivered"))))
    deliver(transport, channel, [StepMessage("i", NUMBER, _text({}))])
    sandbox.wait_until(lambda: len(sandbox.texts(ADDRESS)[0].statuses) == 4)
    assert sandbox.texts(ADDRESS)[0].status == "read"
