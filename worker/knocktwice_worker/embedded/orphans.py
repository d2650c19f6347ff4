"""Servers of a supervisor that died: find them by the data they work on, never by a number in a file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from knocktwice_worker.embedded.children import StartFailed

if TYPE_CHECKING:
    import signal

#: The wait between two checks.
GLANCE = timedelta(milliseconds=20)


def wait_until_gone(program: str, data: Path, *, stop: signal.Signals, limit: timedelta) -> None:
    """Wait until no process of this program works on this data.

    On Linux the kernel asked the server to stop when its supervisor died. Elsewhere nobody did, so it is asked here.

    Args:
        program: the file name of the server's program.
        data: the server's data folder.
        stop: what asks the server to stop.
        limit: how long it may take.

    Raises:
        StartFailed: it did not stop in time; the message names the processes.
    """
    linux = sys.platform == "linux"
    find = find_in_proc if linux else find_by_ps
    pids = find(program, data)
    if not linux:
        for pid in pids:
            os.kill(pid, stop)
    deadline = time.monotonic() + limit.total_seconds()
    while pids:
        if time.monotonic() > deadline:
            numbers = ", ".join(str(pid) for pid in pids)
            raise StartFailed(program, f"of an earlier run still works on {data} (process {numbers}): stop it first")
        time.sleep(GLANCE.total_seconds())
        pids = find(program, data)


def find_in_proc(program: str, data: Path) -> list[int]:
    """Return the server's processes, helpers included: each has the data folder as its working folder."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _works_on(entry, program, data)]


def find_by_ps(program: str, data: Path) -> list[int]:
    """Return the server's leading process: its command line names the data folder, and those of its helpers do not."""
    table = subprocess.run(
        ["/bin/ps", "-axww", "-o", "pid=,command="], capture_output=True, text=True, check=True
    ).stdout
    rows = (line.split(maxsplit=1) for line in table.splitlines())
    return [int(row[0]) for row in rows if len(row) == 2 and program in row[1] and str(data) in row[1].split()]


def _works_on(entry: Path, program: str, data: Path) -> bool:
    try:
        arguments = [os.fsdecode(argument) for argument in (entry / "cmdline").read_bytes().split(b"\0")]
        names = {Path(argument).name for argument in arguments if argument != str(data)}
        # A shell with that working folder is not a server; a launcher that is about to become one is.
        if program not in names and (entry / "comm").read_text().strip() != program:
            return False
        # The command line is for all to read; the working folder is not, not even for root in a container.
        return str(data) in arguments or (entry / "cwd").readlink() == data
    except OSError:
        # It has just ended, or it is not ours to look at and so not ours at all.
        return False
