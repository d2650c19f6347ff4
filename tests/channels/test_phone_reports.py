"""The sandbox's phones report as apps do: to the address that a push carries, again while the gateway is away,
and nowhere else.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from google.auth.transport.requests import Request as TokenRequest
from google.oauth2.service_account import Credentials

from knocktwice_worker.sandbox import AppReport, Phone, Sandbox
from knocktwice_worker.sandbox.reachable_addresses import receipt_address
from knocktwice_worker.sandbox.wall import view
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_shared.messages import ReceiptEvent

TOKEN = "A" * 50 + "-_"


@dataclass
class Gateway:
    """Takes receipts. Of ``answers`` each is given once, then 204.

    Attributes:
        got: method, path and size of the body of each request.
    """

    answers: list[int] = field(default_factory=list)
    got: list[tuple[str, str, str]] = field(default_factory=list)

    def serve(self, port: int = 0) -> str:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                gateway.got.append((self.command, self.path, self.headers.get("content-length", "0")))
                self.send_response(gateway.answers.pop(0) if gateway.answers else 204)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    built = Gateway()
    yield built
    built.close()


@pytest.fixture
def heard() -> list[ReceiptEvent]:
    """What the app's backend was told."""
    return []


@pytest.fixture
def sandbox(heard: list[ReceiptEvent]) -> Iterator[Sandbox]:
    with Sandbox(report=heard.append) as running:
        running.add_phone(Phone("phone", delivered_after=0))
        yield running


@pytest.fixture
def google(sandbox: Sandbox, tmp_path: Path) -> Iterator[httpx.Client]:
    """FCM's client."""
    account: Any = Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        sandbox.environment(tmp_path)["GOOGLE_APPLICATION_CREDENTIALS"],
        scopes=["https://www.googleapis.com/auth/firebase.messaging"],
    )
    request = TokenRequest()
    account.refresh(request)
    request.session.close()
    headers = {"Authorization": f"Bearer {account.token}"}
    with httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False) as client:
        yield client


def _push(google: httpx.Client, address: str) -> None:
    data = {"knocktwice_id": str(uuid.uuid4()), "knocktwice_receipt": address}
    message = {"token": "phone", "data": data, "notification": {"title": "Hello"}}
    assert google.post("/v1/projects/p/messages:send", json={"message": message}).status_code == 200


def _reports(sandbox: Sandbox) -> tuple[AppReport, ...]:
    return sandbox.pushes()[0].reports


def test_an_app_posts_to_the_address_in_its_push_and_its_backend_hears_nothing(
    sandbox: Sandbox, google: httpx.Client, gateway: Gateway, heard: list[ReceiptEvent]
) -> None:
    _push(google, f"{gateway.serve()}/base/r/{TOKEN}")
    sandbox.wait_until(lambda: _reports(sandbox))
    assert sandbox.tap("phone")
    sandbox.wait_until(lambda: len(_reports(sandbox)) == 2)
    assert gateway.got == [("POST", f"/base/r/{TOKEN}/{kind}", "0") for kind in ("delivered", "clicked")]
    assert _reports(sandbox) == (AppReport("delivered", 204, 1), AppReport("clicked", 204, 1))
    assert view.phones(sandbox._books)["phone"]["messages"][0]["notes"][1:] == [
        "delivered: reported",
        "clicked: reported",
    ]
    assert heard == []


def test_an_app_tries_again_while_the_gateway_is_away_or_asks_for_patience(
    sandbox: Sandbox, google: httpx.Client, gateway: Gateway
) -> None:
    port = free_port()
    _push(google, f"http://127.0.0.1:{port}/r/{TOKEN}")
    sandbox.wait_until(lambda: _reports(sandbox))
    assert (_reports(sandbox)[0].answered, _reports(sandbox)[0].taken) == (None, False)
    assert view.phones(sandbox._books)["phone"]["messages"][0]["notes"][1:] == ["delivered: not taken (no answer)"]
    gateway.answers = [429]
    gateway.serve(port)
    sandbox.wait_until(lambda: _reports(sandbox)[0].taken, timeout=60)
    assert _reports(sandbox)[0].tries >= 3


@pytest.mark.parametrize("status", [302, 403, 404])
def test_an_app_takes_no_for_an_answer_and_follows_no_redirect(
    sandbox: Sandbox, google: httpx.Client, gateway: Gateway, status: int
) -> None:
    gateway.answers = [status]
    _push(google, f"{gateway.serve()}/r/{TOKEN}")
    sandbox.wait_until(lambda: _reports(sandbox))
    assert _reports(sandbox) == (AppReport("delivered", status, 1),)
    assert view.phones(sandbox._books)["phone"]["messages"][0]["notes"][1:] == [f"delivered: not taken ({status})"]
    assert sandbox.tap("phone")
    sandbox.wait_until(lambda: len(_reports(sandbox)) == 2)
    # The second one went out later, so the first was not repeated before it.
    assert [path for _, path, _ in gateway.got] == [f"/r/{TOKEN}/delivered", f"/r/{TOKEN}/clicked"]


def test_an_address_elsewhere_is_not_called_and_the_backend_hears_of_it(
    sandbox: Sandbox, google: httpx.Client, heard: list[ReceiptEvent]
) -> None:
    _push(google, f"http://192.0.2.1/r/{TOKEN}")
    sandbox.wait_until(lambda: heard)
    assert _reports(sandbox) == ()
    assert heard[0].registration == "phone"


def test_a_sandbox_that_stops_forgets_what_could_not_be_reported(sandbox: Sandbox, google: httpx.Client) -> None:
    _push(google, f"http://127.0.0.1:{free_port()}/r/{TOKEN}")
    sandbox.wait_until(lambda: _reports(sandbox))
    sandbox.stop()
    assert sandbox.tap("phone")
    assert [report.kind for report in _reports(sandbox)] == ["delivered"]


@pytest.mark.parametrize(
    ("address", "gateway", "may"),
    [
        (f"http://127.0.0.1:8080/r/{TOKEN}", None, True),
        (f"http://localhost/base/r/{TOKEN}", None, True),
        (f"http://[::1]:8080/r/{TOKEN}", None, True),
        (f"https://push.example.com/base/r/{TOKEN}", "https://push.example.com/base/", True),
        (f"https://push.example.com/r/{TOKEN}", "https://push.example.com/base", False),
        (f"https://push.example.com/r/{TOKEN}", None, False),
        (f"https://push.example.com@192.0.2.1/r/{TOKEN}", "https://push.example.com", False),
        (f"http://127.0.0.1@192.0.2.1/r/{TOKEN}", None, False),
        (f"http://user@127.0.0.1/r/{TOKEN}", None, False),
        (f"http://127.0.0.1.example.com/r/{TOKEN}", None, False),
        (f"http://2130706433/r/{TOKEN}", None, False),
        (f"http://0.0.0.0/r/{TOKEN}", None, False),
        (f"http://169.254.169.254/r/{TOKEN}", None, False),
        (f"http://127.0.0.1/x?/r/{TOKEN}", None, False),
        (f"http://127.0.0.1/x#/r/{TOKEN}", None, False),
        (f"http://127.0.0.1/x\r\nHost: evil/r/{TOKEN}", None, False),
        (f"http://127.0.0.1\\@192.0.2.1/r/{TOKEN}", None, False),
        (f"http://127.0.0.1:99999/r/{TOKEN}", None, False),
        (f"ftp://127.0.0.1/r/{TOKEN}", None, False),
        (f"//127.0.0.1/r/{TOKEN}", None, False),
        (f"/r/{TOKEN}", None, False),
        ("http://127.0.0.1:6379/anything", None, False),
        ("http://127.0.0.1/r/a/../../x", None, False),
        ("http://127.0.0.1/r/", None, False),
        ("http://127.0.0.1/r/" + "A" * 201, None, False),
        ("http://127.0.0.1/r/" + "é" * 52, None, False),
        ("", None, False),
        ("\0", None, False),
    ],
)
def test_only_receipts_at_the_gateway_or_on_this_machine_are_sent(
    address: str, gateway: str | None, *, may: bool
) -> None:
    assert receipt_address(address, gateway) is may
