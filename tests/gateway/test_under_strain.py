"""Slow queries, slow clients, an old database, a path that does not take a method:
the gateway stays of use and says why.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
import sqlalchemy as sa

from knocktwice_worker.gateway.application import THREADS
from knocktwice_worker.gateway.http.protocol import HEAD_BYTES, TARGET_BYTES, BoundedHttpProtocol
from knocktwice_worker.gateway.server import CONNECTIONS_LIMIT, OPTIONS
from support.http_gateway import HttpGateway
from support.system import eventually

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

_WAITING = sa.text(
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
)


def _waiting(engine: sa.Engine) -> int:
    with engine.connect() as conn:
        return int(conn.execute(_WAITING).scalar_one())


def test_notifications_callbacks_and_keys_do_not_wait_for_slow_queries(gateway: HttpGateway, here: Services) -> None:
    client = gateway.client()
    engine = sa.create_engine(here.settings.database_url or "", poolclass=sa.NullPool)
    pause = threading.Event()
    with ThreadPoolExecutor(THREADS) as readers:
        with engine.begin() as conn:
            conn.execute(sa.text("LOCK TABLE templates IN ACCESS EXCLUSIVE MODE"))
            slow = [readers.submit(client.get, "/v1/templates") for _ in range(THREADS)]
            # Each look in a transaction of its own: within one, PostgreSQL shows the same picture.
            while _waiting(engine) < THREADS:
                pause.wait(0.01)
            # A key that was made a moment ago is read from the database, too.
            fresh = gateway.client()
            body = {"user": "u", "push": {"title": "a", "body": "b"}}
            assert fresh.post("/v1/notifications", json=body).status_code == 202
            with here.engine.connect() as writer:
                # What a callback is written with.
                assert writer.execute(sa.text("SELECT 1")).scalar_one() == 1
        assert [answer.result().status_code for answer in slow] == [200] * THREADS
    engine.dispose()


def test_a_database_without_its_latest_tables_is_not_ready(gateway: HttpGateway, here: Services) -> None:
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '0006'"))
    answer = gateway.stranger().get("/readyz")
    assert answer.status_code == 503
    assert "knocktwice migrate" in answer.json()["detail"]
    with here.engine.begin() as conn:
        # A gateway that is still of the old version while the new one is rolled out.
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '9999_later'"))
    assert gateway.stranger().get("/readyz").status_code == 200


def test_what_a_path_takes_is_told_by_its_own_operations(gateway: HttpGateway) -> None:
    stranger = gateway.stranger()
    for path, methods in (
        ("/v1/blasts/preflight", "OPTIONS, POST"),
        ("/v1/blasts/tea", "GET, HEAD, OPTIONS"),
        ("/v1/segments/preview", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/v1/notifications", "OPTIONS, POST"),
    ):
        answer = stranger.options(path)
        assert (answer.status_code, answer.headers["Allow"]) == (204, methods)


OFFER = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"


@pytest.mark.parametrize("step", [1, 7, 100, 100_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_offer_of_another_protocol_is_passed_over_and_its_request_served(
    gateway: HttpGateway, step: int, chunked: bool
) -> None:
    authorization = f"authorization: Bearer {gateway.key()}\r\n"

    def request(key: str, *, closes: bool = False) -> bytes:
        body = json.dumps({"user": "u", "key": key, "push": {"title": "a", "body": "b"}})
        length = "content-type: application/json\r\n"
        length += "transfer-encoding: chunked" if chunked else f"content-length: {len(body)}"
        sent = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n" if chunked else body
        offer = OFFER.replace("Upgrade,", "Upgrade, close,") if closes else OFFER
        return f"POST /v1/notifications HTTP/1.1\r\nhost: x\r\n{authorization}{offer}{length}\r\n\r\n{sent}".encode()

    sent = b"".join([request("a"), request("b"), request("a", closes=True)])
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=60) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(sent), step):
            client.sendall(sent[at : at + step])
        answered = b""
        while more := client.recv(1_000_000):
            answered += more
    assert re.findall(rb"HTTP/1\.1 (\d+)", answered) == [b"202"] * 3
    assert [word in answered.rpartition(b"HTTP/1.1")[2] for word in (b"duplicate", b"ids")] == [True, True]


def test_thousands_of_offers_in_one_piece_are_read_one_after_another(gateway: HttpGateway) -> None:
    one = f"GET /healthz HTTP/1.1\r\nhost: x\r\n{OFFER}\r\n".encode()
    last = one.replace(b"Upgrade,", b"Upgrade, close,")
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(one * 2_000 + last)
        answered = b""
        while more := client.recv(1_000_000):
            answered += more
    assert answered.count(b"HTTP/1.1 200 ") == 2_001


def test_nobody_is_given_a_tunnel(gateway: HttpGateway) -> None:
    with socket.create_connection(("127.0.0.1", int(gateway.url.rpartition(":")[2])), timeout=60) as client:
        client.sendall(b"CONNECT 127.0.0.1:5432 HTTP/1.1\r\nhost: 127.0.0.1:5432\r\n\r\nabc")
        assert client.recv(1_000).startswith(b"HTTP/1.1 400 ")


def test_a_head_that_does_not_end_in_time_ends_the_connection(
    gateway: HttpGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "head_s", 0.2)
    address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    for begun in (b"", b"\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"G"):
        with socket.create_connection(address, timeout=20) as client:
            client.sendall(begun)
            assert client.recv(1_000) == b""


def test_whoever_reads_no_answers_is_cut_off(
    gateway: HttpGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "unread_s", 0.2)
    address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    head = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + gateway.key().encode() + b"\r\n\r\n"
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(head * 200)
        eventually(lambda: gateway.connections == 1)
        eventually(lambda: gateway.connections == 0)
        # What was on its way by then is all that still comes.
        answered = b""
        while more := client.recv(1_000_000):
            answered += more
        assert 0 < answered.count(b"HTTP/1.1 200") < 200
    assert gateway.stranger().get("/healthz").status_code == 200
    assert not caplog.records


def test_connections_without_a_request_make_room_for_one_that_has_one(
    here: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OPTIONS, "limit_concurrency", 20)
    with HttpGateway(here) as gateway, ExitStack() as idle:
        address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        for _ in range(3):
            for begun in (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"):
                for _ in range(20):
                    idle.enter_context(socket.create_connection(address, timeout=20)).sendall(begun)
            assert httpx.get(f"{gateway.url}/healthz").status_code == 200


def test_a_connection_with_a_request_under_way_is_left_alone(here: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIONS, "limit_concurrency", 20)
    with HttpGateway(here) as gateway, ExitStack() as idle:
        address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        busy = idle.enter_context(socket.create_connection(address, timeout=20))
        head = b"POST /v1/receipts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n"
        busy.sendall(head + b"{")
        # It has been seen.
        eventually(lambda: httpx.get(f"{gateway.url}/healthz").status_code == 200)
        for _ in range(60):
            idle.enter_context(socket.create_connection(address, timeout=20))
        assert httpx.get(f"{gateway.url}/healthz").status_code == 200
        busy.sendall(b"}")
        assert busy.recv(1_000).startswith(b"HTTP/1.1 422")


@pytest.mark.parametrize(("most", "connections"), [(1_024, 768), (100_000, CONNECTIONS_LIMIT)])
def test_a_process_takes_as_many_connections_as_it_may_open_files(most: int, connections: int) -> None:
    program = (
        "import resource as r; from knocktwice_worker.gateway import server;"
        f"most = min({most}, r.getrlimit(r.RLIMIT_NOFILE)[1]); r.setrlimit(r.RLIMIT_NOFILE, (256, most));"
        f"assert server.connections_limit() == {connections} < r.getrlimit(r.RLIMIT_NOFILE)[0]"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_head_without_end_is_not_kept(gateway: HttpGateway) -> None:
    address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        try:
            for n in range(HEAD_BYTES * 100 // 1_000):
                client.sendall(b"X-%d: " % n + b"a" * 1_000 + b"\r\n")
            assert client.recv(1_000).startswith(b"HTTP/1.1 431 ")
        except ConnectionError:
            return


def _answered(gateway: HttpGateway, head: bytes) -> bytes:
    address = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(head)
        answered = b""
        while more := client.recv(10_000):
            answered += more
    return answered


@pytest.mark.parametrize(
    ("head", "status", "kind"),
    [
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\ncookie: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431, "head-too-large"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * (HEAD_BYTES // 6) + b"\r\n", 431, "head-too-large"),
        # Neither the header nor the line ever ends.
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\ncookie: " + b"a" * HEAD_BYTES * 2, 431, "head-too-large"),
        (b"GET /healthz?" + b"a" * TARGET_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n", 414, "target-too-long"),
        (b"POST /v1/notifications?" + b"a" * TARGET_BYTES * 2, 414, "target-too-long"),
    ],
    ids=["one header", "many headers", "without end", "target", "target without end"],
)
def test_a_head_over_the_limit_is_told_so(gateway: HttpGateway, head: bytes, status: int, kind: str) -> None:
    lines, _, body = _answered(gateway, head).partition(b"\r\n\r\n")
    assert lines.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close" in lines
    assert b"application/problem+json" in lines
    assert json.loads(body)["type"] == f"urn:knocktwice:problem:{kind}"
    assert gateway.stranger().get("/healthz").status_code == 200


def test_a_head_within_the_limit_and_the_body_behind_it_are_taken(gateway: HttpGateway) -> None:
    client = gateway.client()
    answer = client.get("/v1/messages", headers={"x-large": "a" * (HEAD_BYTES - 1_000)})
    assert answer.status_code == 200
    body = {"user": "u", "push": {"title": "a", "body": "b" * 500}, "reference": {"r": "c" * 3_000}}
    for _ in range(3):
        assert client.post("/v1/notifications", json=body, headers={"x-large": "a" * 20_000}).status_code == 202
