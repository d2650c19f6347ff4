"""Strangers have a pace of their own: too many requests without a key from one address are refused,
and nobody else notices.
"""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from twilio.request_validator import RequestValidator

from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.config import Settings
from knocktwice_worker.gateway.http import address_pace
from knocktwice_worker.gateway.http.address_pace import BURST_S
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

#: Few enough that they do not come back while a test runs.
PER_S = 0.8
BURST = int(PER_S * BURST_S) + 1
PUBLIC = "https://push.example.com"
TOKEN = "twilio-auth-token"


@pytest.fixture
def strict(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Services]:
    """Services of an installation with little patience, behind a proxy on this machine."""
    settings = Settings(
        database_url=database_url,
        broker_url=valkey_url,
        secret="test",
        home=tmp_path,
        public_url=PUBLIC,
        twilio_auth_token=TOKEN,
        gateway_address_per_s=PER_S,
        gateway_proxies=["127.0.0.1"],
    )
    built = Services(settings)
    yield built
    built.close()


@pytest.fixture
def gateway(strict: Services) -> Iterator[HttpGateway]:
    with HttpGateway(strict) as running:
        yield running


def _from(address: str) -> dict[str, str]:
    """What the proxy says of a client's request."""
    return {"X-Forwarded-For": address}


def _exhaust(gateway: HttpGateway, address: str) -> httpx.Client:
    stranger = gateway.stranger()
    for _ in range(BURST):
        assert stranger.post("/r/x/delivered", headers=_from(address)).status_code == 403
    return stranger


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/r/x/delivered"),
        ("GET", "/r/x/clicked"),
        ("GET", "/r/x/nonsense"),
        ("POST", "/v1/receipts"),
        ("GET", "/l/abcdefghijkl"),
        ("GET", "/l/x"),
        ("POST", "/callbacks/twilio"),
        ("POST", "/callbacks/twilio/inbound"),
        ("POST", "/callbacks/sms/acme"),
    ],
)
def test_whoever_asks_too_often_without_a_key_is_told_to_wait(gateway: HttpGateway, method: str, path: str) -> None:
    stranger = _exhaust(gateway, "203.0.113.1")
    answer = stranger.request(method, path, headers=_from("203.0.113.1"))
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert int(answer.headers["Retry-After"]) >= 1
    told = answer.json()
    assert (told["type"], told["status"]) == ("urn:knocktwice:problem:too-many-requests", 429)
    assert "one address" in told["detail"]
    # Somebody else behind the same proxy.
    assert stranger.request(method, path, headers=_from("203.0.113.2")).status_code != 429


def test_probes_and_whoever_has_a_key_are_not_counted(gateway: HttpGateway) -> None:
    stranger, headers = _exhaust(gateway, "203.0.113.1"), _from("203.0.113.1")
    client = gateway.client()
    for _ in range(2 * BURST):
        assert stranger.get("/healthz", headers=headers).status_code == 200
        assert stranger.get("/readyz", headers=headers).status_code == 200
        assert client.get("/v1/segments", headers=headers).status_code == 200


def test_a_receipt_that_is_refused_is_not_taken_and_a_later_one_is(gateway: HttpGateway, strict: Services) -> None:
    assert strict.receipt_urls
    url = strict.receipt_urls.url(str(uuid7()), "phone", now=time.time(), ttl_s=60).removeprefix(PUBLIC)
    stranger = _exhaust(gateway, "203.0.113.1")
    assert stranger.post(f"{url}/delivered", headers=_from("203.0.113.1")).status_code == 429
    assert strict.redis.hlen(INBOX_MESSAGES) == 0
    assert stranger.post(f"{url}/delivered", headers=_from("203.0.113.2")).status_code == 204
    assert strict.redis.hlen(INBOX_MESSAGES) == 1


@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_large_body_counts_for_many_requests(gateway: HttpGateway, *, in_pieces: bool) -> None:
    stranger, headers = gateway.stranger(), _from("203.0.113.1") | {"Content-Type": "application/json"}
    body = json.dumps({"receipts": [{"receipt": "x" * 52, "kind": "clicked"}] * 500}).encode()
    content: Any = (body[n : n + 8_192] for n in range(0, len(body), 8_192)) if in_pieces else body
    assert stranger.post("/v1/receipts", content=content, headers=headers).status_code == 202
    answer = stranger.post("/r/x/delivered", headers=headers)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > len(body) / 4_096 / PER_S - BURST_S - 2


def test_a_body_that_is_refused_unread_counts_for_one_request(gateway: HttpGateway) -> None:
    head = b"POST /v1/receipts HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.1\r\ncontent-length: %d\r\n\r\n"
    for answered in [b"413"] * BURST + [b"429"]:
        with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=20) as connection:
            connection.sendall(head % 10**18)
            assert connection.recv(1_024).split()[1] == answered


def test_the_body_of_a_request_that_comes_too_early_is_not_read(gateway: HttpGateway) -> None:
    _exhaust(gateway, "203.0.113.1")
    head = b"POST /v1/receipts HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.1\r\n"
    for length in (b"content-length: 900000", b"transfer-encoding: chunked"):
        with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=20) as connection:
            connection.sendall(head + length + b"\r\n\r\n")
            answer = b""
            while more := connection.recv(1_024):
                answer += more
            assert answer.split()[1] == b"429"


def test_twilios_own_callbacks_are_taken_however_many_they_are(gateway: HttpGateway) -> None:
    stranger, url = gateway.stranger(), f"{PUBLIC}/callbacks/twilio"
    validator: Any = RequestValidator(TOKEN)
    for n in range(3 * BURST):
        form = {"MessageSid": f"SM{n:032x}", "MessageStatus": "delivered"}
        headers = {"X-Twilio-Signature": validator.compute_signature(url, form), **_from("203.0.113.1")}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        assert stranger.post("/callbacks/twilio", content=urlencode(form), headers=headers).status_code == 204
    for _ in range(BURST):
        assert stranger.post("/callbacks/twilio", content="x=y", headers=headers).status_code == 403
    assert stranger.post("/callbacks/twilio", content="x=y", headers=headers).status_code == 429


def test_a_header_that_no_trusted_proxy_has_added_helps_nobody(strict: Services) -> None:
    alone = Services(strict.settings.model_copy(update={"gateway_proxies": frozenset()}))
    with HttpGateway(alone) as gateway:
        stranger = gateway.stranger()
        answers = [stranger.post("/r/x/clicked", headers=_from(f"203.0.113.{n}")) for n in range(BURST + 1)]
        assert [answer.status_code for answer in answers] == [403] * BURST + [429]
    alone.close()


def test_a_request_that_was_answered_makes_room_for_the_next(strict: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_pace, "AT_ONCE", 1)
    quick = Services(strict.settings.model_copy(update={"gateway_address_per_s": 1_000}))
    with HttpGateway(quick) as gateway:
        stranger = gateway.stranger()
        for path in ("/r/x/clicked", "/callbacks/twilio", "/v1/receipts", "/l/x"):
            for _ in range(3):
                assert stranger.post(path).status_code in (403, 405, 415), path
    quick.close()


def test_the_limit_can_be_switched_off(strict: Services) -> None:
    free = Services(strict.settings.model_copy(update={"gateway_address_per_s": 0}))
    with HttpGateway(free) as gateway:
        stranger = gateway.stranger()
        assert {stranger.post("/r/x/clicked").status_code for _ in range(3 * BURST)} == {403}
    free.close()
