"""``knocktwice up`` in a home of its own, as a newcomer starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil

from support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

KNOCKTWICE = [sys.executable, "-m", "knocktwice_worker.cli"]


class Stack:
    """One ``knocktwice up`` in a home of its own."""

    def __init__(self, home: Path, **environment: str) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("KNOCKTWICE_", "TWILIO_", "GOOGLE_"))}
        self.home = home
        self.environment = {**inherited, "KNOCKTWICE_HOME": str(home), "COLUMNS": "400", "NO_COLOR": "1"}
        self.environment |= environment
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
