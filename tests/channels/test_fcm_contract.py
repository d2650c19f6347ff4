"""Our push JSON against Google's published discovery document and against firebase-admin's own encoder."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from firebase_admin import messaging
from firebase_admin._messaging_encoder import MessageEncoder
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_worker.channels.fcm import ID_FIELD, WITHDRAW_FIELD, FcmChannel, encode, encode_withdrawal
from knocktwice_worker.channels.messages import PushMessage, Withdrawal
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outcomes import Sent
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.config import Settings
from knocktwice_worker.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_800_000_000.0
DISCOVERY: dict[str, Any] = json.loads(
    (files("googleapiclient") / "discovery_cache/documents/fcm.v1.json").read_text(encoding="utf-8")
)
SEND: dict[str, Any] = DISCOVERY["resources"]["projects"]["resources"]["messages"]["methods"]["send"]
DURATION = re.compile(r"\d+(\.\d{1,9})?s")

links = st.none() | st.sampled_from(["https://example.com/a?b=c", "http://example.com/", "myapp://orders/7"])
pushes = st.builds(
    PushMessage,
    notification_id=st.uuids().map(str),
    registration=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=22, max_size=22)
    | st.text(min_size=1),
    title=st.text(),
    body=st.text(),
    ttl=st.timedeltas(timedelta(), timedelta(days=28)),
    data=st.dictionaries(st.text(min_size=1).filter(lambda key: key != ID_FIELD), st.text(), max_size=4),
    link=links,
    image=st.none() | st.just("https://example.com/a.png"),
)


def complaints(value: object, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Say what in a JSON value the discovery document does not allow."""
    schema = DISCOVERY["schemas"][schema["$ref"]] if "$ref" in schema else schema
    kind = schema["type"]
    if kind == "object":
        if not isinstance(value, dict):
            yield f"{path} is no object"
            return
        for key, item in value.items():
            # Protobuf's JSON takes the fields' own names too, which Google's library writes.
            property_ = schema.get("properties", {}).get(_camel(key), schema.get("additionalProperties"))
            if property_ is None:
                yield f"{path}.{key} does not exist"
            else:
                yield from complaints(item, property_, f"{path}.{key}")
    elif kind == "array":
        for item in value if isinstance(value, list) else [value]:
            yield from complaints(item, schema["items"], f"{path}[]")
    elif kind == "string":
        if not isinstance(value, str):
            yield f"{path} is no string"
        elif schema.get("format") == "google-duration" and not DURATION.fullmatch(value):
            yield f"{path} is no duration"
        # Google's library writes names of constants in lower case.
        elif "enum" in schema and value.upper() not in schema["enum"]:
            yield f"{path} is none of {schema['enum']}"
    elif kind in {"boolean", "integer"}:
        if not isinstance(value, bool if kind == "boolean" else int):
            yield f"{path} is no {kind}"
    elif kind != "any":
        yield f"{path} has the unknown type {kind}"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def equivalent(push: PushMessage) -> messaging.Message:
    """Say the same with firebase-admin's classes."""
    id_, seconds = push.notification_id, int(push.ttl.total_seconds())
    link = {"link": push.link} if push.link else {}
    headers = {"apns-collapse-id": id_, "apns-expiration": str(int(NOW) + seconds), "apns-priority": "10"}
    message = messaging.Message(
        data={**link, **push.data, ID_FIELD: id_},
        notification=messaging.Notification(push.title, push.body, push.image),
        android=messaging.AndroidConfig(
            priority="high", ttl=timedelta(seconds=seconds), notification=messaging.AndroidNotification(tag=id_)
        ),
        apns=messaging.APNSConfig(headers, messaging.APNSPayload(messaging.Aps(mutable_content=True))),
        webpush=messaging.WebpushConfig(
            headers={"TTL": str(seconds)},
            notification=messaging.WebpushNotification(tag=id_),
            fcm_options=messaging.WebpushFCMOptions(push.link)
            if push.link and push.link.startswith("https://")
            else None,
        ),
    )
    # Not through the constructor, which says that tokens are deprecated.
    setattr(message, "fid" if len(push.registration) == 22 else "token", push.registration)
    return message


@given(pushes)
def test_our_json_is_what_firebase_admin_would_send(push: PushMessage) -> None:
    assert json.loads(json.dumps(encode(push, now=NOW))) == MessageEncoder().default(equivalent(push))


@given(pushes)
def test_every_field_we_send_exists_in_googles_schema_with_its_type(push: PushMessage) -> None:
    body = json.loads(json.dumps({"message": encode(push, now=NOW)}))
    assert list(complaints(body, SEND["request"])) == []


def test_a_withdrawal_is_a_silent_push_on_every_platform() -> None:
    body = encode_withdrawal(Withdrawal("id", "r" * 22, timedelta(days=1)), now=NOW)
    assert list(complaints({"message": body}, SEND["request"])) == []
    expected = messaging.Message(
        fid="r" * 22,
        data={WITHDRAW_FIELD: "id"},
        android=messaging.AndroidConfig(priority="high", ttl=timedelta(days=1)),
        apns=messaging.APNSConfig(
            # APNs refuses a background push of any other priority.
            {"apns-push-type": "background", "apns-priority": "5", "apns-expiration": str(int(NOW) + 86_400)},
            messaging.APNSPayload(messaging.Aps(content_available=True)),
        ),
        webpush=messaging.WebpushConfig(headers={"TTL": "86400", "Urgency": "high"}),
    )
    assert body == MessageEncoder().default(expected)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"tokn": "x"}, ".message.tokn does not exist"),
        ({"token": 7}, ".message.token is no string"),
        ({"data": {"n": 1}}, ".message.data.n is no string"),
        ({"android": {"ttl": "5"}}, ".message.android.ttl is no duration"),
        (
            {"android": {"notification": {"collapse_id": "x"}}},
            ".message.android.notification.collapse_id does not exist",
        ),
        ({"android": {"direct_boot_ok": "yes"}}, ".message.android.direct_boot_ok is no boolean"),
        ({"apns": []}, ".message.apns is no object"),
    ],
    ids=str,
)
def test_the_comparison_with_googles_schema_sees_mistakes(message: object, said: str) -> None:
    assert list(complaints({"message": message}, SEND["request"])) == [said]


def test_a_wrong_priority_is_seen_too() -> None:
    (said,) = complaints({"message": {"android": {"priority": "urgent"}}}, SEND["request"])
    assert said.startswith(".message.android.priority is none of")


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[tuple[FcmChannel, Sandbox]]:
    with Sandbox() as sandbox:
        path = Path(sandbox.environment(tmp_path)["GOOGLE_APPLICATION_CREDENTIALS"])
        yield FcmChannel(url=sandbox.url, credentials_file=path, project=None), sandbox


def test_the_request_goes_where_the_discovery_document_says(channel: tuple[FcmChannel, Sandbox]) -> None:
    fcm, _ = channel
    fcm.authorize()
    request = fcm.request(PushMessage("id", "token", "title", "body", timedelta(60)))
    assert request.method == SEND["httpMethod"]
    pattern = re.sub(r"\{[^}]*\}", "[^/]+", SEND["flatPath"])
    assert re.fullmatch(f"/{pattern}", urlsplit(request.url).path)
    assert Settings.model_fields["fcm_url"].default == DISCOVERY["rootUrl"].rstrip("/")
    assert request.headers["content-type"] == "application/json"
    assert list(complaints(json.loads(request.body), SEND["request"])) == []


def test_the_sandbox_takes_what_we_send_letter_by_letter(channel: tuple[FcmChannel, Sandbox]) -> None:
    fcm, sandbox = channel
    push = PushMessage(
        "id", "r" * 30, 'Grüße "€" 🎉', "a\nb\\", timedelta(seconds=90), {"page": "7"}, "https://example.com/"
    )
    transport = Transport(timeout=10, in_flight=10)
    (outcome,) = deliver(transport, fcm, [push])
    transport.close()
    (received,) = sandbox.pushes()
    assert outcome == Sent(received.name)
    assert (received.title, received.body, received.notification_id, received.tag) == (
        push.title,
        push.body,
        "id",
        "id",
    )
    ours = encode(push, now=NOW)
    assert {**received.message, "apns": None} == {**ours, "apns": None}


def test_a_push_that_shares_its_form_with_others_is_what_it_would_be_alone(
    channel: tuple[FcmChannel, Sandbox],
) -> None:
    fcm, _ = channel
    fcm.authorize()
    first = PushMessage("id-1", "r" * 40, 'Say "hi"\n', "{0} \\u0041 €🎉", timedelta(minutes=5), {"page": "7"})
    pushes = [
        first,
        replace(first, notification_id="id-2", registration="s" * 50, title="", body="\u2028\x01"),
        replace(first, registration="f" * 22),
        replace(first, data={"page": "8"}),
        replace(first, link="https://example.com/a"),
        replace(first, image="https://example.com/a.png"),
        replace(first, ttl=timedelta(minutes=6)),
        replace(first, receipt_url="https://push.example/r/1"),
        replace(first, receipt_url='https://push.example/r/"2"'),
        first,
    ]
    for push in pushes:
        before = time.time()
        sent = json.loads(fcm.request(push).body)["message"]
        assert sent in [encode(push, now=second) for second in {before, time.time()}]
