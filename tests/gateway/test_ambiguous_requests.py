"""The gateway refuses ambiguous JSON by name, and every path tells its methods."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import httpx

    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway

PUSH = '"push": {"title": "a", "body": "b"}'
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def client(shared_gateway: HttpGateway) -> httpx.Client:
    """A client whose key has every scope."""
    return shared_gateway.client()


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ('{"user": "u", "user": "v", ' + PUSH + "}", 422, "user: stands twice"),
        ('{"user": "u", "push": {"title": "a", "body": "b", "title": "c"}}', 422, "push.title: stands twice"),
        (
            '{"recipients": [{"user": "u"}, {"user": "u", "user": "v"}], ' + PUSH + "}",
            422,
            "recipients[1].user: stands",
        ),
        ('{"user": "u", "params": {"a": NaN}, ' + PUSH + "}", 400, "NaN"),
        ('{"user": "u", "params": {"a": -Infinity}, ' + PUSH + "}", 400, "-Infinity"),
        ('{"user": "u", "params": {"a": 1e999}, ' + PUSH + "}", 400, "too large"),
        ('{"user": "u", "params": {"a": ' + "9" * 5_000 + "}, " + PUSH + "}", 400, "too many digits"),
        ("\ufeff{}", 400, "byte order mark"),
        ('{"user": "u", ' + PUSH + "} {}", 400, "line 1, column"),
        ("{'user': 'u'}", 400, "line 1, column 2"),
        ("[" * 100 + "]" * 100, 422, "body"),
        ('{"a":' * 40 + "1" + "}" * 40, 422, "32 levels"),
        ("[" * 100_000, 422, "32 levels"),
        ("", 400, "line 1, column 1"),
        ("null", 422, "must be a JSON object"),
    ],
)
def test_a_body_that_can_be_read_in_two_ways_is_refused_by_name(
    client: httpx.Client, body: str, status: int, told: str
) -> None:
    answer = client.post("/v1/notifications", content=body.encode(), headers=JSON)
    assert answer.status_code == status, answer.text
    assert told in answer.json()["detail"]


@pytest.mark.parametrize("body", [b'{"user": "\xff"}', '{"user": "u"}'.encode("utf-16"), b"\xed\xa0\x80"])
def test_a_body_that_is_not_utf_8_is_refused_by_name(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/notifications", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (400, "urn:knocktwice:problem:malformed-json")
    assert "UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_another_content_type_is_415_and_says_which(client: httpx.Client, headers: dict[str, str]) -> None:
    answer = client.post("/v1/notifications", content=b"{}", headers=headers)
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("query", "field"),
    [("user=a&user=b", "user"), ("limit=1&limit=1", "limit"), ("user=%FF", "user"), ("usr=a&usr=b", "usr")],
)
def test_a_parameter_that_is_given_twice_or_is_not_utf_8_is_refused_by_name(
    client: httpx.Client, query: str, field: str
) -> None:
    answer = client.get(f"/v1/messages?{query}")
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_an_idempotency_key_that_is_given_twice_is_refused(client: httpx.Client) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = client.post("/v1/notifications", json={"user": "u", "push": {"title": "a", "body": "b"}}, headers=headers)
    assert (answer.status_code, answer.json()["field"]) == (422, "idempotency-key")


def test_a_path_that_is_not_utf_8_is_refused_by_name(client: httpx.Client) -> None:
    answer = client.put("/v1/users/%FF/phone", json={"phone": "+14155552671"})
    assert (answer.status_code, answer.json()["field"]) == (422, "path")


def test_every_get_has_a_head_and_every_path_tells_its_methods(
    shared_gateway: HttpGateway, client: httpx.Client
) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    gets = [path for path, operations in paths.items() if "get" in operations]
    assert len(gets) > 10
    for path in gets:
        plain = path.replace("{id}", "019a9d3c-5a00-7000-8000-000000000001").replace("{kind}", "clicked")
        plain = plain.replace("{", "").replace("}", "")
        head, got = client.head(plain), client.get(plain)
        assert (head.status_code, head.content) == (got.status_code, b""), path
    for path, operations in paths.items():
        plain = path.replace("{kind}", "clicked").replace("{", "").replace("}", "")
        allowed = client.options(plain)
        assert allowed.status_code == 204
        wanted = {method.upper() for method in operations} | {"OPTIONS"}
        wanted |= {"HEAD"} if "get" in operations else set()
        assert set(allowed.headers["Allow"].split(", ")) == wanted, path
        refused = client.request("PATCH", plain)
        assert (refused.status_code, refused.headers["Allow"]) == (405, allowed.headers["Allow"]), path
    assert client.options("/v1/nothing").status_code == 404
    assert shared_gateway.stranger().head("/healthz").status_code == 200


def test_the_head_of_a_receipts_address_reports_nothing(shared_gateway: HttpGateway) -> None:
    here: Services = shared_gateway.services
    before = json.dumps(sorted(map(str, here.redis.hvals("knocktwice:inbox:messages"))))
    assert shared_gateway.stranger().head("/r/" + "A" * 52 + "/clicked").status_code == 403
    assert json.dumps(sorted(map(str, here.redis.hvals("knocktwice:inbox:messages")))) == before
