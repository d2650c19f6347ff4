"""Long work shows on a terminal how far it has come, and says nothing of it in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from knocktwice_worker.config import Settings

COMMAND = [sys.executable, "-m", "knocktwice_worker.cli", "opt-out", "import"]


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    file = tmp_path / "numbers.csv"
    file.write_text("number\n" + "".join(f"+1650555{n:04}\n" for n in range(1_200)))
    return file


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    ours = {"KNOCKTWICE_DATABASE_URL": str(settings.database_url), "KNOCKTWICE_BROKER_URL": str(settings.broker_url)}
    return {**os.environ, **ours, "TERM": "xterm", "KNOCKTWICE_HOME": str(settings.home)}


def test_a_terminal_sees_how_far_an_import_is(numbers: Path, environment: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run([*COMMAND, str(numbers)], env=environment, stdout=subprocess.PIPE, stderr=theirs, check=True)
    os.close(theirs)
    shown = _all(ours)
    assert "reading" in shown
    assert "/1201" in shown
    assert done.stdout.decode().startswith("1,200 rows: 1200 added")


def test_a_pipe_gets_only_the_result(numbers: Path, environment: dict[str, str]) -> None:
    done = subprocess.run([*COMMAND, str(numbers)], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def _all(terminal: int) -> str:
    said = b""
    while True:
        try:
            said += os.read(terminal, 65_536)
        except OSError:
            # The other end was closed.
            return said.decode()
