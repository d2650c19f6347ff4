"""HTTP takes every short form that the library takes: both are the same message then."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice import ChannelStep, Client, LocalTime, Push, Recipient, Sms, WhatsApp, When
from knocktwice_shared.names import INBOX_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from knocktwice_worker.config import Settings
    from support.http_gateway import HttpGateway

HELLO = Push("Hello", "World")
SAID = {"title": "Hello", "body": "World"}
SID = "HX" + "0" * 32
PICTURE = "https://shop.example/4711.png"
AHEAD = datetime.now(UTC).replace(microsecond=0) + timedelta(days=7)
#: What the library is given, and what a request says likewise.
FORMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"user": "u", "push": HELLO}, {"user": "u", "push": SAID}),
    ({"user": "u", "push": HELLO, "sms": Sms()}, {"user": "u", "push": SAID, "sms": {}}),
    ({"user": "u", "push": HELLO, "sms": Sms("Hi")}, {"user": "u", "push": SAID, "sms": "Hi"}),
    ({"user": "u", "push": HELLO, "sms": Sms("Hi")}, {"user": "u", "push": SAID, "sms": {"text": "Hi"}}),
    ({"user": "u", "push": HELLO, "sms": Sms(sender="Shop")}, {"user": "u", "push": SAID, "sms": {"sender": "Shop"}}),
    ({"user": "u", "push": HELLO, "sms": Sms(when=2)}, {"user": "u", "push": SAID, "sms": {"when": 2}}),
    (
        {"user": "u", "push": HELLO, "sms": Sms(when=When.NOT_CLICKED, after=timedelta(minutes=10))},
        {"user": "u", "push": SAID, "sms": {"when": "not_clicked", "after": "10m"}},
    ),
    (
        {"user": "u", "push": HELLO, "sms": Sms(after=timedelta(seconds=90))},
        {"user": "u", "push": SAID, "sms": {"after": 90.0}},
    ),
    ({"user": "u", "push": HELLO, "sms": False}, {"user": "u", "push": SAID, "sms": False}),
    ({"user": "u", "template": "t", "sms": False}, {"user": "u", "template": "t", "sms": False}),
    ({"user": "u", "template": "t", "push": False}, {"user": "u", "template": "t", "push": False}),
    ({"user": "u", "template": "t", "params": ["Ana"]}, {"user": "u", "template": "t", "params": ["Ana"]}),
    ({"phone": "+14155552671", "sms": Sms("Hi")}, {"phone": "+14155552671", "sms": {"text": "Hi"}}),
    (
        {"phone": "+14155552671", "sms": Sms("Hi", media=(PICTURE,))},
        {"phone": "+14155552671", "sms": {"text": "Hi", "media": [PICTURE]}},
    ),
    (
        {"user": "u", "push": HELLO, "sms": Sms(media={"en": PICTURE})},
        {"user": "u", "push": SAID, "sms": {"media": {"en": PICTURE}}},
    ),
    (
        {"user": "u", "push": HELLO, "steps": [Sms(media=PICTURE)]},
        {"user": "u", "push": SAID, "steps": [{"channel": "sms", "media": PICTURE}]},
    ),
    ({"phone": "+14155552671", "sms": Sms("Hi")}, {"phone": "+14155552671", "sms": "Hi", "push": False}),
    (
        {"user": "u", "sms": Sms("Hi", sender="Shop", after=timedelta(hours=1))},
        {"user": "u", "sms": {"text": "Hi", "sender": "Shop", "after": "1h", "when": "not_clicked"}},
    ),
    (
        {"user": "u", "push": HELLO, "steps": [WhatsApp(SID, {"1": "a"}), Sms("Last call.", when="not_clicked")]},
        {
            "user": "u",
            "push": SAID,
            "steps": [
                {"channel": "whatsapp", "content_sid": SID, "variables": {"1": "a"}},
                {"channel": "sms", "text": "Last call.", "when": "not_clicked", "after": "5m"},
            ],
        },
    ),
    (
        {"user": "u", "steps": [Sms("First."), ChannelStep("sms", {"text": "Last."}, after=timedelta(days=1))]},
        {"user": "u", "plan": [{"channel": "sms", "text": "First."}, {"channel": "sms", "text": "Last.", "after": "1d"}]},
    ),
    (
        {
            "user": "u",
            "push": Push({"en": "a", "de": "b"}, "World"),
            "sms": Sms({"en": "a", "de": "b"}),
            "default_locale": "de",
        },
        {
            "user": "u",
            "push": {"title": {"en": "a", "de": "b"}, "body": "World"},
            "sms": {"text": {"en": "a", "de": "b"}},
            "default_locale": "de",
        },
    ),
    ({"user": "u", "push": HELLO, "ttl": timedelta(hours=2)}, {"user": "u", "push": SAID, "ttl": "2h"}),
    ({"user": "u", "push": HELLO, "category": "marketing"}, {"user": "u", "push": SAID, "category": "marketing"}),
    ({"user": "u", "push": HELLO, "send_at": AHEAD}, {"user": "u", "push": SAID, "send_at": AHEAD.isoformat()}),
    (
        {"user": "u", "push": HELLO, "send_at": LocalTime(AHEAD.replace(tzinfo=None))},
        {"user": "u", "push": SAID, "send_at": {"local": AHEAD.replace(tzinfo=None).isoformat()}},
    ),
    (
        {"user": "u", "registrations": ["token:1"], "phone": "+14155552671", "tags": {"a": 1}, "locale": "de-AT", "push": HELLO},
        {"user": "u", "registrations": ["token:1"], "phone": "+14155552671", "tags": {"a": 1}, "locale": "de-AT", "push": SAID},
    ),
    ({"user": "u", "push": HELLO, "reference": {"o": 1}, "key": "k"}, {"user": "u", "push": SAID, "reference": {"o": 1}, "key": "k"}),
]  # fmt: skip
MANY: list[tuple[list[Recipient | str], list[Any]]] = [
    (["u1", "u2"], ["u1", "u2"]),
    (["u1", Recipient("u2", params={"a": 1})], ["u1", {"user": "u2", "params": {"a": 1}}]),
    ([Recipient(registrations=["token:1"], phone="+14155552671")], [{"registrations": ["token:1"], "phone": "+14155552671"}]),
]  # fmt: skip


@pytest.fixture
def library(settings: Settings) -> Iterator[Client]:
    """The library at the gateway's broker."""
    with Client(settings.broker_url) as client:
        yield client


def _messages(valkey: redis.Redis) -> list[dict[str, Any]]:
    """Return what was accepted since the last look, without what is new in each message."""
    found = [json.loads(entry)["message"] for entry in valkey.hvals(INBOX_MESSAGES)]
    valkey.flushdb()
    for message in found:
        message.pop("id", None)
        for part in (*message.get("recipients", ()), *message.get("changes", ())):
            part.pop("id", None)
            part.pop("at", None)
    return sorted(found, key=json.dumps)


@pytest.mark.parametrize(("arguments", "body"), FORMS)
def test_one_person_is_notified_alike_through_both_doors(
    gateway: HttpGateway, library: Client, valkey: redis.Redis, arguments: dict[str, Any], body: dict[str, Any]
) -> None:
    definition = {"default_locale": "en", "contents": {"en": {"push": SAID}}}
    gateway.client().put("/v1/templates/t", json=definition)
    library.notify(**arguments)
    wanted = _messages(valkey)
    answer = gateway.client().post("/v1/notifications", json=body)
    assert answer.status_code == 202, answer.text
    assert _messages(valkey) == wanted


@pytest.mark.parametrize(("people", "listed"), MANY)
def test_many_people_are_notified_alike_through_both_doors(
    gateway: HttpGateway, library: Client, valkey: redis.Redis, people: list[Recipient | str], listed: list[Any]
) -> None:
    library.notify_many(people, push=HELLO)
    wanted = _messages(valkey)
    answer = gateway.client().post("/v1/notifications", json={"recipients": listed, "push": SAID})
    assert answer.status_code == 202, answer.text
    assert _messages(valkey) == wanted


def test_a_single_notification_is_cancelled_alike_through_both_doors(
    gateway: HttpGateway, library: Client, valkey: redis.Redis
) -> None:
    id_ = "019a9d3c-5a00-7000-8000-000000000001"
    library.cancel(id_)
    library.cancel(key="k")
    wanted = _messages(valkey)
    client = gateway.client()
    assert [client.post("/v1/cancellations", json=body).status_code for body in ({"id": id_}, {"key": "k"})] == [
        202
    ] * 2
    found = _messages(valkey)
    assert [m.get("ids") or m.get("keys") for m in found] == [m.get("ids") or m.get("keys") for m in wanted]


def test_a_short_form_that_is_wrong_is_named_as_the_request_has_it(gateway: HttpGateway) -> None:
    body = {
        "user": "u",
        "push": {"title": "Hello"},
        "steps": [
            {"channel": "sms", "after": "31d"},
            {"channel": "fax"},
            {"channel": "sms", "after": -1, "media": [PICTURE, "http://shop.example/a.png"]},
        ],
        "ttl": "an hour",
        "category": "spam",
        "catgeory": "spam",
        "registrations": ["undefined", "token:1"],
        "phone": "0650",
    }
    problem = gateway.client().post("/v1/notifications", json=body).json()
    assert sorted(error["field"] for error in problem["errors"]) == sorted(
        [
            "catgeory",
            "ttl",
            "steps[0].after",
            "registrations[0]",
            "phone",
            "push.body",
            "steps[1].channel",
            "steps[2].after",
            "steps[2].media[1]",
            "category",
        ]
    )
    assert problem["field"] == "catgeory"
