"""SMS through a provider that a file describes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl

import pytest
from pydantic import ValidationError

from knocktwice_worker.channels.http import Response
from knocktwice_worker.channels.http_sms import provider
from knocktwice_worker.channels.http_sms.file import ProviderSpec
from knocktwice_worker.channels.http_sms.provider import HttpSmsChannel
from knocktwice_worker.channels.messages import StepMessage
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outcomes import Rejected, Retry, Sent, Unknown
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.content import media
from support.sms_provider import TOKEN, SmsProvider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.channels.outcomes import Outcome

NUMBER = "+16505550987"


@pytest.fixture
def transport() -> Iterator[Transport]:
    built = Transport(timeout=5, in_flight=10)
    yield built
    built.close()


def _channel(acme: SmsProvider, environment: dict[str, str] | None = None, **changes: object) -> HttpSmsChannel:
    spec = ProviderSpec.model_validate(acme.spec(**changes))
    return HttpSmsChannel(spec, usual_sender="+15005550006", environment=environment or {"ACME_TOKEN": TOKEN})


def _message(text: str = "Hello", sender: str | None = None) -> StepMessage:
    return StepMessage("n.1", NUMBER, text, sender)


def _read(channel: HttpSmsChannel, status: int, body: object) -> Outcome:
    return channel.outcome(Response(status, json.dumps(body).encode(), {}))


def test_it_says_what_the_file_says(acme: SmsProvider, transport: Transport) -> None:
    assert deliver(transport, _channel(acme), [_message("Grüße “{to}” ${ACME_TOKEN}")]) == [Sent("acme:1")]
    (text,) = acme.texts
    assert (text["to"], text["from"], text["ref"]) == (NUMBER, "Acme", "n.1")
    assert text["text"] == "Grüße “{to}” ${ACME_TOKEN}"


def test_a_form_is_encoded(acme: SmsProvider) -> None:
    form = {"dest": "{to_digits}", "msg": "{text}", "key": "${ACME_TOKEN}", "flag": "1"}
    request = _channel(acme, json=None, form=form).request(_message("a&b=c"))
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert dict(parse_qsl(request.body.decode())) == {"dest": NUMBER[1:], "msg": "a&b=c", "key": TOKEN, "flag": "1"}


def test_media_are_a_list_where_the_file_puts_them_and_nothing_without(acme: SmsProvider) -> None:
    addresses = ["https://shop.example/a.png?x=1&y={to}", "https://shop.example/b.png"]
    kept, base = media.joined("Look", addresses), {"to": "{to}", "text": "{text}"}
    form = _channel(acme, json=None, form={**base, "MediaUrl": "{media}"})
    assert parse_qs(form.request(_message(kept)).body.decode())["MediaUrl"] == addresses
    assert "MediaUrl" not in parse_qs(form.request(_message()).body.decode())
    for body, with_media, without in (
        ({**base, "media": "{media}"}, {"media": addresses}, {}),
        ({**base, "media": ["{media}"]}, {"media": addresses}, {}),
        ({**base, "media": ["logo", "{media}"]}, {"media": ["logo", *addresses]}, {"media": ["logo"]}),
        ({**base, "content": {"media": "{media}"}}, {"content": {"media": addresses}}, {"content": {}}),
    ):
        channel = _channel(acme, json=body)
        assert channel.carries(kept)
        for text, more in ((kept, with_media), ("Look", without)):
            sent = json.loads(channel.request(_message(text)).body)
            assert sent == {"to": NUMBER, "text": "Look", **more}
    assert not _channel(acme).carries(kept)
    assert _channel(acme).carries("Look")


@pytest.mark.parametrize("value", ["first {media}", "{media}{media}", {"a": "x{media}"}])
def test_media_stand_alone_in_their_field(acme: SmsProvider, value: object) -> None:
    with pytest.raises(ValidationError, match="whole value of a field"):
        _channel(acme, json={"to": "{to}", "text": "{text}", "media": value})


@pytest.mark.parametrize(
    ("wanted", "sent_by"),
    [(None, "Acme"), ("+15005550006", "Acme"), ("MG" + "a" * 32, "Acme"), ("Shop", "Shop"), ("+15005550016", "Acme2")],
)
def test_senders_of_twilio_become_its_own(acme: SmsProvider, wanted: str | None, sent_by: str) -> None:
    channel = _channel(acme, senders={"+15005550016": "Acme2"})
    assert json.loads(channel.request(_message(sender=wanted)).body)["from"] == sent_by
    assert channel.sender_of(wanted) == sent_by


def test_secrets_come_from_the_environment_or_from_files(acme: SmsProvider, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    channel = _channel(acme, headers={"X-Api-Key": f"${{file:{tmp_path}/token}}", "X-Client": "knocktwice"})
    assert channel.request(_message()).headers["x-api-key"] == "from-file"
    (outcome,) = deliver(Transport(timeout=1, in_flight=1), _channel(acme, {"PATH": "x"}), [_message()])
    assert isinstance(outcome, Retry)
    assert outcome.reason == "ACME_TOKEN not set (SMS provider acme)"


@pytest.mark.parametrize(
    ("says", "outcome"),
    [
        ("ok", Sent("acme:1")),
        ("busy", Retry("acme 503")),
        ("too fast", Retry("acme 429", timedelta(seconds=7), too_fast=True)),
        ("broken", Unknown("acme 500")),
        ("account", Retry("acme refuses our account (401)", timedelta(minutes=1), operators=True)),
        ("number", Rejected("invalid_number", "acme 400")),
        ("stop", Rejected("opted_out", "acme 400", opted_out=True)),
    ],
)
def test_what_its_answers_mean(acme: SmsProvider, transport: Transport, says: str, outcome: Outcome) -> None:
    acme.says = says
    assert deliver(transport, _channel(acme), [_message()]) == [outcome]


@pytest.mark.parametrize(
    ("rule", "status", "body", "kind"),
    [
        ({"status": "2xx", "where": {"state": "queued"}, "means": "unknown"}, 202, {"state": "queued"}, Unknown),
        ({"where": {"results.0.code": 3}, "means": "retry", "after_s": 4}, 200, {"results": [{"code": 3}]}, Retry),
        ({"where": {"error": ["NO", "OFF"]}, "means": "retry"}, 400, {"error": "NO"}, Retry),
        ({"where": {"error": "NO"}, "means": "retry"}, 400, {"error": "no"}, Rejected),
        ({"where": {"ok": False}, "means": "retry"}, 200, {"ok": False}, Retry),
        ({"where": {"ok": False}, "means": "retry"}, 200, {"ok": "no", "message": {"id": 5}}, Sent),
        ({"status": [500, 502], "means": "too_fast"}, 502, {}, Retry),
    ],
)
def test_a_rule_reads_status_and_values(
    acme: SmsProvider, rule: dict[str, Any], status: int, body: object, kind: type
) -> None:
    assert isinstance(_read(_channel(acme, answers=[rule]), status, body), kind)


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        (400, "INVALID_NUMBER", Rejected("invalid_number", "acme 400 INVALID_NUMBER")),
        (400, 17, Rejected("refused", "acme 400 17")),
        (400, "+16505550100", Rejected("refused", "acme 400")),
        (400, "no such number", Rejected("refused", "acme 400")),
        (400, None, Rejected("refused", "acme 400")),
        (503, "EC_BUSY", Retry("acme 503 EC_BUSY")),
        (500, "EC_LOST", Unknown("acme 500 EC_LOST")),
    ],
)
def test_the_code_of_an_answer_is_shown_behind_its_status(
    acme: SmsProvider, status: int, code: object, outcome: Outcome
) -> None:
    rules = [
        {"status": 503, "means": "retry"},
        {"where": {"error.code": "INVALID_NUMBER"}, "means": "rejected", "reason": "invalid_number"},
    ]
    channel = _channel(acme, answers=rules, error="error.code")
    assert _read(channel, status, {"error": {"code": code}}) == outcome


@pytest.mark.parametrize("id_", [None, "", " ", True, [], {}, "x" * 500, "7\0", "\ud800"])
def test_a_success_without_an_id_is_none(acme: SmsProvider, id_: object) -> None:
    assert isinstance(_read(_channel(acme), 200, {"message": {"id": id_}}), Unknown)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><body>503 Service Unavailable</body></html>", b"\xff", b"7", b"[[" * 50_000, b'{"error": "no"}'],
)
@pytest.mark.parametrize(
    ("status", "kind"), [(200, Unknown), (302, Unknown), (400, Rejected), (502, Unknown), (429, Retry)]
)
def test_an_answer_that_says_nothing_means_what_its_status_does(
    acme: SmsProvider, body: bytes, status: int, kind: type
) -> None:
    assert isinstance(_channel(acme).outcome(Response(status, body, {})), kind)


@pytest.mark.parametrize("wait", ["²", "-5", "soon", "9" * 5_000, "Wed, 99 Nov 2026 00:00:00 GMT", ""])
def test_a_wait_that_is_none_is_passed_over(acme: SmsProvider, wait: str) -> None:
    outcome = _channel(acme).outcome(Response(429, b"", {"retry-after": wait}))
    assert isinstance(outcome, Retry)
    assert outcome.after is None or outcome.after <= timedelta(days=1)


def test_one_that_hangs_has_an_unknown_outcome(acme: SmsProvider) -> None:
    acme.says = "hang"
    impatient = Transport(timeout=0.2, in_flight=2)
    try:
        (outcome,) = deliver(impatient, _channel(acme), [_message()])
    finally:
        impatient.close()
    assert outcome == Unknown("the provider did not answer in time")


@pytest.mark.parametrize("secret", ["ключ", "two\nlines", "nul\0"])
def test_a_secret_that_no_header_can_hold_is_named(acme: SmsProvider, transport: Transport, secret: str) -> None:
    (outcome,) = deliver(transport, _channel(acme, {"ACME_TOKEN": secret}), [_message()])
    assert isinstance(outcome, Retry)
    assert outcome.reason.startswith("ACME_TOKEN")
    assert acme.asked == 0


@pytest.mark.parametrize(
    ("created", "year"),
    [(1_700_000_000, 2023), (1_700_000_000_000, 2023), ("2023-11-14T22:13:20Z", 2023), ("Tue, 14 Nov 2023 22:13:20 +0000", 2023),
     (1e300, None), (True, None), ("yesterday", None), (None, None), ([], None)],
)  # fmt: skip
def test_the_time_of_a_listed_message_is_read_in_many_ways(created: object, year: int | None) -> None:
    at = provider._time(created)
    assert (at and at.year) == year


def test_a_repeat_is_known_by_its_key(acme: SmsProvider, transport: Transport) -> None:
    channel = _channel(acme, idempotency={"header": "Idempotency-Key"})
    for _ in range(2):
        assert deliver(transport, channel, [_message()]) == [Sent("acme:1")]
    assert len(acme.texts) == 1
    assert channel.repeats_within == timedelta(hours=12)


def test_its_list_is_read(acme: SmsProvider, transport: Transport) -> None:
    channel = _channel(acme, list=acme.listing())
    deliver(
        transport, channel, [_message("a"), StepMessage("n.2", NUMBER, "a"), StepMessage("n.3", "+16505550111", "a")]
    )
    since = datetime.now(UTC) - timedelta(minutes=1)
    listed = channel.list_messages(transport, {NUMBER: since, "+16505550112": since})
    assert listed["+16505550112"] == []
    assert sorted(m.reference or "" for m in listed[NUMBER]) == ["n.1", "n.2"]
    assert [m.reference for m in listed[NUMBER] if channel.is_message(m, StepMessage("n.2", NUMBER, "a"))] == ["n.2"]
    assert channel.list_messages(transport, {NUMBER: datetime.now(UTC) + timedelta(minutes=1)}) == {NUMBER: []}


def test_half_a_list_is_no_list(acme: SmsProvider, transport: Transport) -> None:
    channel = _channel(acme, list=acme.listing() | {"most": 2})
    since = {NUMBER: datetime.now(UTC) - timedelta(minutes=1)}
    deliver(transport, channel, [_message()])
    assert NUMBER in channel.list_messages(transport, since)
    deliver(transport, channel, [_message()])
    assert channel.list_messages(transport, since) == {}
