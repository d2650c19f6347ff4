"""GoNative's two ways to send a personalised push, each step a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.gateway.auth.keys import Scope
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services

#: What the app gives to gonative_onesignal_info(), and posts.
FORM: dict[str, Any] = {
    "oneSignalUserId": "b2f7f966-d8cc-11e4-bed1-df8f05be55ba",
    "oneSignalPushToken": "phone-of-u-17",
    "oneSignalSubscribed": True,
    "oneSignalRequiresUserPrivacyConsent": False,
    "platform": "android",
    "appId": "io.gonative.example",
    "appVersion": "1.0.0",
    "distribution": "release",
    "hardware": "armv8",
    "installationId": "xxxx-xxxx-xxxx-xxxx",
    "language": "en",
    "model": "Pixel",
    "os": "Android",
    "osVersion": "16",
    "timeZone": "America/New_York",
}
PUSH = {"title": "Delivered", "body": "Your parcel is here."}


@pytest.fixture
def gateway(working: Services) -> Iterator[HttpGateway]:
    with HttpGateway(working) as running:
        yield running


def _work(here: Services) -> None:
    """Carry out what was accepted, people first."""
    accepted = [json.loads(raw) for raw in here.redis.hvals(INBOX_MESSAGES)]
    for task in (Task.UPDATE_AUDIENCE, Task.SEND_PUSH):
        messages = [one["message"] for one in accepted if one["task"] == task]
        # One after the other, as they were said.
        for message in sorted(messages, key=lambda one: str(one.get("changes"))):
            here.accepted[task]([message])
    here.redis.delete(INBOX_MESSAGES)


def _devices(here: Services) -> list[tuple[Any, ...]]:
    query = "SELECT registration, user_id, platform, notifications_enabled, locale, time_zone, app_version FROM devices"
    with here.engine.connect() as conn:
        return [tuple(row) for row in conn.exec_driver_sql(query)]


def test_the_backend_keeps_the_devices_itself(gateway: HttpGateway, working: Services, sandbox: Sandbox) -> None:
    backend = gateway.client(Scope.NOTIFY)
    kept: dict[str, list[str]] = {"u-17": [], "u-18": []}
    # 1: the page posts what the app told it to the application, once for each account that is logged in there.
    for user in kept:
        kept[user].append(FORM["oneSignalPushToken"])
    # 2: the application pushes to the devices that it has of a user.
    for user in kept:
        sent = backend.post("/v1/notifications", json={"registrations": kept[user], "push": PUSH})
        assert sent.status_code == 202
    _work(working)
    assert [push.title for push in sandbox.pushes("phone-of-u-17")] == ["Delivered", "Delivered"]
    # 3: a device that was not used for long is removed, and gets nothing more.
    kept["u-18"].remove("phone-of-u-17")
    backend.post("/v1/notifications", json={"registrations": kept["u-18"], "push": PUSH})
    _work(working)
    assert len(sandbox.pushes("phone-of-u-17")) == 2
    # Nobody was made known by that.
    assert _devices(working) == []


@pytest.mark.parametrize("way", ["header", "cookie", "custom data"])
def test_users_and_devices_are_kept_here(gateway: HttpGateway, working: Services, sandbox: Sandbox, way: str) -> None:
    backend, app = gateway.client(Scope.NOTIFY, Scope.AUDIENCE), gateway.stranger()
    # 1: at login the backend makes a token for the page.
    token = backend.post("/v1/users/u-17/tokens", json={"scopes": ["devices"]}).json()["token"]
    headers, form = {}, dict(FORM)
    if way == "header":
        headers = {"Authorization": f"Bearer {token}"}
    elif way == "cookie":
        headers = {"Cookie": f"session=1; knocktwice_token={token}"}
    else:
        form["customData_knocktwice_token"] = token
    # 2: the app posts its form.
    taken = app.post("/gonative/registration", json=form, headers=headers)
    assert (taken.status_code, taken.json()) == (202, {"status": "accepted", "registered": True, "not_used": []})
    _work(working)
    assert _devices(working) == [("phone-of-u-17", "u-17", "android", True, "en", "America/New_York", "1.0.0")]
    # 3: the backend pushes to the user.
    assert backend.post("/v1/notifications", json={"user": "u-17", "push": PUSH}).status_code == 202
    _work(working)
    assert len(sandbox.pushes("phone-of-u-17")) == 1
    # 4: at logout the device is not theirs any more.
    gone = app.delete("/v1/me/devices/phone-of-u-17", headers={"Authorization": f"Bearer {token}"})
    assert gone.status_code == 202
    _work(working)
    assert backend.post("/v1/notifications", json={"user": "u-17", "push": PUSH}).status_code == 202
    _work(working)
    assert len(sandbox.pushes("phone-of-u-17")) == 1


def test_a_token_of_apns_is_named_and_only_the_permission_is_kept(gateway: HttpGateway) -> None:
    token = gateway.client().post("/v1/users/u-17/tokens").json()["token"]
    form = {**FORM, "platform": "ios", "oneSignalPushToken": "ab" * 32, "oneSignalSubscribed": False}
    headers = {"Authorization": f"Bearer {token}"}
    told = gateway.stranger().post("/gonative/registration", json=form, headers=headers).json()
    assert (told["registered"], [one["field"] for one in told["not_used"]]) == (False, ["oneSignalPushToken"])
    zone = {**FORM, "timeZone": "Mars/Olympus"}
    told = gateway.stranger().post("/gonative/registration", json=zone, headers=headers).json()
    assert (told["registered"], [one["field"] for one in told["not_used"]]) == (True, ["timeZone"])
    early = {"platform": "ios", "installationId": "x"}
    told = gateway.stranger().post("/gonative/registration", json=early, headers=headers).json()
    assert told["registered"] is False


def test_a_page_elsewhere_cannot_use_a_visitors_cookie(gateway: HttpGateway) -> None:
    token = gateway.client().post("/v1/users/u-17/tokens").json()["token"]
    cookie = {"Cookie": f"knocktwice_token={token}", "Origin": "https://evil.example"}
    stranger = gateway.stranger()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        sent = stranger.post("/gonative/registration", content="{}", headers={**cookie, "Content-Type": kind})
        assert sent.status_code == 415
    preflight = {**cookie, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    asked = stranger.options("/gonative/registration", headers=preflight)
    assert not [name for name in asked.headers if name.startswith("access-control")]
