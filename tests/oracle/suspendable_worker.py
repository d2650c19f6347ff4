"""A worker that stands still at a named point, in the middle of its work, as a suspended machine does.

Started as ``celery -A oracle.suspendable_worker worker``. The folder that ``ORACLE_POINTS`` names says where: the first
worker that comes to a point of which a file lies there takes the file for itself, adding its process id, and stops.
Whoever put the file there lets the worker go on by removing it and sending SIGCONT.
"""

from __future__ import annotations

import os
import re
import signal
import time
from functools import partial
from pathlib import Path

from knocktwice_worker.celery import app
from support.killable_worker import LATER, POINTS, arm

__all__ = ["NAMES", "app", "file_of"]

#: Every point by name.
NAMES = [*POINTS, *LATER]


def file_of(folder: Path, point: str) -> Path:
    """Return the file whose presence asks for a stop at this point."""
    return folder / re.sub(r"\W+", "-", point)


def _stand_still(asked: Path) -> None:
    mine = asked.with_name(f"{asked.name}.{os.getpid()}")
    try:
        asked.rename(mine)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)
    # A process runs on for some microseconds after it has stopped itself.
    while mine.exists():
        time.sleep(0.005)


if "ORACLE_POINTS" in os.environ:
    for point in NAMES:
        arm(point, partial(_stand_still, file_of(Path(os.environ["ORACLE_POINTS"]), point)))
