"""People, templates and segments over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.messages import parse_audience
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.audience import people
from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway

TEMPLATE: dict[str, Any] = {
    "default_locale": "en",
    "fallback": {"when": "not_clicked", "after": "10m"},
    "contents": {"en": {"push": {"title": "Ready", "body": "{{ courier }} arrives."}}},
}
FILTER = {"field": "tags.plan", "op": "=", "value": "gold"}


def _settle(here: Services) -> None:
    """Do what a worker does with the accepted changes."""
    with here.engine.begin() as conn:
        for raw in here.redis.hvals(INBOX_MESSAGES):
            people.apply(conn, parse_audience(json.loads(raw)["message"]))
    here.redis.flushdb()


def test_a_person_is_described_and_found_by_a_segment(gateway: HttpGateway, here: Services) -> None:
    client = gateway.client(Scope.AUDIENCE, Scope.READ, Scope.TEMPLATES)
    answers = [
        client.put("/v1/users/u-17/devices/token:1", json={"platform": "android"}),
        client.put("/v1/users/u-17/phone", json={"phone": "+1 650 555 0100"}),
        client.put("/v1/users/u-17/tags", json={"tags": {"plan": "gold", "old": 1}}),
        client.put("/v1/users/u-17/consent", json={"granted": True, "source": "checkout"}),
        client.delete("/v1/users/u-17/tags/old"),
        client.post(
            "/v1/audience", json={"changes": [{"change": "set_tags", "user": "a/b", "tags": {"plan": "gold"}}]}
        ),
    ]
    assert [answer.status_code for answer in answers] == [202] * 6
    _settle(here)
    assert client.put("/v1/segments/gold", json={"filter": FILTER}).json() == {"name": "gold", "change": "created"}
    assert client.get("/v1/segments/gold").json()["filter"] == FILTER
    shown = client.get("/v1/segments/gold/preview", params={"sample": 5}).json()
    assert (shown["count"], sorted(shown["sample"])) == (2, ["a/b", "u-17"])
    both = {"and": [FILTER, {"field": "has_phone", "op": "=", "value": True}]}
    assert client.post("/v1/audience/preview", json={"filter": both, "sample": 1}).json() == {
        "count": 1,
        "sample": ["u-17"],
    }
    client.delete("/v1/users/u-17/devices/token:1")
    client.delete("/v1/users/u-17/phone")
    client.delete("/v1/users/u-17/consent", params={"source": "app"})
    _settle(here)
    assert client.post("/v1/audience/preview", json={"filter": both}).json()["count"] == 0
    assert client.delete("/v1/segments/gold").status_code == 204
    assert client.delete("/v1/segments/gold").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/users/u/devices/tok", {"platform": "windows"}, "platform"),
        ("/v1/users/u/devices/tok", {"user": "v"}, "user"),
        ("/v1/users/u/phone", {"phone": "0650"}, "phone"),
        ("/v1/users/u/phone", {}, "phone"),
        ("/v1/users/u/tags", {"tags": {"a": {}}}, "tags.a"),
        ("/v1/users/u/consent", {"granted": "yes", "source": "s"}, "granted"),
        ("/v1/users/u/consent", {"granted": True}, "source"),
        ("/v1/users/%20/phone", {"phone": "+16505550100"}, "user"),
        ("/v1/segments/s", {"filter": {}}, "filter"),
        ("/v1/segments/s", {"filter": {"and": [{"field": "tags.a", "op": "like"}]}}, "filter.and[0].op"),
        ("/v1/templates/t", {"contents": {}}, "default_locale"),
        ("/v1/templates/t", {**TEMPLATE, "colour": "red"}, "colour"),
    ],
)
def test_an_error_names_the_field(gateway: HttpGateway, path: str, body: dict[str, Any], field: str) -> None:
    answer = gateway.client().put(path, json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_a_zone_is_understood_as_phones_write_it_or_refused_by_name(gateway: HttpGateway) -> None:
    client = gateway.client(Scope.AUDIENCE)
    for zone in ("GMT+03:00", "Asia/Calcutta", "Pacific Standard Time"):
        assert client.put("/v1/users/u-17/devices/tok", json={"time_zone": zone}).status_code == 202
    refused = client.put("/v1/users/u-17/tags", json={"tags": {}, "time_zone": "Mars/Olympus"})
    assert refused.status_code == 422
    assert (refused.json()["field"], refused.json()["detail"]) == (
        "time_zone",
        "time_zone: 'Mars/Olympus' is not a time zone such as Europe/Vienna or GMT+03:00",
    )


def test_a_template_is_saved_shown_filled_in_and_deleted(gateway: HttpGateway) -> None:
    client = gateway.client(Scope.TEMPLATES, Scope.READ)
    changes = [client.put("/v1/templates/ready", json=TEMPLATE).json()["change"] for _ in range(2)]
    assert changes == ["created", "unchanged"]
    shown = client.get("/v1/templates/ready").json()
    assert (shown["version"], shown["parameters"]) == (1, ["courier"])
    assert client.get("/v1/templates").json()["templates"][0]["name"] == "ready"
    filled = client.post("/v1/templates/ready/preview", json={"params": {"courier": "Ana"}})
    assert (filled.json()["push"]["body"], filled.json()["sms_parts"]) == ("Ana arrives.", 1)
    assert client.post("/v1/templates/ready/preview", json={}).status_code == 422
    assert client.delete("/v1/templates/ready").status_code == 204
    for answer in (client.get("/v1/templates/ready"), client.delete("/v1/templates/ready")):
        assert (answer.status_code, answer.json()["field"]) == (404, "name")
