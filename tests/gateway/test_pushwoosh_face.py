"""Pushwoosh's API at ``/pushwoosh``: its documented requests, its answers and errors, and our keys and limits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import (
    Batch,
    DeviceRegistered,
    LocalTime,
    PhoneBound,
    TagsSet,
    parse_audience,
    parse_batch,
    parse_cancellation,
)
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.audience import people
from knocktwice_worker.content.liquid import fill
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces import message_codes
from knocktwice_worker.gateway.faces.pushwoosh import content

if TYPE_CHECKING:
    import redis

    from support.http_gateway import HttpGateway

ANA = "+16505550160"


@pytest.fixture
def gateway(shared_gateway: HttpGateway) -> HttpGateway:
    """The module's gateway, with nothing accepted."""
    shared_gateway.services.redis.flushdb()
    return shared_gateway


@pytest.fixture
def valkey(gateway: HttpGateway) -> redis.Redis:
    """What the gateway has accepted."""
    return gateway.services.redis


def call(gateway: HttpGateway, method: str, *scopes: Scope, **inside: object) -> dict[str, Any]:
    """What a client of theirs does: the key inside the body, and no word of JSON in the head."""
    body = {"request": {"application": "AAAAA-BBBBB", "auth": gateway.key(*scopes), **inside}}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    url = f"/pushwoosh/json/1.3/{method}"
    answer = gateway.stranger().post(url, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def create(gateway: HttpGateway, **message: object) -> dict[str, Any]:
    return call(gateway, "createMessage", notifications=[{"send_date": "now", "content": "Hello!", **message}])


def accepted(valkey: redis.Redis, task: Task = Task.SEND_PUSH) -> list[Any]:
    entries = [json.loads(entry) for entry in valkey.hvals(INBOX_MESSAGES)]
    return [entry["message"] for entry in entries if entry["task"] == task]


def batch(valkey: redis.Redis) -> Batch:
    (message,) = accepted(valkey)
    return parse_batch(message)


def changes(valkey: redis.Redis) -> list[Any]:
    return [change for message in accepted(valkey, Task.UPDATE_AUDIENCE) for change in parse_audience(message)]


# What their documentation shows, with the comments taken out.
DOCUMENTED = {
    "send_date": "now",
    "ignore_user_timezone": True,
    "timezone": "America/New_York",
    "campaign": "CAMPAIGN_CODE",
    "content": {"en": "English", "fr": "French"},
    "title": {"en": "Title", "fr": "Titre"},
    "subtitle": {"en": "Subtitle", "fr": "Sous-titre"},
    "link": "https://google.com",
    "minimize_link": 0,
    "data": {"key": "value", "n": 1},
    "platforms": [1, 3],
    "send_rate": 100,
    "users": ["user_1", "user_2"],
    "ios_badges": "5",
    "ios_sound": "sound.caf",
    "ios_category_id": "1",
    "android_icon": "icon",
    "android_banner": "https://a.example/image.png",
    "android_sound": "push",
    "android_vibration": 0,
    "chrome_icon": "https://a.example/icon.png",
}


def test_the_documented_message_is_taken(gateway: HttpGateway, valkey: redis.Redis) -> None:
    told = call(gateway, "createMessage", Scope.NOTIFY, notifications=[DOCUMENTED])
    sent = batch(valkey)
    response = told["response"]
    assert (told["status_code"], told["status_message"]) == (200, "OK")
    assert response["Messages"] == [f"{sent.id}-2"]
    assert [str(one) for one in message_codes.notifications_of(response["Messages"][0])] == response["knocktwice"][0][
        "ids"
    ]
    assert sorted(response["knocktwice"][0]["ignored"]) == [
        "android_vibration",
        "chrome_icon",
        "minimize_link",
        "platforms",
        "send_rate",
    ]
    assert [one.user for one in sent.recipients] == ["user_1", "user_2"]
    assert (sent.locales, sent.default_locale, sent.reference) == (("en", "fr"), "en", {"campaign": "CAMPAIGN_CODE"})
    push, _ = sent.spoken("fr")
    assert push is not None
    assert (push.title, push.body, push.subtitle, push.link) == ("Titre", "French", "Sous-titre", "https://google.com")
    assert (push.data, push.badge, push.sound, push.icon) == ({"key": "value", "n": "1"}, 5, "push", "icon")
    assert push.apns == {"payload": {"aps": {"sound": "sound.caf", "category": "1"}}}


def test_a_text_alone_has_the_title_that_is_set(gateway: HttpGateway, valkey: redis.Redis) -> None:
    create(gateway, users=["u-1"])
    push = batch(valkey).push
    assert push is not None
    assert (push.title, push.body) == ("New message", "Hello!")


def test_our_fallback_is_one_more_field(gateway: HttpGateway, valkey: redis.Redis) -> None:
    own = {"sms": {"when": "not_clicked", "after_s": 600, "text": "Hello by SMS"}, "category": "marketing"}
    create(gateway, users=["u-1"], knocktwice=own)
    sent = batch(valkey)
    assert (sent.sms_text, sent.category, [step.after for step in sent.plan or ()]) == (
        "Hello by SMS",
        "marketing",
        [timedelta(minutes=10)],
    )


def test_placeholders_are_filled_in_with_modifiers_and_defaults(gateway: HttpGateway, valkey: redis.Redis) -> None:
    text = "Hi {first name|CapitalizeFirst|friend}, {City|UPPERCASE|}: {order|Regular|{none}} {{ order }}"
    text = text.replace("{none}", "none")
    given = {"first name": "ana {{ x }}", "order": "{4711}"}
    create(gateway, users=["u-1"], content=text, dynamic_content_placeholders=given)
    sent = batch(valkey)
    assert sent.push is not None
    params = sent.recipients[0].params
    assert isinstance(params, dict)
    assert fill(str(sent.push.body), params) == "Hi Ana {{ x }}, : {4711} {4711}"


@pytest.mark.parametrize(
    ("modifier", "said"),
    [
        ("", "ana LUISA"),
        ("Regular", "ana LUISA"),
        ("CapitalizeFirst", "Ana LUISA"),
        ("CapitalizeAllFirst", "Ana LUISA"),
        ("UPPERCASE", "ANA LUISA"),
        ("lowercase", "ana luisa"),
    ],
)
def test_a_placeholder_without_a_value_is_the_persons_tag(
    gateway: HttpGateway, valkey: redis.Redis, modifier: str, said: str
) -> None:
    assert create(gateway, users=["u-1"], content=f"Hi {{First name|{modifier}|friend}}!")["status_code"] == 200
    sent = batch(valkey)
    assert sent.push is not None
    params = sent.recipients[0].params
    assert isinstance(params, dict)
    body = str(sent.push.body)
    assert fill(body, {**params, "user": {"tags": {"First name": "ana LUISA"}}}) == f"Hi {said}!"
    assert fill(body, {**params, "user": {"tags": {"First name": 7}}}) == "Hi 7!"
    # Without such a tag, and about a device that nobody has.
    assert fill(body, {**params, "user": {"tags": {}}}) == fill(body, params) == "Hi friend!"


@pytest.mark.parametrize(
    ("date", "more", "at"),
    [
        ("2026-12-01 18:30", {}, datetime(2026, 12, 1, 18, 30, tzinfo=UTC)),
        ("2026-12-01 18:30", {"timezone": "America/New_York"}, datetime(2026, 12, 1, 23, 30, tzinfo=UTC)),
        ("2026-12-01 18:30", {"ignore_user_timezone": False}, LocalTime(datetime(2026, 12, 1, 18, 30))),  # noqa: DTZ001
    ],
)
def test_a_date_is_by_the_clock_that_is_named(
    gateway: HttpGateway, valkey: redis.Redis, date: str, more: dict[str, Any], at: object
) -> None:
    assert create(gateway, users=["u-1"], send_date=date, **more)["status_message"] == "OK"
    assert batch(valkey).send_at == at


def test_a_phone_number_among_the_devices_is_texted(gateway: HttpGateway, valkey: redis.Redis) -> None:
    # The request of their page on SMS.
    told = create(gateway, devices=["+1 650 555 0161"], platforms=[18], content="Hi {name|Regular|you}!")
    assert told["status_code"] == 200
    sent = batch(valkey)
    assert sent.push is None
    (one,) = sent.recipients
    assert (one.user, one.phone, [step.channel for step in sent.plan or ()]) == (None, "+16505550161", ["sms"])


def test_a_number_that_one_person_has_is_theirs(gateway: HttpGateway, valkey: redis.Redis) -> None:
    with gateway.services.engine.begin() as conn:
        people.apply(conn, [PhoneBound("ana", ANA, datetime.now(UTC))])
    create(gateway, devices=[ANA])
    assert [(one.user, one.phone) for one in batch(valkey).recipients] == [("ana", None)]


def test_a_preset_is_a_saved_template_and_to_sms_it_is_one(gateway: HttpGateway, valkey: redis.Redis) -> None:
    said = {"push": {"title": "t", "body": "Hi {{ name }}"}}
    template = {"default_locale": "en", "contents": {"en": said}}
    assert gateway.client().put("/v1/templates/AAAAA-00001", json=template).status_code == 200
    given = {"preset": "AAAAA-00001", "content": "", "dynamic_content_placeholders": {"name": "Ana"}}
    create(gateway, users=["u-1"], **given)
    create(gateway, users=["u-2"], platforms=[18], **given)
    pushed, texted = sorted(map(parse_batch, accepted(valkey)), key=lambda one: one.sms_only)
    assert (pushed.template, pushed.sms_only, texted.template, texted.sms_only) == (
        "AAAAA-00001",
        False,
        "AAAAA-00001",
        True,
    )
    assert pushed.recipients[0].params == {"name": "Ana"}
    refused = create(gateway, users=["u-1"], preset="nowhere", content="")
    assert refused["status_code"] == 210
    assert refused["status_message"].startswith("notifications[0].preset: there is none called nowhere")


def test_a_registered_device_is_addressed_by_its_hwid(gateway: HttpGateway, valkey: redis.Redis) -> None:
    # As their documentation shows it.
    told = call(
        gateway,
        "registerDevice",
        Scope.AUDIENCE,
        push_token="dec301908b9ba8df85e57a58e40f96f523f4c2068674f5fe2ba25cdc250a2a41",
        hwid="1CA68A12-8DAC-4BB7-BEE5-B756288B6D3C",
        idfa="AEBE52E7-03EE-455A-B3C4-E57283966239",
        timezone=3600,
        device_type=1,
        language="en",
        userId="Alex",
        tags={"StringTag": "string value", "IntegerTag": 42, "ListTag": ["string1", "string2"]},
    )
    assert told == {"status_code": 200, "status_message": "OK", "response": None}
    device, tags = changes(valkey)
    assert isinstance(device, DeviceRegistered)
    assert (device.user, device.registration[:6], device.platform, device.locale) == ("Alex", "dec301", "ios", "en")
    assert isinstance(tags, TagsSet)
    assert tags.tags == {"StringTag": "string value", "IntegerTag": 42, "ListTag": ("string1", "string2")}
    create(gateway, devices=["1CA68A12-8DAC-4BB7-BEE5-B756288B6D3C", "a-push-token"])
    assert [one.registrations for one in batch(valkey).recipients] == [(device.registration,), ("a-push-token",)]
    valkey.flushdb()
    hwid = {"hwid": "1CA68A12-8DAC-4BB7-BEE5-B756288B6D3C"}
    said = call(
        gateway, "setTags", tags={"level": 3, "gone": None, "up": {"operation": "increment", "value": 1}}, **hwid
    )
    assert [one["tag"] for one in said["response"]["skipped"]] == ["up"]
    assert [(one.user, one.tags) for one in changes(valkey)] == [("Alex", {"level": 3, "gone": None})]
    valkey.flushdb()
    assert call(gateway, "unregisterDevice", **hwid)["status_code"] == 200
    (left,) = changes(valkey)
    assert (left.user, left.registration) == ("Alex", device.registration)


@pytest.mark.parametrize(
    "odd",
    [{"push_token": "\0"}, {"push_token": "\ud800"}, {"device_type": []}, {"userId": "\0"}, {"hwid": "\ud800"}],
)
def test_a_device_that_cannot_be_stored_is_refused_and_leaves_no_name(
    gateway: HttpGateway, valkey: redis.Redis, odd: dict[str, Any]
) -> None:
    device = {"hwid": "odd", "push_token": "t", "device_type": 3, "userId": "u", **odd}
    told = call(gateway, "registerDevice", **device)
    if "device_type" not in odd:
        assert (told["status_code"], changes(valkey)) == (210, [])
        with gateway.services.engine.connect() as conn:
            assert conn.execute(sa.text("SELECT FROM hwids WHERE hwid = 'odd'")).first() is None


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"push_token": "undefined"}, "push_token"),
        ({"language": 5}, "language"),
        ({"timezone": "x"}, "timezone"),
        ({"tags": {"a\0": 1}}, "tags"),
    ],
)
def test_a_device_is_refused_in_pushwooshs_words(gateway: HttpGateway, wrong: dict[str, Any], field: str) -> None:
    device = {"hwid": "h", "push_token": "a-registration", "device_type": 3, "userId": "u", **wrong}
    told = call(gateway, "registerDevice", **device)
    assert (told["status_code"], told["knocktwice"]["errors"][0]["field"].partition(".")[0]) == (210, field)


def test_half_a_character_is_named_and_breaks_no_answer(gateway: HttpGateway) -> None:
    for odd in ({"content": "\ud800"}, {"transactionId": "\ud800"}, {"devices": ["\0"]}, {"\ud800": 1}):
        assert create(gateway, **({"users": ["u-1"]} if "devices" not in odd else {}), **odd)["status_code"] == 210


def test_the_page_names_every_field() -> None:
    told = (Path(__file__).parents[2] / "docs/moving/pushwoosh.md").read_text()
    silent = {"ios_silent", "android_silent", "email_template", "knocktwice"}
    assert [name for name in sorted({*content._READ, *content._REFUSED} - silent) if f"`{name}`" not in told] == []


def test_a_hwid_that_is_a_number_binds_it(gateway: HttpGateway, valkey: redis.Redis) -> None:
    call(gateway, "registerDevice", hwid="+1 650 555 0162", device_type=18, userId="ben", language="de", tags={"a": 1})
    bound, tags = changes(valkey)
    assert bound == PhoneBound("ben", "+16505550162", bound.at)
    assert (tags.user, tags.tags, tags.locale) == ("ben", {"a": 1}, "de")
    valkey.flushdb()
    call(gateway, "registerDevice", hwid="+16505550163", device_type=18)
    (alone,) = changes(valkey)
    assert alone.phone == "+16505550163"
    assert "650" not in alone.user


@pytest.mark.parametrize(
    ("message", "group"),
    [
        ({}, {"everyone": True}),
        ({"platforms": [3, 1]}, {"field": "platform", "op": "in", "value": ["android", "ios"]}),
        ({"platforms": [18]}, {"field": "can_receive_sms", "op": "=", "value": True}),
        ({"conditions": [["Language", "EQ", "de"]]}, {"field": "language", "op": "=", "value": "de"}),
        (
            {"conditions": [["a", "EQ", 1], ["b", "NOTEQ", "x"]], "conditions_operator": "OR"},
            {"or": [{"field": "tags.a", "op": "=", "value": 1}, {"field": "tags.b", "op": "!=", "value": "x"}]},
        ),
        (
            {"conditions": [["a", "BETWEEN", [1, 5]]]},
            {
                "and": [
                    {"field": "tags.a", "op": "exists", "value": True},
                    {"not": {"field": "tags.a", "op": "<", "value": 1}},
                    {"not": {"field": "tags.a", "op": ">", "value": 5}},
                ]
            },
        ),
        (
            {"conditions": [["a", "NOTIN", ["x"]]]},
            {
                "not": {
                    "or": [
                        {"field": "tags.a", "op": "in", "value": ["x"]},
                        {"field": "tags.a", "op": "contains", "value": "x"},
                    ]
                }
            },
        ),
    ],
)
def test_whoever_is_not_named_is_a_group_and_the_message_a_blast(
    gateway: HttpGateway, message: dict[str, Any], group: dict[str, Any]
) -> None:
    told = create(gateway, **message)
    (code,) = told["response"]["Messages"]
    with gateway.services.engine.connect() as conn:
        found = conn.execute(sa.text("SELECT filter FROM blasts WHERE id = :code"), {"code": code}).scalar_one()
    assert found == group


def test_a_filter_is_a_saved_segment(gateway: HttpGateway) -> None:
    body = {"filter": {"field": "tags.vip", "op": "=", "value": True}}
    assert gateway.client().put("/v1/segments/VIPs", json=body).status_code in (200, 201)
    assert create(gateway, filter="VIPs")["status_code"] == 200
    refused = create(gateway, filter="Nobody")
    assert (refused["status_code"], "Nobody" in refused["status_message"]) == (210, True)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"content": None}, "content"),
        ({"send_date": "tomorrow"}, "send_date"),
        ({"timezone": "Mars/Olympus", "send_date": "2026-12-01 18:30"}, "timezone"),
        ({"content": "Hi {Name}"}, "content"),
        ({"content": "Hi {Name|shout|x}"}, "content"),
        ({"content": "Hi {{ name }}"}, "dynamic_content_placeholders"),
        ({"platforms": [3, 18]}, "platforms"),
        ({"platforms": [21]}, "platforms"),
        ({"devices": [ANA, "token"], "users": None}, "devices"),
        ({"devices": ["+1 23"], "users": None}, "devices"),
        ({"devices": ["token"]}, "users"),
        ({"users": ["u"] * 1001}, "users"),
        ({"users": [7]}, "users"),
        ({"users": None, "conditions": [["a", "LIKE", "x"]]}, "conditions[0][1]"),
        ({"geozone": {"lat": 1, "lng": 2}}, "geozone"),
        ({"capping_days": 30}, "capping_days"),
        ({"ios_root_params": {"aps": {"content-available": "1"}}}, "ios_root_params"),
        ({"contnet": "x"}, "contnet"),
        ({"data": "{"}, "data"),
        ({"link": "javascript:x"}, "link"),
        ({"title": "x" * 4000}, "title"),
        ({"knocktwice": {"smss": {}}}, "knocktwice.smss"),
        ({"knocktwice": {"sms": {"after_s": -1}}}, "sms.after_s"),
    ],
)
def test_what_is_wrong_or_not_supported_is_named_and_nothing_is_sent(
    gateway: HttpGateway, valkey: redis.Redis, message: dict[str, Any], field: str
) -> None:
    fine = {"send_date": "now", "content": "Hi", "users": ["u-1"]}
    told = call(gateway, "createMessage", notifications=[fine, fine | message])
    assert (told["status_code"], told["response"]) == (210, None)
    assert f"notifications[1].{field}" in told["status_message"]
    assert accepted(valkey) == []


def test_who_has_no_key_or_a_lesser_one_is_refused(gateway: HttpGateway, valkey: redis.Redis) -> None:
    one = {"notifications": [{"send_date": "now", "content": "Hi", "users": ["u-1"]}]}
    assert "Account not found" in call(gateway, "createMessage", **one, auth="nothing")["status_message"]
    assert "lacks the scope" in call(gateway, "createMessage", Scope.READ, **one)["status_message"]
    everybody = {"notifications": [{"send_date": "now", "content": "Hi"}]}
    assert "lacks the scope blasts" in call(gateway, "createMessage", Scope.NOTIFY, **everybody)["status_message"]
    assert call(gateway, "registerDevice", Scope.NOTIFY, hwid="h", device_type=3)["status_code"] == 210
    assert accepted(valkey) == []
    # Newer clients put it into the head.
    headers = {"Authorization": f"Token {gateway.key(Scope.NOTIFY)}"}
    answer = gateway.stranger().post("/pushwoosh/json/1.3/createMessage", json={"request": one}, headers=headers)
    assert answer.json()["status_code"] == 200


def test_what_is_no_request_and_what_is_not_served_is_said(gateway: HttpGateway) -> None:
    for body in (b"{", b"[]", b"{}"):
        answer = gateway.stranger().post("/pushwoosh/json/1.3/createMessage", content=body)
        assert (answer.json()["status_code"], answer.json()["response"]) in ((400, None), (210, None))
    told = call(gateway, "createTargetedMessage")
    assert "createTargetedMessage is not served" in told["status_message"]


def test_a_transaction_is_one_message_however_often_it_is_sent(gateway: HttpGateway, valkey: redis.Redis) -> None:
    key = gateway.key()
    message = {"send_date": "now", "content": "Hi", "users": ["u-1", "u-2"], "transactionId": "t-1"}
    first, again = (call(gateway, "createMessage", notifications=[message], auth=key) for _ in range(2))
    assert first["response"]["Messages"] == again["response"]["Messages"]
    assert len(accepted(valkey)) == 1


def test_a_deleted_message_is_cancelled(gateway: HttpGateway, valkey: redis.Redis) -> None:
    told = create(gateway, users=["u-1", "u-2"])
    (code,) = told["response"]["Messages"]
    assert call(gateway, "deleteMessage", message=code)["status_message"] == "OK"
    (message,) = accepted(valkey, Task.CANCEL)
    assert [str(id_) for id_ in parse_cancellation(message).ids] == told["response"]["knocktwice"][0]["ids"]
    (blast,) = create(gateway)["response"]["Messages"]
    assert call(gateway, "deleteMessage", message=blast)["status_message"] == "OK"
    assert gateway.client().get(f"/v1/blasts/{blast}").json()["state"] == "aborted"
    for wrong in ("C3F8-C3863ED4-334AD4F1", None):
        assert call(gateway, "deleteMessage", message=wrong)["status_code"] == 210
    assert call(gateway, "getMsgStats", message="C3F8-C3863ED4-334AD4F1")["status_code"] == 210
