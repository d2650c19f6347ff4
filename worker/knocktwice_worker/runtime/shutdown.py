"""The end of a worker: it finishes its tasks, but only for so long.

After SIGTERM Celery waits for running tasks without a limit, and a task may wait for a server that hangs. A worker may
end at any line without a loss, so it ends itself before whoever sent the signal would have to kill it.
"""

from __future__ import annotations

import os
import threading
from typing import NoReturn

import structlog

log = structlog.get_logger(__name__)


def end_within(grace_s: float) -> None:
    """End this process after so many seconds, if it has not ended by then."""
    timer = threading.Timer(grace_s, _give_up, [grace_s])
    timer.daemon = True
    timer.start()


def _give_up(grace_s: float) -> NoReturn:
    log.warning("tasks were left to other workers; the grace of the shutdown is over", grace_s=grace_s)
    os._exit(0)
