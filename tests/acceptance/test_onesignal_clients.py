"""OneSignal's own clients, unmodified, in front of a gateway and a worker; the sandbox's books tell what came of it."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.system import System

if "CI" not in os.environ:
    pytest.importorskip("onesignal", reason="needs: make install")
    pytest.importorskip("onesignal_sdk", reason="needs: make install")

import onesignal
from onesignal import models
from onesignal.api.default_api import DefaultApi
from onesignal_sdk.client import Client as OlderClient
from onesignal_sdk.error import OneSignalHTTPError

APP = "8250eaf6-1a58-489e-b136-7c74a864b434"
#: Apps that report nothing: the sandbox's phones show a push and are never touched.
SILENT = "silent-"


@pytest.fixture(scope="module")
def key(installation: System) -> str:
    with installation.engine.begin() as conn:
        return keys.create(conn, "onesignal", [Scope.ADMIN], secret="test")


@pytest.fixture(scope="module")
def address(installation: System, request: pytest.FixtureRequest) -> str:
    installation.settings["KNOCKTWICE_ONESIGNAL_TITLE"] = "Beans"
    return f"{request.getfixturevalue('gateway')}/onesignal"


@pytest.fixture(scope="module")
def client(address: str, key: str) -> Iterator[DefaultApi]:
    configuration = onesignal.Configuration(host=address, rest_api_key=key)
    with onesignal.ApiClient(configuration) as api:
        yield DefaultApi(api)


@pytest.fixture(scope="module")
def older(address: str, key: str) -> OlderClient:
    return OlderClient(app_id=APP, rest_api_key=key, options={"API_ROOT": f"{address}/api/v1"})


def _user(external: str, *subscriptions: dict[str, Any], **properties: Any) -> models.User:
    return models.User(
        identity=models.IdentityObject(external_id=external),
        properties=models.PropertiesObject(**properties),
        subscriptions=[models.Subscription(**one) for one in subscriptions],
    )


def _known(system: System, user: str, *, phone: bool = True) -> None:
    said = "SELECT count(*) FROM users u LEFT JOIN phones p ON p.user_id = u.id WHERE u.id = :user"
    said += " AND p.number IS NOT NULL" if phone else ""
    eventually(lambda: system.count(said, user=user) == 1, why=system.logs)


def _texts(system: System, number: str) -> list[str]:
    return [text.body for text in system.sandbox.texts(number)]


def test_a_push_to_a_user_is_followed_by_our_sms(installation: System, client: DefaultApi) -> None:
    number, token = "+16505550120", f"{SILENT}ana"
    made = client.create_user(
        APP,
        _user(
            "ana",
            {"type": "AndroidPush", "token": token},
            {"type": "SMS", "token": number},
            tags={"plan": "gold", "cups": "3"},
            language="de",
        ),
    )
    assert made.identity["external_id"] == "ana"
    message = models.Notification(
        app_id=APP,
        include_aliases=models.IncludeAliases(external_id=["ana"]),
        target_channel="push",
        headings={"en": "Ready"},
        contents={"en": "Your coffee is ready"},
        data={"order": 4711},
        sms_fallback={
            "when": "not_clicked",
            "after": "1s",
            "text": {"en": "Your coffee waits", "de": "Ihr Kaffee wartet"},
        },
    )
    sent = client.create_notification(message)
    assert (sent.id != "", "errors" in sent) == (True, False)
    # She reads German: the SMS has some, the push is in English then.
    eventually(lambda: _texts(installation, number) == ["Ihr Kaffee wartet"], why=installation.logs)
    (push,) = installation.sandbox.pushes(token)
    assert (push.title, push.body) == ("Ready", "Your coffee is ready")
    told = client.get_notification(APP, sent.id)
    assert (told.successful, told.remaining, told.contents) == (2, 0, {"de": "Your coffee is ready"})
    shown = client.get_user(APP, "external_id", "ana")
    assert shown.properties.tags == {"plan": "gold", "cups": "3"}
    assert {one.type: one.token for one in shown.subscriptions} == {"AndroidPush": token, "SMS": number}
    assert {one.id for one in shown.subscriptions} == {one.id for one in made.subscriptions}
    subscription = next(one.id for one in shown.subscriptions if one.type == "AndroidPush")
    again = models.Notification(app_id=APP, include_subscription_ids=[subscription], contents={"en": "Twice"})
    assert client.create_notification(again).id
    eventually(lambda: len(installation.sandbox.pushes(token)) == 2, why=installation.logs)
    assert installation.sandbox.pushes(token)[1].title == "Beans"


@pytest.fixture
def web(address: str, key: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers={"Authorization": f"Key {key}"}, timeout=30) as client:
        yield client


def test_five_steps_from_a_refused_permission_to_a_text(installation: System, web: httpx.Client) -> None:
    """The walk-through of OneSignal's page on SMS as a fallback, each step a request."""
    bea, cem, lin = "+16505550121", "+16505550122", "+16505550127"
    # 1. The page finds that notifications are off; the number is known from the login.
    for user, number, language in (("bea", bea, "en"), ("cem", cem, "en"), ("lin", lin, "cn")):
        subscriptions = [{"type": "SMS", "token": number}]
        said = {"identity": {"external_id": user}, "properties": {"language": language}, "subscriptions": subscriptions}
        made = web.post(f"/apps/{APP}/users", json=said)
        assert made.status_code == 201, made.text
    # 2. It tags the user.
    for user, granted in (("bea", "false"), ("cem", "true"), ("lin", "false")):
        tagged = {"properties": {"tags": {"subscribed_to_push": granted}}}
        assert web.patch(f"/apps/{APP}/users/by/external_id/{user}", json=tagged).status_code == 202
    # 3. and 4. The application's route texts one number.
    text = {"en": "English message", "cn": "Chinese message"}
    order = {"app_id": APP, "include_phone_numbers": [bea], "name": "Identifier for SMS", "contents": text}
    sent = web.post("/notifications", json={**order, "sms_from": "+15005550006"})
    assert (sent.status_code, sent.json()["recipients"]) == (200, 1), sent.text
    eventually(lambda: _texts(installation, bea) == ["English message"], why=installation.logs)
    assert installation.sandbox.texts(bea)[0].sender == "+15005550006"
    # 5. A segment of those who opted out of push and have a number, and a text to it.
    filters = [
        {"field": "tag", "key": "subscribed_to_push", "relation": "=", "value": "false"},
        {"operator": "AND"},
        {"field": "device_type", "relation": "=", "value": "SMS"},
    ]
    segment = {"name": "Opted-out of push notifications", "filters": filters}
    assert web.post(f"/apps/{APP}/segments", json=segment).json()["success"] is True
    tags = "SELECT count(*) FROM users WHERE id IN ('bea', 'lin') AND tags @> '{\"subscribed_to_push\": false}'"
    eventually(lambda: installation.count(tags) == 2, why=installation.logs)
    to_all = {"app_id": APP, "included_segments": [segment["name"]], "target_channel": "sms"}
    blast = web.post("/notifications", json={**to_all, "contents": {"en": "Happy hour", "cn": "欢乐时光"}})
    assert blast.status_code == 200, blast.text
    eventually(lambda: _texts(installation, bea) == ["English message", "Happy hour"], why=installation.logs)
    told = eventually(
        lambda: found if (found := web.get(f"/notifications/{blast.json()['id']}").json())["successful"] == 2 else None
    )
    assert (told["contents"], told["remaining"]) == ({"en": "Happy hour", "zh-Hans": "欢乐时光"}, 0)
    assert _texts(installation, lin) == ["欢乐时光"]
    assert _texts(installation, cem) == []


def test_numbers_filters_and_repeats(installation: System, client: DefaultApi) -> None:
    dan, eve = "+16505550123", "+16505550124"
    message = models.Notification(
        app_id=APP,
        include_phone_numbers=[dan, "12", eve, "+1 650 555 0123"],
        name="two",
        contents={"en": "Closed today"},
        idempotency_key=str(uuid4()),
    )
    sent = client.create_notification(message)
    assert (sent["recipients"], sent.errors) == (2, {"invalid_phone_numbers": ["12"]})
    assert client.create_notification(message).id == sent.id
    eventually(lambda: (_texts(installation, dan), _texts(installation, eve)) == (["Closed today"],) * 2)
    nobody = models.Notification(app_id=APP, include_phone_numbers=["12"], name="none", contents={"en": "x"})
    assert client.create_notification(nobody).id == ""
    client.create_user(APP, _user("fay", {"type": "SMS", "token": "+16505550125"}, tags={"cups": "12"}))
    _known(installation, "fay")
    tagged = "SELECT count(*) FROM users WHERE id = 'fay' AND tags @> '{\"cups\": 12}'"
    eventually(lambda: installation.count(tagged) == 1, why=installation.logs)
    more = models.Filter(field="tag", key="cups", relation=">", value="11")
    blast = models.Notification(
        app_id=APP, filters=[more], target_channel="sms", contents={"en": "Your card is full"}, name="full"
    )
    assert client.create_notification(blast).id
    eventually(lambda: _texts(installation, "+16505550125") == ["Your card is full"], why=installation.logs)


def test_what_waits_is_seen_and_cancelled(installation: System, client: DefaultApi, older: OlderClient) -> None:
    number = "+16505550126"
    later = datetime.now(UTC) + timedelta(hours=2)
    message = models.Notification(
        app_id=APP, include_phone_numbers=[number], name="later", contents={"en": "Later"}, send_after=later
    )
    id_ = client.create_notification(message).id
    # Whether or not a worker has written it by now.
    assert client.get_notification(APP, id_).remaining == 1
    assert client.cancel_notification(APP, id_).success is True
    eventually(lambda: client.get_notification(APP, id_).canceled, why=installation.logs)
    assert id_ in [one.id for one in client.get_notifications(APP).notifications]
    with pytest.raises(OneSignalHTTPError) as caught:
        older.cancel_notification(id_)
    assert caught.value.status_code == 400
    assert _texts(installation, number) == []


def test_errors_are_the_clients_own(address: str, client: DefaultApi, older: OlderClient) -> None:
    with pytest.raises(onesignal.ApiException) as caught:
        client.create_notification(
            models.Notification(app_id=APP, include_aliases=models.IncludeAliases(external_id=["x"]), buttons=[])
        )
    assert caught.value.status == 400
    assert caught.value.error_messages == [
        "buttons: buttons are not shown here; put the address into url",
        "contents: is missing; a message without words is not sent here",
    ]
    with pytest.raises(onesignal.ApiException) as caught:
        client.create_user(APP, _user("gus", {"type": "Email", "token": "gus@example.com"}))
    assert (caught.value.status, "subscriptions[0].type" in caught.value.error_messages[0]) == (400, True)
    with pytest.raises(onesignal.ApiException) as caught:
        client.get_notification(APP, str(uuid4()))
    assert caught.value.status == 404
    with pytest.raises(onesignal.ApiException) as caught:
        client.get_user(APP, "crm", "7")
    assert caught.value.status == 404
    stranger = OlderClient(app_id=APP, rest_api_key="wrong", options={"API_ROOT": f"{address}/api/v1"})
    with pytest.raises(OneSignalHTTPError) as refused:
        stranger.view_notifications()
    assert refused.value.status_code == 401
    with pytest.raises(OneSignalHTTPError) as refused:
        older.send_notification({"include_player_ids": ["x"], "contents": {"de": "Hallo"}})
    assert refused.value.status_code == 400
    assert "en" in refused.value.message


def test_players_tags_and_logins(installation: System, older: OlderClient, client: DefaultApi) -> None:
    token = f"{SILENT}hal"
    made = older.add_device({"device_type": 1, "identifier": token, "language": "cn", "tags": {"shop": "7"}}).body
    assert made["success"] is True
    # Known at once, though the device itself is on its way through the queue.
    sent = older.send_notification({"include_player_ids": [made["id"]], "contents": {"en": "Hello"}})
    assert sent.body["id"]
    eventually(lambda: [push.body for push in installation.sandbox.pushes(token)] == ["Hello"], why=installation.logs)
    anonymous = "SELECT count(*) FROM devices WHERE registration = :token AND user_id LIKE 'onesignal:%'"
    eventually(lambda: installation.count(anonymous, token=token) == 1, why=installation.logs)
    older.edit_device(made["id"], {"external_user_id": "hal", "notification_types": -2})
    older.edit_tags("hal", {"tags": {"shop": "", "vip": "true"}})
    owned = "SELECT count(*) FROM devices WHERE registration = :token AND user_id = 'hal' AND NOT notifications_enabled"
    eventually(lambda: installation.count(owned, token=token) == 1, why=installation.logs)
    tagged = "SELECT count(*) FROM users WHERE id = 'hal' AND tags = '{\"vip\": true}'"
    eventually(lambda: installation.count(tagged) == 1, why=installation.logs)
    seen = older.view_device(made["id"]).body
    assert (seen["identifier"], seen["external_user_id"], seen["tags"]) == (token, "hal", {"vip": "true"})
    assert (seen["language"], seen["notification_types"]) == ("zh-Hans", -2)
    assert made["id"] in [one["id"] for one in older.view_devices({"limit": 300}).body["players"]]
    client.delete_subscription(APP, made["id"])
    gone = "SELECT count(*) FROM devices WHERE registration = :token AND user_id IS NULL"
    eventually(lambda: installation.count(gone, token=token) == 1, why=installation.logs)


def test_names_transfers_and_erasure(installation: System, client: DefaultApi) -> None:
    token = f"{SILENT}ida"
    client.create_user(APP, _user("ida", {"type": "iOSPush", "token": token}))
    client.create_user(APP, _user("jon", language="en"))
    _known(installation, "jon", phone=False)
    client.create_alias(APP, "external_id", "ida", models.UserIdentityBody(identity=models.IdentityObject(crm="c-1")))
    assert client.get_aliases(APP, "crm", "c-1").identity["external_id"] == "ida"
    with pytest.raises(onesignal.ApiException) as caught:
        client.create_alias(
            APP, "external_id", "jon", models.UserIdentityBody(identity=models.IdentityObject(crm="c-1"))
        )
    assert caught.value.status == 409
    owned = "SELECT count(*) FROM devices WHERE registration = :token AND user_id = :user"
    eventually(lambda: installation.count(owned, token=token, user="ida") == 1, why=installation.logs)
    (subscription,) = client.get_user(APP, "crm", "c-1").subscriptions
    moved = models.TransferSubscriptionRequestBody(identity={"external_id": "jon"})
    client.transfer_subscription(APP, subscription.id, moved)
    eventually(lambda: installation.count(owned, token=token, user="jon") == 1, why=installation.logs)
    by_alias = models.Notification(
        app_id=APP, include_aliases={"crm": ["c-1", "c-2"]}, target_channel="push", contents={"en": "Hi"}
    )
    assert client.create_notification(by_alias).errors == {"invalid_aliases": {"crm": ["c-2"]}}
    assert "crm" not in client.delete_alias(APP, "external_id", "ida", "crm").identity
    client.delete_user(APP, "external_id", "ida")
    erased = "SELECT count(*) FROM aliases WHERE user_id = 'ida'"
    eventually(lambda: installation.count(erased) == 0, why=installation.logs)


def test_segments_are_saved_listed_changed_and_deleted(client: DefaultApi, older: OlderClient) -> None:
    plan = models.Filter(field="tag", key="plan", relation="=", value="gold")
    made = client.create_segment(APP, segment=models.Segment(name="Gold & more", filters=[plan]))
    assert (made.success, made.id) == (True, "Gold & more")
    with pytest.raises(onesignal.ApiException) as caught:
        client.create_segment(APP, segment=models.Segment(name="Gold & more", filters=[plan]))
    assert caught.value.status == 409
    assert "Gold & more" in [one.name for one in client.get_segments(APP).segments]
    assert client.get_segment(APP, made.id).payload.name == "Gold & more"
    lately = models.Filter(field="last_session", relation="<", hours_ago="36")
    assert client.update_segment(
        APP, made.id, update_segment_request=models.UpdateSegmentRequest(made.id, filters=[plan, lately])
    ).success
    assert older.delete_segment(made.id).body == {"success": True}
    with pytest.raises(onesignal.ApiException) as caught:
        client.create_segment(APP, segment=models.Segment(name="Old", filters=[models.Filter(field="location")]))
    assert "filters[0].field: must be one of tag" in caught.value.error_messages[0]
