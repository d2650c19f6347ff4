"""The HTTP engine against a server that misbehaves on purpose, at the level of sockets."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import certifi
import pytest

from knocktwice_worker.channels.http import NoResponse, Request, Response
from knocktwice_worker.channels.outbound.transport import Transport
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from knocktwice_worker.channels.deadline import Deadline
    from knocktwice_worker.sandbox import Sandbox

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nRetry-After: 7\r\n\r\nok"


@dataclass
class Server:
    """Answers each request on each connection as ``script`` says: bytes to answer, None to close, Event to wait for."""

    script: Callable[[int], bytes | threading.Event | None] = lambda _: OK
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0
    _listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0), backlog=600))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def run(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, suppress(OSError):
            while stream.readline():
                length = 0
                while (line := stream.readline()).strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                with self._lock:
                    self.bodies.append(stream.read(length))
                    number = len(self.bodies)
                answer = self.script(number)
                if answer is None:
                    return
                if isinstance(answer, threading.Event):
                    answer.wait(30)
                    return
                connection.sendall(answer)


@pytest.fixture
def server() -> Iterator[Server]:
    built = Server()
    threading.Thread(target=built.run, daemon=True).start()
    yield built
    built.close()


@pytest.fixture
def transport() -> Iterator[Transport]:
    built = Transport(timeout=5, in_flight=50)
    yield built
    built.close()


def test_five_hundred_requests_are_answered_in_their_order(transport: Transport, server: Server) -> None:
    server.script = lambda _: OK
    answers = transport.send([Request(server.url, {}, f"{i}".encode()) for i in range(500)])
    assert all(isinstance(a, Response) and (a.status, a.body) == (200, b"ok") for a in answers)
    assert sorted(int(b) for b in server.bodies) == list(range(500))
    assert server.connections <= 50


def test_answers_carry_their_headers_in_lower_case(transport: Transport, server: Server) -> None:
    (answer,) = transport.send([Request(server.url, {}, b"x")])
    assert isinstance(answer, Response)
    assert answer.headers["retry-after"] == "7"


def test_many_threads_share_one_engine(transport: Transport, server: Server) -> None:
    failures: list[object] = []

    def work(thread: int) -> None:
        answers = transport.send([Request(server.url, {}, f"{thread}.{i}".encode()) for i in range(20)])
        failures.extend(a for a in answers if not isinstance(a, Response))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(set(server.bodies)) == 320


def test_what_is_not_repeatable_is_sent_once_even_when_a_kept_connection_breaks(
    transport: Transport, server: Server
) -> None:
    server.script = lambda number: OK if number == 1 else None
    transport.send([Request(server.url, {}, b"first")])
    (answer,) = transport.send([Request(server.url, {}, b"an sms")])
    assert isinstance(answer, NoResponse)
    assert answer.sent
    assert server.bodies == [b"first", b"an sms"]


def test_what_is_repeatable_survives_a_kept_connection_that_breaks(transport: Transport, server: Server) -> None:
    server.script = lambda number: None if number == 2 else OK
    transport.send([Request(server.url, {}, b"first", repeatable=True)])
    (answer,) = transport.send([Request(server.url, {}, b"a push", repeatable=True)])
    assert isinstance(answer, Response)
    assert server.bodies == [b"first", b"a push", b"a push"]


def test_a_refused_connection_was_never_sent(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    (answer,) = transport.send([Request(f"http://127.0.0.1:{port}/", {}, b"x")])
    assert answer == NoResponse("the provider refuses connections", sent=False)


def test_silence_ends_at_the_deadline_and_may_have_been_received(server: Server) -> None:
    silence = threading.Event()
    server.script = lambda _: silence
    transport = Transport(timeout=0.3, in_flight=10)
    (answer,) = transport.send([Request(server.url, {}, b"x")])
    assert answer == NoResponse("the provider did not answer in time", sent=True)
    silence.set()
    transport.close()


def test_what_waits_too_long_for_its_turn_is_not_sent_at_all(server: Server) -> None:
    silence = threading.Event()
    server.script = lambda _: silence
    transport = Transport(timeout=0.3, in_flight=1)
    answers = transport.send([Request(server.url, {}, b"a"), Request(server.url, {}, b"b")])
    assert [a.sent for a in answers if isinstance(a, NoResponse)] == [True, False]
    assert server.bodies == [b"a"]
    silence.set()
    transport.close()


def test_closing_answers_what_is_under_way(server: Server) -> None:
    silence = threading.Event()
    server.script = lambda _: silence
    transport = Transport(timeout=30, in_flight=1)
    answers: list[Response | NoResponse] = []
    sender = threading.Thread(
        target=lambda: answers.extend(transport.send([Request(server.url, {}, b"a"), Request(server.url, {}, b"b")]))
    )
    sender.start()
    eventually(lambda: server.bodies)
    transport.close()
    sender.join(10)
    assert [a.sent for a in answers if isinstance(a, NoResponse)] == [True, False]
    assert transport.send([Request(server.url, {})]) == [NoResponse("the worker is shutting down", sent=False)]
    silence.set()


def test_the_certificates_may_lie_in_any_folder(server: Server, tmp_path: Path) -> None:
    ca_file = tmp_path / "ein Ölfass" / "trusted.pem"
    ca_file.parent.mkdir()
    ca_file.write_bytes(Path(certifi.where()).read_bytes())
    with closing(Transport(timeout=5, in_flight=1, ca_file=str(ca_file))) as transport:
        (answer,) = transport.send([Request(server.url, {}, b"x")])
    assert isinstance(answer, Response)


def test_a_redirect_is_not_followed(transport: Transport, server: Server) -> None:
    server.script = lambda _: b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n"
    (answer,) = transport.send([Request(server.url, {}, b"x")])
    assert isinstance(answer, Response)
    assert answer.status == 302
    assert len(server.bodies) == 1


def test_a_certificate_nobody_vouches_for_is_refused_before_anything_is_sent(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def not_tls() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"this is no TLS")

        threading.Thread(target=not_tls, daemon=True).start()
        (answer,) = transport.send([Request(f"https://127.0.0.1:{listener.getsockname()[1]}/", {}, b"secret")])
    assert isinstance(answer, NoResponse)
    assert not answer.sent


class _Moments:
    """A deadline that is over from the n-th look on."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

    @property
    def over(self) -> bool:
        self._looks -= 1
        return self._looks < 0


@pytest.mark.parametrize("looks", [0, 1])
def test_a_request_that_is_late_is_not_sent(sandbox: Sandbox, looks: int) -> None:
    with closing(Transport(timeout=5, in_flight=10)) as transport:
        request = Request(f"{sandbox.url}/2010-04-01/Accounts/AC/Messages.json", {}, b"To=%2B16505550100&Body=x")
        (answer,) = transport.send([request], cast("Deadline", _Moments(looks)))
        assert answer == NoResponse("it was too late to send it", sent=False, late=True)
        assert sandbox.texts() == []
        (answer,) = transport.send([request], cast("Deadline", _Moments(2)))
        assert isinstance(answer, Response)
