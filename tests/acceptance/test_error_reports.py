"""An unexpected error of a worker is reported with its place in the code, and with nothing of a person."""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import Push, Sms
from knocktwice_worker.config import ConfigurationError
from knocktwice_worker.runtime import error_reports
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.system import System

SECRETS = ("u-secret", "+16505550142", "6505550142", "Your biopsy", "token-of-hers")


class Sentry:
    """Takes reports as Sentry does."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        taken = self.taken

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                taken.append(body.decode())
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.dsn = f"http://key@127.0.0.1:{self.server.server_port}/1"

    def events(self) -> list[dict[str, Any]]:
        """Return the reports: a line of each envelope."""
        lines = [json.loads(line) for body in self.taken for line in body.splitlines() if line.startswith("{")]
        return [line for line in lines if "exception" in line]


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    built = Sentry()
    thread = threading.Thread(target=built.server.serve_forever)
    thread.start()
    yield built
    built.server.shutdown()
    thread.join()
    built.server.server_close()


def test_an_error_of_a_worker_is_reported_without_anything_of_a_person(installation: System, sentry: Sentry) -> None:
    installation.settings["KNOCKTWICE_SENTRY_DSN"] = sentry.dsn
    installation.start_worker()
    with installation.engine.begin() as conn:
        conn.execute(sa.text("ALTER TABLE notifications RENAME COLUMN params TO was_params"))
    installation.client.notify(
        user="u-secret",
        phone="+16505550142",
        registrations=["token-of-hers"],
        push=Push("Your biopsy", "The result is there."),
        sms=Sms(text="Your biopsy: call us."),
    )
    eventually(sentry.events, why=installation.logs)
    event = sentry.events()[0]
    assert set(event) <= {"event_id", "timestamp", "level", "platform", "release", "environment", "exception", "tags"}
    assert event["tags"] == {"role": "worker", "task": "knocktwice.send_push"}
    last = event["exception"]["values"][-1]
    assert last["type"] == "ProgrammingError"
    assert any(
        frame["module"] == "knocktwice_worker.notifications.store.intake" for frame in last["stacktrace"]["frames"]
    )
    assert not [secret for secret in SECRETS if any(secret in body for body in sentry.taken)]


def test_without_a_dsn_nothing_is_reported_and_a_wrong_one_is_named() -> None:
    error_reports.start(None, "worker")
    with pytest.raises(ConfigurationError, match="KNOCKTWICE_SENTRY_DSN is no DSN"):
        error_reports.start("sentry.example", "worker")
