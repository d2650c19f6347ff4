"""Bodies stay within their bounds, and a broker that is away leaves nothing half done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 1_048_576
PUSH = {"title": "Hello", "body": "There"}


def _parts(total: int) -> Iterator[bytes]:
    for _ in range(total // 65_536 + 1):
        yield b" " * 65_536


def test_a_body_above_the_limit_is_refused_before_it_is_read(gateway: HttpGateway) -> None:
    client = gateway.client()
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/notifications", content=b" " * (LIMIT + 1), headers=headers)
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert answer.json()["type"].endswith("too-large")


def test_a_body_that_does_not_say_its_size_is_counted(gateway: HttpGateway) -> None:
    client = gateway.client()
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/notifications", content=_parts(2 * LIMIT), headers=headers)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"[" * 500_000, 422),
        (b'{"reference":' * 50_000 + b"1" + b"}" * 50_000, 422),
        (b'{"user": "u", "reference": ' + b'{"a":' * 40 + b"1" + b"}" * 41, 422),
        (b'{"user": NaN}', 400),
        (b'{"user": ' + b"9" * 5_000 + b"}", 400),
        (b'{"user": "\xff"}', 400),
        (b"", 400),
        (b"[]", 422),
        (b"null", 422),
    ],
    ids=["lists", "objects", "deep", "NaN", "long number", "not UTF-8", "empty", "a list", "null"],
)
def test_what_is_no_sensible_json_is_refused(gateway: HttpGateway, content: bytes, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    answer = gateway.client().post("/v1/notifications", content=content, headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_another_content_type_is_refused(gateway: HttpGateway) -> None:
    body = json.dumps({"user": "u", "push": PUSH})
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = gateway.client().post("/v1/notifications", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 415
    fine = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert gateway.client().post("/v1/notifications", content=body, headers=fine).status_code == 202


def test_without_a_broker_nothing_is_accepted(here: Services) -> None:
    away = Services(here.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    with HttpGateway(away) as gateway:
        client = gateway.client()
        answer = client.post("/v1/notifications", json={"user": "u", "push": PUSH}, headers={"Idempotency-Key": "1"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert "Idempotency-Key" in answer.json()["detail"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
    away.close()


def test_requests_under_way_are_ended_before_the_gateway_stops(here: Services) -> None:
    with HttpGateway(here) as gateway:
        client = gateway.client()
        ids = [client.post("/v1/notifications", json={"user": "u", "push": PUSH}) for _ in range(3)]
    assert [answer.status_code for answer in ids] == [202, 202, 202]
    assert here.redis.hlen("knocktwice:inbox:messages") == 3
