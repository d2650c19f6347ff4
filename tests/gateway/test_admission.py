"""The gateway refuses requests that no worker could serve, and no others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support.http_gateway import HttpGateway

PUSH = {"title": "Hello", "body": "World"}
GREETING = {
    "default_locale": "de",
    "contents": {
        "en": {"push": {"title": "Hello {{ name }}", "body": "{{ where | default: 'here' }}"}},
        "de": {"push": {"title": "Hallo", "body": "Welt"}},
    },
}


def _in(**span: float) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"template": "absent"}, ["template"]),
        ({"template": "greeting", "locale": "en"}, ["params"]),
        ({"push": {"title": "Hello", "body": "{{ a "}}, ["push.body"]),
        ({"push": {"title": "{{ a | shout }}", "body": "World"}, "params": {"a": "b"}}, ["push.title"]),
        ({"push": PUSH, "sms": {"text": "{% if %}"}}, ["sms.text"]),
        ({"push": {"title": "{{ a", "body": "{{ b"}}, ["push.body", "push.title"]),
        ({"push": PUSH, "send_at": _in(days=91)}, ["send_at"]),
        ({"push": {"title": {"en": "a", "cn": "b"}, "body": "World"}}, ["push.title.cn"]),
        ({"push": {"title": {"en": "a", "de": "{{ b"}, "body": "World"}}, ["push.title.de"]),
        ({"push": PUSH, "default_locale": "en"}, ["default_locale"]),
        ({"push": PUSH, "send_at": "1999-01-01T00:00:00Z"}, ["send_at"]),
        ({"push": PUSH, "send_at": {"local": "2999-01-01T00:00:00"}}, ["send_at"]),
        ({"push": {"title": "{{ a", "body": "World"}, "send_at": _in(days=400)}, ["push.title", "send_at"]),
    ],
)
def test_what_cannot_work_is_refused_at_once_with_all_its_problems(
    gateway: HttpGateway, body: dict[str, Any], fields: list[str]
) -> None:
    client = gateway.client()
    client.put("/v1/templates/greeting", json=GREETING)
    answer = client.post("/v1/notifications", json={"user": "u", **body})
    assert answer.status_code == 422, answer.text
    assert sorted(error["field"] for error in answer.json()["errors"]) == fields


@pytest.mark.parametrize(
    "body",
    [
        {"template": "greeting", "locale": "en", "params": {"name": "Ada"}},
        # The person's own language, which only a worker knows, may be the one that needs nothing.
        {"template": "greeting"},
        {"template": "greeting", "locale": "de-AT"},
        {"push": PUSH, "send_at": _in(days=80)},
        {"push": {"title": "{% if a %}A{% endif %}", "body": "World"}, "params": {"a": 1}},
    ],
)
def test_what_may_work_is_accepted(gateway: HttpGateway, body: dict[str, Any]) -> None:
    client = gateway.client()
    client.put("/v1/templates/greeting", json=GREETING)
    answer = client.post("/v1/notifications", json={"user": "u", **body})
    assert answer.status_code == 202, answer.text


def test_a_template_made_a_moment_ago_is_known_and_the_hot_path_asks_nothing(gateway: HttpGateway) -> None:
    client = gateway.client()
    wanted = {"user": "u", "template": "new", "params": {"name": "Ada"}}
    assert client.post("/v1/notifications", json=wanted).status_code == 422
    client.put("/v1/templates/new", json=GREETING | {"default_locale": "de"})
    assert client.post("/v1/notifications", json=wanted).status_code == 202
    with gateway.services.engine.begin() as conn:
        conn.exec_driver_sql("ALTER TABLE templates RENAME TO elsewhere")
    assert client.post("/v1/notifications", json=wanted).status_code == 202


@pytest.mark.parametrize("user", ["", 7, "\ud83d", "x" * 201])
def test_a_preview_is_for_a_user_who_can_be_named(gateway: HttpGateway, user: object) -> None:
    client = gateway.client()
    client.put("/v1/templates/greeting", json=GREETING)
    body = json.dumps({"user": user}).encode()
    answer = client.post("/v1/templates/greeting/preview", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == ["user"]
    assert client.post("/v1/templates/greeting/preview", json={"user": "nobody"}).status_code == 200
