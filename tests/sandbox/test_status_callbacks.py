"""Status callbacks: signed, in order, repeated as Twilio does, and never to another machine."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from twilio.request_validator import RequestValidator

from knocktwice_worker.sandbox import Answer, Rule, Sandbox
from support.provider_clients import NUMBER, send_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twilio.rest import Client


@dataclass
class Gateway:
    """Receives status callbacks; answers with the statuses in ``answers`` first, then 200."""

    got: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    built = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
            built.got.append((f"{built.url}{self.path}", form, self.headers["X-Twilio-Signature"]))
            self.send_response(built.answers.pop(0) if built.answers else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    built.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield built
    server.shutdown()
    thread.join()
    server.server_close()


def test_callbacks_come_in_order_and_twilios_validator_agrees(
    sandbox: Sandbox, twilio: Client, gateway: Gateway, environment: dict[str, str]
) -> None:
    url = f"{gateway.url}/callbacks/twilio?intent=a%2Fb+c&sig=%C3%BC~"
    sid = send_text(twilio, status_callback=url)
    sandbox.wait_until(lambda: len(gateway.got) == 2)
    assert [form["MessageStatus"] for _, form, _ in gateway.got] == ["sent", "delivered"]
    validator = RequestValidator(environment["TWILIO_AUTH_TOKEN"])
    for seen, form, signature in gateway.got:
        assert seen == url
        assert validator.validate(seen, form, signature)
        assert not validator.validate(seen, form | {"MessageStatus": "failed"}, signature)
        assert (form["MessageSid"], form["To"], form["From"]) == (sid, NUMBER, "+15005550006")
        assert form["AccountSid"] == environment["TWILIO_ACCOUNT_SID"]
        assert "ErrorCode" not in form


def test_a_text_may_fail_after_it_was_taken(sandbox: Sandbox, twilio: Client, gateway: Gateway) -> None:
    sid = send_text(twilio, to="+15005550030", status_callback=gateway.url)
    sandbox.wait_until(lambda: len(gateway.got) == 2)
    sent, undelivered = (form for _, form, _ in gateway.got)
    assert (sent["MessageStatus"], sent.get("ErrorCode")) == ("sent", None)
    assert (undelivered["MessageStatus"], undelivered["ErrorCode"]) == ("undelivered", "30003")
    fetched = twilio.messages(sid).fetch()
    assert (fetched.status, fetched.error_code) == ("undelivered", 30003)


def test_callbacks_may_come_twice_and_backwards_while_the_end_stays(
    sandbox: Sandbox, twilio: Client, gateway: Gateway
) -> None:
    statuses = ("delivered", "sent", "delivered", "failed")
    sandbox.rule(Rule("sms", answer=Answer(statuses=("delivered", "sent", "delivered", "failed"))))
    send_text(twilio, status_callback=gateway.url)
    sandbox.wait_until(lambda: len(gateway.got) == 4)
    assert [form["MessageStatus"] for _, form, _ in gateway.got] == list(statuses)
    assert (sandbox.texts()[0].status, sandbox.texts()[0].statuses) == ("delivered", statuses)


def test_a_callback_that_fails_is_repeated_once(sandbox: Sandbox, twilio: Client, gateway: Gateway) -> None:
    gateway.answers = [500, 503]
    sandbox.rule(Rule("sms", answer=Answer(statuses=("sent",))))
    send_text(twilio, status_callback=gateway.url)
    sandbox.wait_until(sandbox.callbacks)
    assert len(gateway.got) == 2
    assert sandbox.callbacks()[0].answered == 503


def test_a_callback_follows_no_redirect(sandbox: Sandbox, twilio: Client, gateway: Gateway) -> None:
    gateway.answers = [302]
    sandbox.rule(Rule("sms", answer=Answer(statuses=("sent",))))
    send_text(twilio, status_callback=gateway.url)
    sandbox.wait_until(sandbox.callbacks)
    assert [seen for seen, _, _ in gateway.got] == [f"{gateway.url}/"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/x",
        "http://127.0.0.1@192.0.2.1/",
        "http://127.0.0.1.example.com/",
        "http://192.0.2.1#@localhost/",
    ],
)
def test_a_callback_to_another_machine_is_noted_and_not_sent(sandbox: Sandbox, twilio: Client, url: str) -> None:
    send_text(twilio, status_callback=url)
    sandbox.wait_until(lambda: len(sandbox.callbacks()) == 2)
    assert [(c.url, c.sent, c.answered) for c in sandbox.callbacks()] == [(url, False, None)] * 2
    assert sandbox.texts()[0].status_callback == url


def test_a_callback_that_nobody_answers_is_noted(sandbox: Sandbox, twilio: Client, gateway: Gateway) -> None:
    send_text(twilio, status_callback="http://127.0.0.1:1/")
    sandbox.wait_until(lambda: len(sandbox.callbacks()) == 2)
    assert [(c.sent, c.answered) for c in sandbox.callbacks()] == [(True, None)] * 2
    assert gateway.got == []
