"""OneSignal's face: who gets in, which fields mean what, and how errors look; without a worker."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, UserErased
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.audience import aliases, people, profile
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces.onesignal import FACE, filters, known_fields, names, tags, times
from knocktwice_worker.privacy import erasure

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway

APP = "8250eaf6-1a58-489e-b136-7c74a864b434"
PUSH = {"app_id": APP, "include_aliases": {"external_id": ["u-17"]}, "headings": {"en": "T"}, "contents": {"en": "B"}}
TEXT = {"app_id": APP, "include_phone_numbers": ["+16505550100"], "contents": {"en": "B"}}


@pytest.fixture(scope="module")
def client(shared_gateway: HttpGateway) -> httpx.Client:
    client = shared_gateway.client()
    client.base_url = f"{shared_gateway.url}/onesignal"
    return client


@pytest.fixture
def books(shared_gateway: HttpGateway) -> Iterator[Any]:
    """What the broker was given."""
    shared_gateway.services.redis.flushdb()
    yield lambda: [json.loads(one)["message"] for one in shared_gateway.services.redis.hvals(INBOX_MESSAGES)]
    shared_gateway.services.redis.flushdb()


def test_nothing_answers_without_a_key_and_errors_are_onesignals(shared_gateway: HttpGateway) -> None:
    stranger = shared_gateway.stranger()
    forged = {"Authorization": f"Key kt_{'a' * 12}_{'b' * 32}"}
    tried = 0
    for route in FACE.routes:
        for method in (route.methods or set()) - {"HEAD"}:
            path = FACE.prefix + route.path.replace("{", "").replace("}", "")
            for headers in ({}, forged, {"Authorization": "Basic abc"}):
                answer = stranger.request(method, path, headers=headers, json={} if method != "GET" else None)
                assert (answer.status_code, next(iter(answer.json()))) == (401, "errors"), (method, path)
                tried += 1
    assert tried > 200


@pytest.mark.parametrize(
    ("scopes", "body", "status"),
    [
        ({Scope.READ}, PUSH, 403),
        ({Scope.NOTIFY}, PUSH, 200),
        ({Scope.NOTIFY}, {**PUSH, "include_aliases": None, "included_segments": ["All"]}, 403),
        ({Scope.NOTIFY, Scope.BLASTS}, {**PUSH, "include_aliases": None, "included_segments": ["All"]}, 200),
    ],
)
def test_a_key_does_here_what_it_may_do_elsewhere(
    shared_gateway: HttpGateway, scopes: set[Scope], body: dict[str, Any], status: int
) -> None:
    key = shared_gateway.key(*scopes)
    for scheme in ("Key", "Basic", "Bearer"):
        headers = {"Authorization": f"{scheme} {key}"}
        answer = shared_gateway.stranger().post("/onesignal/api/v1/notifications", json=body, headers=headers)
        assert answer.status_code == status, answer.text


def test_no_field_is_dropped_without_a_word(client: httpx.Client) -> None:
    """Each field is read, refused by its name, or named in the warnings; whatever is not known is refused."""
    read = {*known_fields.READ, *known_fields.TARGETS}
    assert not read & known_fields.COSMETIC.keys()
    assert not (read | known_fields.COSMETIC.keys()) & known_fields.REFUSED.keys()
    for name in known_fields.COSMETIC:
        told = client.post("/notifications", json={**PUSH, name: "x"}).json()
        assert [one.partition(" ")[0] for one in told["warnings"]] == [name]
    refused = client.post("/notifications", json={**PUSH, **dict.fromkeys(known_fields.REFUSED, "x"), "colour": "x"})
    assert refused.status_code == 400
    named = {one.partition(":")[0] for one in refused.json()["errors"]}
    # An error names a bounded number of fields.
    assert len(named) > 15
    assert named <= {*known_fields.REFUSED, "colour"}
    for name in [*known_fields.REFUSED, "colour"]:
        errors = client.post("/notifications", json={**PUSH, name: "x"}).json()["errors"]
        assert [one.partition(":")[0] for one in errors] == [name]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"contents": {"de": "Hallo"}}, "contents"),
        ({"headings": None}, "headings"),
        ({"include_phone_numbers": ["+16505550100"], "headings": None}, "include_phone_numbers"),
        ({"include_aliases": None}, "include_aliases"),
        ({"target_channel": "email"}, "target_channel"),
        ({"sms_from": "+15005550006", "target_channel": "push"}, "sms_from"),
        ({"sms_media_urls": ["https://a.example/1.png"]}, "sms_media_urls"),
        ({"sms_fallback": {"media": ["http://a.example/1.png"]}}, "sms_fallback.media[0]"),
        ({"send_after": "2026-12-24 09:00:00"}, "send_after"),
        ({"send_after": "soon"}, "send_after"),
        ({"delayed_option": "last-active"}, "delayed_option"),
        ({"delayed_option": "timezone"}, "delivery_time_of_day"),
        ({"ios_badgeType": "Increase", "ios_badgeCount": 1}, "ios_badgeType"),
        ({"url": "https://a.example", "app_url": "myapp://a"}, "app_url"),
        ({"url": "javascript:alert(1)"}, "url"),
        ({"isIos": True}, "isIos"),
        ({"throttle_rate_per_minute": 5}, "throttle_rate_per_minute"),
        ({"sms_fallback": {"when": "sometime"}}, "sms_fallback.when"),
        ({"sms_fallback": {"text": {"de": "Hallo"}}}, "sms_fallback.text"),
        ({"sms_fallback": {"delay": 5}}, "sms_fallback.delay"),
        ({"idempotency_key": "a", "external_id": "b"}, "external_id"),
        ({"contents": {"en": "Hi {{ message.custom_data.name }}"}}, "custom_data"),
        ({"priority": "high"}, "priority"),
        ({"data": "x"}, "data"),
        ({"template_id": "welcome"}, "headings"),
        ({"excluded_segments": ["A"]}, "excluded_segments"),
    ],
)
def test_an_error_names_the_field_as_the_request_does(client: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = client.post("/notifications", json={**PUSH, **body})
    assert answer.status_code == 400, answer.text
    assert any(one.startswith(f"{field}") for one in answer.json()["errors"]), answer.text


@pytest.mark.parametrize(
    ("person", "field"),
    [
        ({"subscriptions": [{"type": "iOSPush", "token": "undefined"}]}, "token"),
        ({"subscriptions": [{"type": "SMS", "token": "0151"}]}, "token"),
        ({"properties": {"timezone_id": "Mars/Olympus"}}, "timezone_id"),
        ({"properties": {"tags": {"a\0": "1"}}}, "tags"),
    ],
)
def test_a_person_is_refused_in_onesignals_words(client: httpx.Client, person: dict[str, Any], field: str) -> None:
    answer = client.post("/apps/app-1/users", json={"identity": {"external_id": "u"}, **person})
    assert answer.status_code == 400, answer.text
    assert answer.json()["errors"][0]["title"].startswith(field)


def test_a_push_is_what_our_own_route_would_send(client: httpx.Client, books: Any) -> None:
    asked = {
        "contents": {"en": "Hello {{ message.custom_data.name }}", "cn": "你好"},
        "custom_data": {"name": "Ada"},
        "data": {"order": 4711, "kind": "new"},
        "url": "https://shop.example/4711",
        "global_image": "https://shop.example/a.png",
        "big_picture": "https://shop.example/b.png",
        "ios_badgeType": "SetTo",
        "ios_badgeCount": 3,
        "ios_interruption_level": "time_sensitive",
        "android_accent_color": "FF00AA55",
        "android_visibility": 0,
        "ttl": 3600,
        "priority": 5,
        "send_after": "Thu Dec 24 2026 14:00:00 GMT-0700 (MST)",
        "name": "Christmas",
        "sms_fallback": {"when": "not_clicked", "after": "10m"},
    }
    answer = client.post("/notifications", json={**PUSH, **asked})
    assert answer.status_code == 200, answer.text
    (message,) = books()
    assert message["id"] == answer.json()["id"]
    assert message["content"]["push"] == {
        "title": {"en": "T", "zh-Hans": "T"},
        "body": {"en": "Hello {{ message.custom_data.name }}", "zh-Hans": "你好"},
        "data": {"order": "4711", "kind": "new"},
        "link": "https://shop.example/4711",
        "image": "https://shop.example/a.png",
        "badge": 3,
        "color": "#00AA55",
        "priority": "normal",
        "android": {"notification": {"image": "https://shop.example/b.png", "visibility": "PRIVATE"}},
        "apns": {"payload": {"aps": {"interruption-level": "time-sensitive"}}},
    }
    assert message["plan"] == [{"channel": "sms", "when": "not_clicked", "after_s": 600}]
    assert (message["ttl_s"], message["send_at"]) == (3600, "2026-12-24T14:00:00-07:00")
    assert message["reference"] == {"app_id": APP, "name": "Christmas"}
    (recipient,) = message["recipients"]
    assert (recipient["user"], recipient["params"]) == ("u-17", {"message": {"custom_data": {"name": "Ada"}}})


def test_an_sms_takes_its_media_along(client: httpx.Client, books: Any) -> None:
    picture = "https://shop.example/a.png"
    assert client.post("/notifications", json={**TEXT, "sms_media_urls": [picture]}).status_code == 200
    asked = {**PUSH, "sms_fallback": {"when": "not_clicked", "media": picture}}
    assert client.post("/notifications", json=asked).status_code == 200
    first, second = sorted(books(), key=lambda message: "push" in message["content"])
    assert (first["plan"][0]["media"], second["plan"][0]["media"]) == ([picture], picture)


def test_more_than_a_batch_is_one_message_that_is_cancelled_as_one(client: httpx.Client, books: Any) -> None:
    users = [f"u-{n}" for n in range(1_200)]
    body = {**PUSH, "include_aliases": None, "include_external_user_ids": [*users, "u-1"], "idempotency_key": "many"}
    sent = client.post("/notifications", json=body)
    assert sent.json()["recipients"] == 1_200
    first = books()
    assert sorted(len(one["recipients"]) for one in first) == [200, 500, 500]
    assert sorted(one["user"] for message in first for one in message["recipients"]) == sorted(users)
    # Again: the same id, and nothing new.
    assert client.post("/notifications", json=body).json() == sent.json()
    assert len(books()) == 3
    changed = client.post("/notifications", json={**body, "contents": {"en": "Other"}})
    assert (changed.status_code, "Idempotency-Key" in changed.text) == (400, True)
    id_ = sent.json()["id"]
    assert client.get(f"/notifications/{id_}").json()["remaining"] == 1_200
    assert client.delete(f"/notifications/{id_}").json() == {"success": True}
    ids = {one["id"] for message in first for one in message["recipients"]}
    cancelled = [id_ for message in books() if "ids" in message for id_ in message["ids"]]
    assert set(cancelled) == ids
    assert client.delete(f"/notifications/{uuid7()}").status_code == 404


def test_a_default_fallback_follows_what_says_nothing_of_it(gateway: HttpGateway) -> None:
    settings = gateway.services.settings
    changed = {"onesignal_sms_fallback": "not_clicked after 2h", "onesignal_title": "Beans"}
    object.__setattr__(settings, "__dict__", {**settings.__dict__, **changed})
    with gateway.client() as client:
        for body, plan in (
            ({}, [{"channel": "sms", "when": "not_clicked", "after_s": 7200}]),
            ({"sms_fallback": False}, []),
            ({"sms_fallback": True}, [{"channel": "sms", "when": "not_delivered", "after_s": 300}]),
        ):
            gateway.services.redis.flushdb()
            answer = client.post("/onesignal/notifications", json={**PUSH, "headings": None, **body})
            assert answer.status_code == 200, answer.text
            (kept,) = gateway.services.redis.hvals(INBOX_MESSAGES)
            message = json.loads(kept)["message"]
            assert (message["content"]["push"]["title"], message["plan"]) == ("Beans", plan)


def test_a_number_that_opted_out_is_not_brought_back(gateway: HttpGateway, here: Services) -> None:
    with here.engine.begin() as conn:
        people.apply(conn, [DeviceRegistered("ada", "token-ada", datetime.now(UTC))])
        conn.execute(sa.text("INSERT INTO phones (user_id, number) VALUES ('ada', '+16505550100')"))
        conn.execute(sa.text("INSERT INTO opt_outs (number, source) VALUES ('+16505550100', 'STOP')"))
    client = gateway.client()
    user = client.get(f"/onesignal/apps/{APP}/users/by/external_id/ada").json()
    (number,) = (one for one in user["subscriptions"] if one["type"] == "SMS")
    assert (number["enabled"], number["notification_types"]) == (False, -2)
    path = f"/onesignal/apps/{APP}/subscriptions/{number['id']}"
    refused = client.patch(path, json={"subscription": {"enabled": True}})
    assert (refused.status_code, "START" in refused.text) == (400, True)
    assert client.put(f"/onesignal/players/{number['id']}", json={"notification_types": 1}).status_code == 400
    # A key that may only read sees neither the number nor the tokens.
    told = gateway.client(Scope.READ).get(f"/onesignal/apps/{APP}/users/by/external_id/ada").text
    assert "+16505550100" not in told
    assert "token-ada" not in told


def test_whoever_is_erased_loses_all_aliases(here: Services) -> None:
    at = datetime.now(UTC) - timedelta(minutes=1)
    with here.engine.begin() as conn:
        people.apply(conn, [DeviceRegistered("ada", "token-ada", at), DeviceRegistered("ben", "token-ben", at)])
        own = [
            names.of_person("ada"),
            names.of_device("ada", "token-ada"),
            aliases.Alias("onesignal alias crm", "7", "ada"),
        ]
        # Ben's device was Ada's before; the alias of then goes with Ben.
        aliases.put(conn, [*own, names.of_device("ada", "token-ben"), names.of_person("ben")])
    with pytest.raises(erasure.Unsettled):
        here.erasure.erase("ben", datetime.now(UTC))
    with here.engine.connect() as conn:
        assert {one.value for one in aliases.of_user(conn, "ada")} == {one.value for one in own}
        assert aliases.of_user(conn, "ben") == []
        assert profile.find(conn, "ben") is None
    with pytest.raises(erasure.Unsettled):
        here.erasure.erase_all([UserErased("ada", datetime.now(UTC))])
    with here.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT count(*) FROM aliases")).scalar_one() == 0


DAY = datetime(2026, 9, 24, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "Thu Sep 24 2026 14:00:00 GMT-0700 (PDT)",
        "September 24th 2026, 2:00:00 pm UTC-07:00",
        "2026-09-24 14:00:00 GMT-0700",
        "Sept 24 2026 14:00:00 GMT-0700",
        "2026-09-24T14:00:00-07:00",
        "2026-09-24T21:00:00.000Z",
        "2026-09-24 21:00:00 UTC",
        "Thu, 24 Sep 2026 14:00:00 -0700",
    ],
)
def test_times_are_read_as_onesignals_documents_write_them(text: str) -> None:
    assert times.moment(text, "send_after") == DAY


def test_the_next_time_of_day_is_one_that_nobody_has_missed() -> None:
    evening = datetime(2026, 9, 24, 20, tzinfo=UTC)
    # It is ten o'clock on the 25th in Kiritimati by now.
    assert times.next_local(times.clock("9:00AM", ""), evening) == datetime(2026, 9, 26, 9)  # noqa: DTZ001
    assert times.next_local(times.clock("21:45", ""), evening) == datetime(2026, 9, 25, 21, 45)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("false", False),
        ("3", 3),
        ("-7", -7),
        ("2.5", 2.5),
        ("007", "007"),
        ("1e3", "1e3"),
        ("False", "False"),
        ("2.50", "2.50"),
    ],
)
def test_tags_are_compared_as_what_they_look_like_and_shown_as_they_were(given: str, kept: object) -> None:
    assert (tags.stored(given), tags.shown(tags.stored(given))) == (kept, given)


def test_filters_bind_as_onesignals_do() -> None:
    gold = {"field": "tag", "key": "plan", "relation": "=", "value": "gold"}
    lately = {"field": "last_session", "relation": "<", "hours_ago": "1.5"}
    many = {"field": "tag", "key": "cups", "relation": ">", "value": "11"}
    told = filters.read([gold, lately, {"operator": "OR"}, many, {"operator": "AND"}, {**gold, "relation": "!="}])
    in_gold = {"field": "tags.plan", "op": "in", "value": ["gold"]}
    assert told == {
        "or": [
            {"and": [in_gold, {"field": "last_seen", "op": ">", "value": "90 minutes ago"}]},
            {"and": [{"field": "tags.cups", "op": ">", "value": 11}, {"not": in_gold}]},
        ]
    }
