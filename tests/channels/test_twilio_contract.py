"""Our SMS requests, and the sandbox's answers, against Twilio's published OpenAPI document.

``twilio_messages_openapi.json`` is the part of it about messages; ``extract_twilio_openapi.py`` says where it is from.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from knocktwice_worker.channels.http import NoResponse, Request, Response
from knocktwice_worker.channels.messages import ListedMessage, StepMessage
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outcomes import Sent
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.channels.twilio.sms import TwilioSmsChannel
from knocktwice_worker.config import Settings
from knocktwice_worker.content import media

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.sandbox import Sandbox

OPENAPI: dict[str, Any] = json.loads(Path(__file__).with_name("twilio_messages_openapi.json").read_text())
MESSAGES = "/2010-04-01/Accounts/{AccountSid}/Messages.json"
MESSAGE = "/2010-04-01/Accounts/{AccountSid}/Messages/{Sid}.json"
FORM = "application/x-www-form-urlencoded"
ACCOUNT = "AC" + "0123456789abcdef" * 2
NUMBER = "+4915112345678"

formats = FormatChecker(formats=[])


@formats.checks("phone-number")
def _is_number(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"\+[1-9]\d{6,14}", value) is not None


@formats.checks("uri")
def _is_uri(value: object) -> bool:
    # Twilio calls the paths of its pages "uri" too.
    return not isinstance(value, str) or re.fullmatch(r"(https?://[^\s/]+)?(/\S*)?", value) is not None


@formats.checks("date-time-rfc-2822", raises=ValueError)
def _is_date(value: object) -> bool:
    return not isinstance(value, str) or parsedate_to_datetime(value).tzinfo is not None


def as_json_schema(schema: Any) -> Any:
    """Turn an OpenAPI 3.0 schema into a JSON schema that allows no field it does not name."""
    if isinstance(schema, list):
        return [as_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return as_json_schema(OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    made = {key: as_json_schema(value) for key, value in schema.items() if key not in {"nullable", "properties"}}
    if "properties" in schema:
        made["properties"] = {name: as_json_schema(value) for name, value in schema["properties"].items()}
        made["additionalProperties"] = False
    if schema.get("nullable") and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def check(value: object, schema: Any) -> None:
    """Raise what is wrong with a value."""
    Draft202012Validator(as_json_schema(schema), format_checker=formats).validate(value)


def check_parameters(operation: Mapping[str, Any], place: str, given_: Sequence[tuple[str, str]]) -> None:
    """Check path or query parameters: each is known, of its type and there once; the required ones are all there."""
    known = {p["name"]: p for p in operation["parameters"] if p["in"] == place}
    names = [name for name, _ in given_]
    assert len(set(names)) == len(names)
    assert set(names) <= known.keys()
    assert {name for name, p in known.items() if p.get("required")} <= set(names)
    for name, value in given_:
        schema = known[name]["schema"]
        check(int(value) if schema["type"] == "integer" else value, schema)


def check_request(request: Request, template: str = MESSAGES) -> None:
    """Check one of our requests."""
    operation = OPENAPI["paths"][template][request.method.lower()]
    address = urlsplit(request.url)
    pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template))
    found = re.fullmatch(pattern, address.path)
    assert found is not None
    check_parameters(operation, "path", list(found.groupdict().items()))
    check_parameters(
        operation, "query", parse_qsl(address.query, keep_blank_values=True, strict_parsing=bool(address.query))
    )
    if "requestBody" in operation:
        assert request.headers["content-type"] == FORM
        fields = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
        assert len(dict(fields)) == len(fields)
        check(dict(fields), operation["requestBody"]["content"][FORM]["schema"])
    else:
        assert request.body == b""


def build(**fields: Any) -> TwilioSmsChannel:
    usual = {
        "url": "https://api.twilio.com", "account_sid": ACCOUNT, "auth_token": "secret", "sender": "+15005550006",
        "public_url": "https://example.com/base/", "secret": "key",
    }  # fmt: skip
    return TwilioSmsChannel(**usual | fields)


texts = st.text(min_size=1, max_size=1600)


@given(text=texts, intent=st.text(max_size=50), public=st.booleans(), service=st.booleans())
def test_every_sms_we_send_is_a_request_twilio_documents(text: str, intent: str, public: bool, service: bool) -> None:
    channel = build(
        public_url="https://example.com" if public else None, sender="MG" + "a" * 32 if service else "+15005550006"
    )
    request = channel.request(StepMessage(intent, NUMBER, text))
    check_request(request)
    form = dict(parse_qsl(request.body.decode()))
    assert (form["To"], form["Body"]) == (NUMBER, text)
    assert ("StatusCallback" in form, "MessagingServiceSid" in form, "From" in form) == (public, service, not service)


def test_media_are_a_list_of_addresses_as_twilio_documents() -> None:
    addresses = ["https://shop.example/a.png?x=1&y=2", "https://shop.example/b.png"]
    request = build().request(StepMessage("i", NUMBER, media.joined("Your parcel", addresses)))
    fields = parse_qs(request.body.decode("ascii"), strict_parsing=True)
    assert fields.pop("MediaUrl") == addresses
    said = {name: value for name, (value,) in fields.items()}
    assert said["Body"] == "Your parcel"
    operation = OPENAPI["paths"][MESSAGES]["post"]
    check({**said, "MediaUrl": addresses}, operation["requestBody"]["content"][FORM]["schema"])


def test_a_listed_message_with_media_is_known_also_where_a_link_stands_for_them() -> None:
    channel, sent = build(), StepMessage("i", NUMBER, media.joined("Your parcel", ["https://shop.example/a.png"]))
    now = datetime.now(UTC)
    for body, same in (("Your parcel", True), ("Your parcel https://mms.example/x7", True), ("Another", False)):
        assert channel.is_message(ListedMessage("MM1", NUMBER, body, "sent", now, "+15005550006"), sent) is same
    # Of a plain text nothing may stand behind it.
    assert not channel.is_message(ListedMessage("SM1", NUMBER, "a b", "sent", now), StepMessage("i", NUMBER, "a"))


@pytest.mark.parametrize(
    ("sender", "field"), [("+15005550006", "From"), ("MGM Grand", "From"), ("MG" + "b" * 32, "MessagingServiceSid")]
)
def test_a_message_names_its_own_sender(sender: str, field: str) -> None:
    request = build().request(StepMessage("i", NUMBER, "x", sender))
    if " " not in sender:
        # The document takes every sender for a number; Twilio's guides say otherwise.
        check_request(request)
    form = dict(parse_qsl(request.body.decode()))
    assert {name: form.get(name) for name in ("From", "MessagingServiceSid")} == {
        "From": None,
        "MessagingServiceSid": None,
        field: sender,
    }


def test_a_listed_message_is_known_by_its_sender(channel: TwilioSmsChannel) -> None:
    def ours(wanted: str | None, sender: str | None, service: str | None = None) -> bool:
        listed = ListedMessage("SM1", NUMBER, "x", "sent", datetime.now(UTC), sender, service)
        return channel.is_message(listed, StepMessage("i", NUMBER, "x", wanted))

    service = "MG" + "b" * 32
    assert ours("+15005550006", "+15005550006")
    assert not ours("Shop", "+15005550006")
    assert not ours("Shop2", "Shop", service)
    # Which of its numbers a service takes is decided late.
    assert ours(service, None, service)
    assert ours(service, "+15005550006", service)
    assert not ours(service, "+15005550006")
    assert ours(None, "+15005550006")


def test_account_and_token_travel_as_basic_authentication() -> None:
    request = build().request(StepMessage("i", NUMBER, "x"))
    kind, _, given_ = request.headers["authorization"].partition(" ")
    assert (kind, base64.b64decode(given_)) == ("Basic", f"{ACCOUNT}:secret".encode())
    assert Settings.model_fields["twilio_url"].default == "https://api.twilio.com"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"Body": "x"}, "'To' is a required property"),
        ({"To": "0151", "Body": "x"}, "is not a 'phone-number'"),
        ({"To": NUMBER, "Text": "x"}, "'Text' was unexpected"),
        ({"To": NUMBER, "MessagingServiceSid": "MG1"}, "is too short"),
        ({"To": NUMBER, "StatusCallback": "here"}, "is not a 'uri'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_comparison_with_twilios_document_sees_mistakes(form: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        check(form, OPENAPI["paths"][MESSAGES]["post"]["requestBody"]["content"][FORM]["schema"])


class Watched:
    """Carries requests with the real engine and keeps them."""

    def __init__(self) -> None:
        self._engine = Transport(timeout=10, in_flight=50)
        self.requests: list[Request] = []
        self.answers: list[Response | NoResponse] = []

    def send(self, requests: Sequence[Request], _not_after: Deadline | None = None, /) -> list[Response | NoResponse]:
        answers = self._engine.send(requests)
        self.requests += requests
        self.answers += answers
        return answers

    def close(self) -> None:
        self._engine.close()


@pytest.fixture
def carrier() -> Iterator[Watched]:
    built = Watched()
    yield built
    built.close()


@pytest.fixture
def channel(sandbox: Sandbox, tmp_path: Path) -> TwilioSmsChannel:
    environment = sandbox.environment(tmp_path)
    return build(
        url=sandbox.url, account_sid=environment["TWILIO_ACCOUNT_SID"], auth_token=environment["TWILIO_AUTH_TOKEN"],
        public_url=None,
    )  # fmt: skip


def answered(carrier: Watched, status: int) -> Iterator[Any]:
    for answer in carrier.answers:
        assert isinstance(answer, Response)
        assert answer.status == status
        yield json.loads(answer.body)


def test_each_page_of_the_list_is_asked_for_as_twilio_documents(
    sandbox: Sandbox, carrier: Watched, channel: TwilioSmsChannel
) -> None:
    outcomes = deliver(carrier, channel, [StepMessage(str(n), NUMBER, f"text {n}") for n in range(101)])
    sids = [outcome.provider_id for outcome in outcomes if isinstance(outcome, Sent)]
    assert len(sids) == 101
    carrier.requests.clear()
    listed = channel.list_messages(carrier, {NUMBER: datetime.now(UTC) - timedelta(minutes=5)})
    assert sorted(m.sid for m in listed[NUMBER]) == sorted(sids)
    assert {m.body for m in listed[NUMBER]} == {t.body for t in sandbox.texts()}
    assert [request.method for request in carrier.requests] == ["GET", "GET"]
    for request in carrier.requests:
        check_request(request)
    assert "PageToken" in carrier.requests[1].url


def test_the_sandbox_answers_as_twilio_documents(sandbox: Sandbox, carrier: Watched, channel: TwilioSmsChannel) -> None:
    schemas = {
        "create": OPENAPI["paths"][MESSAGES]["post"]["responses"]["201"],
        "list": OPENAPI["paths"][MESSAGES]["get"]["responses"]["200"],
        "fetch": OPENAPI["paths"][MESSAGE]["get"]["responses"]["200"],
    }
    wanted = {name: schema["content"]["application/json"]["schema"] for name, schema in schemas.items()}
    deliver(carrier, channel, [StepMessage(str(n), to, "Grüße") for n, to in enumerate((NUMBER, "+15005550030"))])
    for created in answered(carrier, 201):
        check(created, wanted["create"])
        assert created.keys() == wanted_fields(wanted["create"])
    sandbox.wait_until(lambda: [t.status for t in sandbox.texts()] == ["delivered", "undelivered"])
    carrier.answers.clear()
    channel.list_messages(carrier, {NUMBER: datetime.now(UTC), "+15005550030": datetime.now(UTC)})
    for listed in answered(carrier, 200):
        check(listed, wanted["list"])
        assert len(listed["messages"]) == 1
        assert listed.keys() == wanted_fields(wanted["list"])
    carrier.answers.clear()
    headers = carrier.requests[0].headers
    carrier.send([Request(f"{sandbox.url}{listed['messages'][0]['uri']}", headers, method="GET")])
    check_request(carrier.requests[-1], MESSAGE)
    for fetched in answered(carrier, 200):
        check(fetched, wanted["fetch"])


def wanted_fields(schema: Any) -> set[str]:
    return set(as_json_schema(schema)["properties"])
