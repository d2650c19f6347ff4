"""Ids and tokens through the doors: any character in an id, and no nonsense for a token."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from knocktwice import Client
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import parse_audience
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.audience import people

if TYPE_CHECKING:
    from knocktwice_worker.config import Settings
    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway

IDS = [
    "a/b",
    "/",
    "50%",
    "%2F",
    "a%2Fb/c",
    "who?",
    "#1",
    "..",
    ".",
    "ünï 💬",
    " a b ",
    "a+b",
    "a\nb",
    "a&b=c",
    "-x",
    "a:b;c",
]
NONSENSE = [
    "undefined", "UNDEFINED", "null", "(null)", "<null>", "nil", "None", "NaN", "Infinity", "true", "[object Object]",
    "[object Promise]", "{}", '{"token":"abc"}', "[]", '"abc"', "<token>", "YOUR_TOKEN", " ", "a", "two words", "tab\there",
    "line\nbreak", "https://fcm.googleapis.com/fcm/send/abc", "a\u200bb", "SERVICE_NOT_AVAILABLE", "FIS_AUTH_ERROR",
    "ExponentPushToken[abcdefghijklmnopqrstuv]", 'Optional("abc:APA91b")', "undefined:APA91b", "${token}", "a-{{token}}", "%@",
    "00000000-0000-0000-0000-000000000000", "string", "null,null",
]  # fmt: skip


def _settle(here: Services) -> None:
    """Do what a worker does with the accepted changes, in the order of their times."""
    found = [c for raw in here.redis.hvals(INBOX_MESSAGES) for c in parse_audience(json.loads(raw)["message"])]
    with here.engine.begin() as conn:
        for change in sorted(found, key=lambda c: c.at):
            people.apply(conn, [change])
    here.redis.flushdb()


def _owners(here: Services) -> dict[str, Any]:
    with here.engine.connect() as conn:
        return dict(conn.exec_driver_sql("SELECT registration, user_id FROM devices").all())


@pytest.mark.parametrize("user", IDS)
def test_an_id_with_any_character_is_the_same_person_by_path_body_and_library(
    gateway: HttpGateway, here: Services, settings: Settings, user: str
) -> None:
    client = gateway.client()
    # Clients take dots for steps in the tree; for such ids there is the body.
    path = f"/v1/users/{quote(user, safe='')}" if user.strip(".") else None
    if path:
        assert client.put(f"{path}/devices/by-path", json={}).status_code == 202
    change = {"change": "register_device", "user": user, "registration": "by-body"}
    assert client.post("/v1/audience", json={"changes": [change]}).status_code == 202
    with Client(settings.broker_url) as library:
        library.register_device(user, "by-library")
    _settle(here)
    assert set(_owners(here).values()) == {user}
    if path:
        assert client.delete(f"{path}/devices/by-body").status_code == 202
        _settle(here)
        assert _owners(here) == {"by-path": user, "by-body": None, "by-library": user}


def test_a_logout_of_the_former_owner_leaves_the_device_to_the_new_one(gateway: HttpGateway, here: Services) -> None:
    client = gateway.client()
    client.put("/v1/users/mum/devices/tablet", json={})
    client.put("/v1/users/kid/devices/tablet", json={})
    client.delete("/v1/users/mum/devices/tablet")
    _settle(here)
    assert _owners(here) == {"tablet": "kid"}


@pytest.mark.parametrize("token", NONSENSE)
def test_what_apps_without_a_token_send_is_refused_at_every_door(
    gateway: HttpGateway, settings: Settings, token: str
) -> None:
    client, said = gateway.client(), {"title": "Hello", "body": "World"}
    answers = [
        (client.put(f"/v1/users/u/devices/{quote(token, safe='')}", json={}), "registration"),
        (client.post("/v1/notifications", json={"registrations": [token], "push": said}), "registrations[0]"),
        (
            client.post("/v1/notifications", json={"user": "u", "registrations": [token], "push": said}),
            "registrations[0]",
        ),
        (
            client.post(
                "/v1/audience", json={"changes": [{"change": "register_device", "user": "u", "registration": token}]}
            ),
            "changes[0].registration",
        ),
    ]
    for answer, field in answers:
        assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text
    with Client(settings.broker_url) as library, pytest.raises(InvalidMessage, match=r"^registration: "):
        library.register_device("u", token)


@pytest.mark.parametrize("token", ["cVfZ3QJ8T0m:APA91bH-x_Y", "c" * 22, "t1", "nullable", "undefined-1", "none:token"])
def test_a_token_is_taken(gateway: HttpGateway, token: str) -> None:
    assert gateway.client().put(f"/v1/users/u/devices/{quote(token, safe='')}", json={}).status_code == 202
