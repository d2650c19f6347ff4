"""``knocktwice listen``: webhooks are shown and handed on, signed,
and come again until the server behind takes them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from standardwebhooks import Webhook

from knocktwice_worker.webhooks import endpoints
from support.system import eventually
from support.webhook_receiver import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.config import Settings
    from knocktwice_worker.services import Services


class Listening:
    """The command, and what it printed."""

    def __init__(self, settings: Settings, folder: Path, *options: str) -> None:
        self._files = [folder / name for name in ("out", "err")]
        environment = {
            **os.environ,
            "KNOCKTWICE_DATABASE_URL": str(settings.database_url),
            "KNOCKTWICE_BROKER_URL": str(settings.broker_url),
            "KNOCKTWICE_SECRET": "test",
            "PYTHONUNBUFFERED": "1",
        }
        with self._files[0].open("wb") as told, self._files[1].open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "knocktwice_worker.cli", "listen", *options],
                env=environment,
                stdout=told,
                stderr=said,
            )
        eventually(lambda: "listening" in self.said or self.process.poll() is not None, why=lambda: self.said)

    @property
    def told(self) -> list[str]:
        """The lines for whoever reads the events."""
        return self._files[0].read_text().splitlines()

    @property
    def said(self) -> str:
        """The words beside them."""
        return self._files[1].read_text()

    def end(self, how: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(how)
        self.process.wait(30)


@pytest.fixture
def application() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as built:
        yield built


def _endpoints(here: Services) -> list[endpoints.Endpoint]:
    with here.engine.begin() as conn:
        return endpoints.list_all(conn)


def test_a_webhook_is_shown_and_handed_on_with_its_signature(
    here: Services, settings: Settings, application: WebhookReceiver, tmp_path: Path
) -> None:
    answers = iter([500, 204])
    application.answer = lambda _: next(answers)
    options = ["--forward-to", application.url, "--events", "notification.finished", "--json"]
    listening = Listening(settings, tmp_path, *options)
    try:
        (one,) = _endpoints(here)
        assert list(one.events) == ["notification.finished"]
        # What the application refuses is refused to the worker, which sends it again.
        assert "500" in (here.webhooks.test(one.id, one.url) or "")
        assert here.webhooks.test(one.id, one.url) is None
        shown: list[dict[str, Any]] = [json.loads(line) for line in listening.told]
        assert [line["status"] for line in shown] == [500, 204]
        secret = listening.said.split()[1]
        for headers, body in application.seen:
            assert Webhook(secret).verify(body, headers) == shown[0]["event"]
    finally:
        listening.end()
    assert listening.process.returncode == 0
    assert _endpoints(here) == []


def test_a_server_that_is_away_is_named_and_a_killed_command_is_forgotten(
    here: Services, settings: Settings, tmp_path: Path
) -> None:
    killed = Listening(settings, tmp_path)
    killed.end(signal.SIGKILL)
    assert len(_endpoints(here)) == 1
    listening = Listening(settings, tmp_path, "--forward-to", "http://127.0.0.1:1/hooks")
    try:
        (one,) = _endpoints(here)
        assert "502" in (here.webhooks.test(one.id, one.url) or "")
        assert "502 ([Errno 111] Connection refused)" in listening.told[0]
    finally:
        listening.end(signal.SIGTERM)
    assert _endpoints(here) == []
