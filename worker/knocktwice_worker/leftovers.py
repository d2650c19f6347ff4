"""Servers of a supervisor that died: find them by the folder they work in, never by a number in a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from knocktwice_worker.children import StartFailed

#: How long to wait between two looks.
_GLANCE = timedelta(milliseconds=20)


def wait_until_gone(program: str, data: Path, *, stop: signal.Signals, limit: timedelta) -> None:
    """Wait until no process of this program works on this data, after asking the leading one to stop.

    On Linux the kernel has asked it already when its supervisor died, and this only waits. Other systems have no such thing.

    Args:
        program: the file name of the server's program.
        data: the server's data folder.
        stop: what asks the server to stop.
        limit: how long it may take.

    Raises:
        StartFailed: it did not stop in time; the message names the processes.
    """
    deadline = time.monotonic() + limit.total_seconds()
    asked = False
    while pids := list(_working_on(program, data)):
        if not asked:
            _ask(pids, stop)
            asked = True
        if time.monotonic() > deadline:
            numbers = ", ".join(str(pid) for pid in pids)
            raise StartFailed(program, f"of an earlier run still works on {data}, as process {numbers}: stop it first")
        time.sleep(_GLANCE.total_seconds())


def _ask(pids: list[int], stop: signal.Signals) -> None:
    """Signal the server and not its helpers, to whom the same signal may mean something else."""
    for pid in pids:
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == pid and _leads(pid, pids):
                os.kill(pid, stop)
