"""``knocktwice up``: everything on one machine, and nothing left of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import psutil
import pytest

from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KNOCKTWICE = [sys.executable, "-m", "knocktwice_worker"]


class Stack:
    """One ``knocktwice up`` in a home of its own."""

    def __init__(self, home: Path) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KNOCKTWICE_", "TWILIO_", "GOOGLE_"))}
        self.environment = {**inherited, "KNOCKTWICE_HOME": str(home), "COLUMNS": "400", "NO_COLOR": "1"}
        self.flower, self.sandbox, self.gateway = free_port(), free_port(), free_port()
        self._output = home.with_suffix(".out")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        ports = ["--flower-port", str(self.flower), "--sandbox-port", str(self.sandbox)]
        ports += ["--gateway-port", str(self.gateway)]
        with self._output.open("ab") as output:
            return subprocess.Popen([*KNOCKTWICE, "up", *ports], env=self.environment, stdout=output, stderr=output)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*KNOCKTWICE, *arguments], env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def said(self) -> str:
        return self._output.read_text()

    def children(self, word: str = "") -> list[psutil.Process]:
        """Its processes whose command line has the word."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in found if word in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    built = Stack(tmp_path / "home")
    eventually(lambda: "Ctrl-C ends everything" in built.said(), why=built.said)
    yield built
    if built.process.poll() is None:
        built.process.kill()
    built.process.wait(60)


def test_everything_runs_and_nothing_is_left(stack: Stack) -> None:
    sent = stack.run(
        "notify", "--registration", "clicks-1", "--title", "Hello", "--body", "Knock", "--when", "not_clicked"
    )
    assert sent.returncode == 0, sent.stderr
    id_ = sent.stdout.strip()
    eventually(lambda: f"{id_} reached" in stack.run("status", id_).stdout, why=stack.said)
    # By the address in the push: the gateway has taken what the app reported.
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.sandbox}/sandbox/pushes", timeout=5) as answer:
        (pushed,) = json.load(answer)["pushes"]
    assert pushed["data"]["knocktwice_receipt"].startswith(f"http://127.0.0.1:{stack.gateway}/r/")
    assert {(report["kind"], report["answered"]) for report in pushed["reports"]} == {
        ("delivered", 204),
        ("clicked", 204),
    }
    eventually(lambda: _answers(f"http://127.0.0.1:{stack.flower}/healthcheck"), why=stack.said)
    eventually(lambda: _answers(f"http://127.0.0.1:{stack.gateway}/readyz"), why=stack.said)
    assert _answers(f"http://127.0.0.1:{stack.sandbox}/")

    (worker,) = stack.children("knocktwice_worker worker")
    worker.kill()
    eventually(lambda: stack.children("knocktwice_worker worker") not in ([], [worker]), why=stack.said)

    second = stack.start()
    assert second.wait(60) == 1
    assert "already run by process" in stack.said()
    assert "Traceback" not in stack.said()

    family = stack.children()
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(90) == 0
    assert not psutil.wait_procs(family, timeout=30)[1]


def test_nothing_outlives_a_kill(stack: Stack) -> None:
    eventually(lambda: len(stack.children("knocktwice_worker")) == 4, why=stack.said)
    family = stack.children()
    stack.process.kill()
    stack.process.wait(60)
    assert not psutil.wait_procs(family, timeout=60)[1]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own, on this machine
            return bool(answer.status == 200)
    except OSError:
        return False
