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

from knocktwice_shared.messages import SILENT, Priority, Push
from knocktwice_shared.messages.platforms import PLATFORMS, Is
from knocktwice_worker.channels.fcm import ID_FIELD, RECEIPT_FIELD, WITHDRAW_FIELD, FcmChannel
from knocktwice_worker.channels.fcm.encoding import encode, encode_withdrawal
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

_names = st.none() | st.text(min_size=1, max_size=8)
links = st.none() | st.sampled_from(["https://example.com/a?b=c", "http://example.com/", "myapp://orders/7"])
pushes = st.builds(
    PushMessage,
    notification_id=st.uuids().map(str),
    registration=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=22, max_size=22)
    | st.text(min_size=1),
    title=st.text(),
    body=st.text(),
    ttl=st.timedeltas(timedelta(), timedelta(days=28)),
    push=st.builds(
        Push,
        title=st.just(""),
        body=st.just(""),
        data=st.dictionaries(st.text(min_size=1).filter(lambda key: key != ID_FIELD), st.text(), max_size=4),
        link=links,
        image=st.none() | st.just("https://example.com/a.png"),
        subtitle=_names,
        sound=st.none() | st.sampled_from([SILENT, "default", "chime.caf"]),
        badge=st.none() | st.integers(0, 99),
        channel_id=_names,
        priority=st.none() | st.sampled_from(Priority),
        icon=_names,
        color=st.none() | st.just("#00aa55"),
    ),
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
    id_, seconds, said = push.notification_id, int(push.ttl.total_seconds()), push.push
    link = {"link": said.link} if said.link else {}
    sound = None if said.sound == SILENT else said.sound or "default"
    urgent = said.priority is not Priority.NORMAL
    headers = {"apns-collapse-id": id_, "apns-expiration": str(int(NOW) + seconds)}
    alert = messaging.ApsAlert(push.title, said.subtitle, push.body) if said.subtitle else None
    message = messaging.Message(
        data={**link, **said.data, ID_FIELD: id_},
        notification=messaging.Notification(push.title, push.body, said.image),
        android=messaging.AndroidConfig(
            priority="high" if urgent else "normal",
            ttl=timedelta(seconds=seconds),
            notification=messaging.AndroidNotification(
                tag=id_, sound=sound, channel_id=said.channel_id, icon=said.icon, color=said.color
            ),
        ),
        apns=messaging.APNSConfig(
            {**headers, "apns-priority": "10" if urgent else "5"},
            messaging.APNSPayload(messaging.Aps(alert, said.badge, sound, mutable_content=True)),
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": str(seconds), **({"Urgency": str(said.priority)} if said.priority else {})},
            notification=messaging.WebpushNotification(tag=id_),
            fcm_options=messaging.WebpushFCMOptions(said.link)
            if isinstance(said.link, str) and said.link.startswith("https://")
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


OVERRIDES: dict[str, Any] = {
    "android": {
        "notification": {"sound": "own", "notification_count": 3, "click_action": "OPEN"},
        "data": {"page": "of android"},
        "direct_boot_ok": True,
    },
    "apns": {
        "headers": {"APNS-Priority": "5"},
        "payload": {"aps": {"thread-id": "orders", "badge": 9, "alert": {"subtitle": "own"}}, "extra": 1},
    },
    "webpush": {"headers": {"Urgency": "low"}, "notification": {"icon": "https://shop.example/i.png"}},
}


def test_fields_of_one_platform_win_over_ours_and_leave_the_rest() -> None:
    push = Push("", "", {"page": "7", "x": "y"}, badge=1, priority="high", **OVERRIDES)
    message = encode(
        PushMessage("id", "r" * 30, "t", "b", timedelta(seconds=60), push, "https://push.example/r"), now=NOW
    )
    assert list(complaints({"message": message}, SEND["request"])) == []
    assert message["android"] == {
        "priority": "high",
        "ttl": "60s",
        "notification": {"tag": "id", "sound": "own", "notification_count": 3, "click_action": "OPEN"},
        # They replace the common ones, so what we and the app need is in them, too.
        "data": {"page": "of android", "x": "y", ID_FIELD: "id", RECEIPT_FIELD: "https://push.example/r"},
        "direct_boot_ok": True,
    }
    assert message["apns"]["headers"] == {
        "apns-collapse-id": "id",
        "apns-expiration": str(int(NOW) + 60),
        "APNS-Priority": "5",
    }
    assert message["apns"]["payload"] == {
        "aps": {
            "mutable-content": 1,
            "sound": "default",
            "badge": 9,
            "thread-id": "orders",
            "alert": {"title": "t", "subtitle": "own", "body": "b"},
        },
        "extra": 1,
    }
    assert message["webpush"] == {
        "headers": {"TTL": "60", "Urgency": "low"},
        "notification": {"tag": "id", "icon": "https://shop.example/i.png"},
    }


#: What Google's document calls what we take for a field.
_KINDS = {
    Is.TEXT: ("string", None),
    Is.FLAG: ("boolean", None),
    Is.WHOLE: ("integer", "int32"),
    Is.NUMBER: ("number", "float"),
    Is.DURATION: ("string", "google-duration"),
    Is.MOMENT: ("string", "google-datetime"),
    Is.LIST: ("array", None),
    Is.DURATIONS: ("array", "google-duration"),
    Is.DATA: ("object", "string"),
    Is.HEADERS: ("object", "string"),
    Is.ANY: ("object", "any"),
}


def differences(fields: dict[str, Any], schema: dict[str, Any], path: str) -> Iterator[str]:
    """Say in what a table of fields differs from the discovery document."""
    properties = schema["properties"]
    if missing := properties.keys() ^ {_camel(name) for name in fields}:
        yield f"{path}: {sorted(missing)}"
    for name, takes in fields.items():
        own = properties[_camel(name)]
        if isinstance(takes, dict):
            yield from differences(takes, DISCOVERY["schemas"][own["$ref"]], f"{path}.{name}")
        elif isinstance(takes, tuple):
            if list(takes) != own["enum"]:
                yield f"{path}.{name}: {own['enum']}"
        else:
            inside = own.get("items", own.get("additionalProperties", {}))
            detail = inside.get("format") if own["type"] == "array" else own.get("format") or inside.get("type")
            if (own["type"], detail) != _KINDS[takes]:
                yield f"{path}.{name}: {own['type']} {detail}"


@pytest.mark.parametrize(
    ("platform", "schema"), [("android", "AndroidConfig"), ("apns", "ApnsConfig"), ("webpush", "WebpushConfig")]
)
def test_the_fields_that_we_take_for_a_platform_are_those_of_googles_document(platform: str, schema: str) -> None:
    assert list(differences(PLATFORMS[platform], DISCOVERY["schemas"][schema], platform)) == []


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
        "id",
        "r" * 30,
        'Grüße "€" 🎉',
        "a\nb\\",
        timedelta(seconds=90),
        Push("", "", {"page": "7"}, "https://example.com/", subtitle="from us", sound="chime.caf"),
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
    first = PushMessage(
        "id-1", "r" * 40, 'Say "hi"\n', "{0} \\u0041 €🎉", timedelta(minutes=5), Push("", "", {"page": "7"})
    )
    pushes = [
        first,
        replace(first, notification_id="id-2", registration="s" * 50, title="", body="\u2028\x01"),
        replace(first, registration="f" * 22),
        replace(first, push=replace(first.push)),
        replace(first, push=Push("", "", {"page": "8"})),
        replace(first, push=Push("", "", link="https://example.com/a")),
        replace(first, push=Push("", "", image="https://example.com/a.png", subtitle="between", badge=0)),
        replace(first, push=Push("", "", sound=SILENT, priority="normal", channel_id="orders")),
        replace(first, push=Push("", "", apns={"payload": {"aps": {"alert": {"subtitle": "own"}}}})),
        replace(first, ttl=timedelta(minutes=6)),
        replace(first, receipt_url="https://push.example/r/1"),
        replace(first, receipt_url='https://push.example/r/"2"'),
        first,
    ]
    for push in pushes:
        before = time.time()
        sent = json.loads(fcm.request(push).body)["message"]
        assert sent in [encode(push, now=second) for second in {before, time.time()}]
