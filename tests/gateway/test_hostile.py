"""What no client of ours would send: the gateway says what is wrong,
keeps its connections in order and never answers 5xx.
"""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    import httpx

    from support.http_gateway import HttpGateway

PUSH = {"title": "a", "body": "b"}


@pytest.fixture
def client(shared_gateway: HttpGateway) -> httpx.Client:
    """A client whose key has every scope."""
    return shared_gateway.client()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user": 17, "push": PUSH}, "user"),
        ({"user": "", "push": PUSH}, "user"),
        ({"user": "a\0b", "push": PUSH}, "user"),
        ({"user": "\ud800", "push": PUSH}, "user"),
        ({"user": "u" * 201, "push": PUSH}, "user"),
        ({"user": ["u"], "push": PUSH}, "user"),
        ({"user": {"id": "u"}, "push": PUSH}, "user"),
        ({"user": True, "push": PUSH}, "user"),
        ({"push": PUSH}, "body"),
        ({"recipients": [], "push": PUSH}, "recipients"),
        ({"recipients": {}, "push": PUSH}, "recipients"),
        ({"recipients": "u", "push": PUSH}, "recipients"),
        ({"recipients": [1], "push": PUSH}, "recipients[0]"),
        ({"recipients": [{"user": f"u{n}"} for n in range(501)], "push": PUSH}, "recipients"),
        ({"recipients": [{"user": "u", "registrations": []}], "push": PUSH}, None),
        ({"recipients": [{"user": "u", "registrations": "phone"}], "push": PUSH}, "recipients[0].registrations"),
        ({"recipients": [{"registrations": ["a\0"]}], "push": PUSH}, "recipients[0].registrations[0]"),
        ({"recipients": [{"phone": 16505550100}], "push": PUSH}, "recipients[0].phone"),
        ({"recipients": [{"user": "u", "params": []}], "push": PUSH}, "recipients[0].params"),
        ({"recipients": [{"user": "u", "params": {"a\0": 1}}], "push": PUSH}, None),
        ({"recipients": [{"user": "u", "key": "k\0"}], "push": PUSH}, "recipients[0].key"),
        ({"user": "u", "push": []}, "push"),
        ({"user": "u", "push": "hello"}, "push"),
        ({"user": "u", "push": {"title": "a", "body": "\0"}}, "push.body"),
        ({"user": "u", "push": {"title": "a", "body": "b", "data": {"n": 1}}}, "push.data.n"),
        ({"user": "u", "push": {"title": "a", "body": "b", "link": "javascript:alert(1)"}}, "push.link"),
        ({"user": "u", "push": PUSH, "sms": []}, "sms"),
        ({"user": "u", "push": PUSH, "sms": {"after_s": "300"}}, "sms.after_s"),
        ({"user": "u", "push": PUSH, "sms": {"after_s": -1}}, "sms.after_s"),
        ({"user": "u", "push": PUSH, "sms": {"after_s": 1e300}}, "sms.after_s"),
        ({"user": "u", "push": PUSH, "plan": {}}, "plan"),
        ({"user": "u", "push": PUSH, "plan": [{"channel": "fax"}]}, "plan[0].channel"),
        ({"user": "u", "push": PUSH, "ttl_s": True}, "ttl_s"),
        ({"user": "u", "push": PUSH, "send_at": 1}, "send_at"),
        ({"user": "u", "push": PUSH, "reference": []}, "reference"),
        ({"user": "u", "push": PUSH, "category": "spam"}, "category"),
        ({"user": "u", "push": PUSH, "template": "t"}, None),
        ({"user": "u", "push": PUSH, "recipient": "v"}, "recipient"),
    ],
)
def test_a_wrong_notification_is_told_its_field(client: httpx.Client, body: dict[str, Any], field: str | None) -> None:
    answer = client.post("/v1/notifications", content=json.dumps(body), headers={"Content-Type": "application/json"})
    if field is None:
        assert answer.status_code in (202, 422), answer.text
    else:
        assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize("user", ["%00", "a%00b", "%ff%fe", "%ed%a0%80", "..", "%2e%2e", "a%2fb", "%20", "u" * 300])
def test_an_id_in_a_path_that_cannot_be_one_is_refused(client: httpx.Client, method: str, user: str) -> None:
    for path in (f"/v1/users/{user}/phone", f"/v1/users/u/devices/{user}", f"/v1/users/{user}/consent"):
        answer = client.request(method, path, json={"phone": "+16505550100"} if method == "PUT" else None)
        assert answer.status_code < 500, (path, answer.text)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/notifications/%00",
        "/v1/templates/..%2f..%2fetc%2fpasswd",
        "/v1/templates/%2e%2e",
        "/v1/segments/%00",
        "/v1/segments/a%00b",
        "/v1/segments/a%00b/preview",
        "/v1/segments/%ff",
        "/v1/blasts/%00",
        "/v1/blasts/%ff",
        "/v1/advice/%00",
        "/v1/messages?user=%00",
        "/v1/messages?user=%ff",
        "/v1/messages?key=%ed%a0%80",
        "/v1/messages?limit=0",
        "/v1/messages?limit=99999999999999999999",
        "/v1/messages?before=x",
        "/v1/messages?since=0001-01-01T00:00:00%2B14:00",
        "/v1/messages?until=9999-12-31T23:59:59-14:00",
        "/v1/messages?state=on_fire",
        "/v1/stats?since=9999-12-31",
        "/v1/stats?since=0001-01-01&until=9999-12-31",
        "/v1/stats?until=0001-01-01",
        "/l/..%2f..",
        "/l/%00",
        "/l//evil.example",
        "//evil.example/%2e%2e",
        "/l/" + "a" * 5_000,
        "/r/%00/clicked",
        "/r/%ff/delivered",
        "/r//delivered",
        "/r/" + "A" * 52 + "/delivered",
        "/r/" + "A" * 52 + "/delivered/",
        "/r/x/y/delivered",
        "/%00",
        "/v1/../healthz/x",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "PATCH", "TRACE"])
def test_a_strange_address_is_answered_and_leads_nowhere(client: httpx.Client, method: str, path: str) -> None:
    answer = client.request(method, path)
    assert answer.status_code < 500, answer.text
    assert "location" not in answer.headers
    if answer.status_code >= 400 and method != "HEAD":
        assert answer.headers["content-type"] == "application/problem+json"


def _raw(gateway: HttpGateway, *parts: bytes, hang_up: bool = False) -> bytes:
    """Send bytes as they are and return all that comes back until the connection ends,
    at the latest when we ``hang_up``.
    """
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        if hang_up:
            connection.shutdown(socket.SHUT_WR)
        answered = b""
        while more := connection.recv(65_536):
            answered += more
    return answered


def _chunked(gateway: HttpGateway, path: str, chunks: list[bytes], key: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n"
    head += "connection: close\r\n"
    head += f"authorization: Bearer {key}\r\n" if key else ""
    body = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    return _raw(gateway, head.encode() + b"\r\n", *body, b"0\r\n\r\n")


def test_whoever_hangs_up_in_the_middle_of_a_body_is_nothing_to_be_logged(
    shared_gateway: HttpGateway, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("/v1/notifications", "/v1/receipts", "/v1/cancellations"):
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n"
        head += f"authorization: Bearer {shared_gateway.key()}\r\n\r\n"
        assert _raw(shared_gateway, head.encode() + b"{", hang_up=True) == b""
    assert shared_gateway.stranger().get("/healthz").status_code == 200
    assert not caplog.records


def test_a_body_in_pieces_is_put_together(shared_gateway: HttpGateway) -> None:
    body = json.dumps({"user": "ü", "push": PUSH}, ensure_ascii=False).encode()
    # In the middle of a letter, too.
    answer = _chunked(
        shared_gateway, "/v1/notifications", [bytes([byte]) for byte in body], shared_gateway.key(Scope.NOTIFY)
    )
    assert answer.startswith(b"HTTP/1.1 202"), answer


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\0\0\0\0",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /r/\xff/delivered HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \xff\xfe\r\n\r\n",
        b"GET http://evil.example/healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
def test_what_is_hardly_http_does_no_harm(shared_gateway: HttpGateway, request_: bytes) -> None:
    try:
        answer = _raw(shared_gateway, request_, hang_up=True)
    except ConnectionError:
        answer = b""
    assert not answer or b" 50" not in answer[:13], answer
    assert shared_gateway.stranger().get("/healthz").status_code == 200


def test_a_request_hidden_behind_another_ones_length_is_not_served(shared_gateway: HttpGateway) -> None:
    smuggled = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    head = (
        b"POST /r/x/delivered HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    answer = _raw(shared_gateway, head % len(smuggled) + smuggled, hang_up=True)
    assert answer.count(b"HTTP/1.1 200") == 0


def test_a_body_that_nobody_reads_does_not_shift_what_follows(shared_gateway: HttpGateway) -> None:
    body = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    first = b"POST /r/x/delivered HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    second = b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = _raw(shared_gateway, first, second)
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]] == [403, 404]


@pytest.mark.parametrize("key", ["", "k" * 201, "ключ".encode().decode("latin-1"), "a" * 200])
def test_an_idempotency_key_is_bounded_and_otherwise_anything(client: httpx.Client, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]
    answer = client.post("/v1/notifications", json={"user": "u", "push": PUSH}, headers=headers)
    assert answer.status_code == (202 if 0 < len(key.strip()) <= 200 else 422), answer.text


def test_a_key_that_is_revoked_between_two_requests_of_a_connection_ends(shared_gateway: HttpGateway) -> None:
    client, services = shared_gateway.client(), shared_gateway.services
    assert client.get("/v1/segments").status_code == 200
    key = client.headers["authorization"].partition(" ")[2]
    with services.engine.begin() as conn:
        assert keys.revoke(conn, keys.id_of(key) or "")
    deadline = time.monotonic() + 20
    while client.get("/v1/segments").status_code == 200:
        assert time.monotonic() < deadline
    assert client.get("/v1/segments").status_code == 401
    assert client.post("/v1/notifications", json={"user": "u", "push": PUSH}).status_code == 401


def test_a_batch_of_forged_receipts_names_each_and_keeps_none(shared_gateway: HttpGateway) -> None:
    addresses = ["", "/", "\0", "\ud800", "x" * 300, "https://evil.example/r/" + "A" * 52, str(uuid4()), "é" * 52]
    told = [{"receipt": address, "kind": "clicked"} for address in addresses]
    answer = shared_gateway.stranger().post(
        "/v1/receipts", content=json.dumps({"receipts": told}), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 202
    assert [refused["index"] for refused in answer.json()["refused"]] == list(range(len(addresses)))


@pytest.mark.parametrize(
    ("method", "path", "body", "fields"),
    [
        ("POST", "/v1/notifications", {}, ["body", "push"]),
        ("POST", "/v1/notifications", {"registrations": [], "push": PUSH}, ["body"]),
        ("POST", "/v1/notifications", {"registrations": [], "category": "x"}, ["category", "body", "push"]),
        ("PUT", "/v1/users/u/phone", {"number": "+16505550100"}, ["number", "phone"]),
        ("PUT", "/v1/users/u/consent", {"marketing": True}, ["marketing", "granted", "source"]),
        ("POST", "/v1/users/find", {"number": "+16505550100"}, ["number", "phone"]),
        ("PUT", "/v1/templates/t", {"name": "t"}, ["default_locale", "contents", "name"]),
        ("PUT", "/v1/segments/s", {"where": {}}, ["where", "filter"]),
    ],
)
def test_all_that_is_wrong_with_a_request_is_told_at_once(
    shared_gateway: HttpGateway, method: str, path: str, body: object, fields: list[str]
) -> None:
    answer = shared_gateway.client().request(method, path, json=body)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == fields
