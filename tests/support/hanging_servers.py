"""Servers that hang: they take connections and never answer, as after SIGSTOP or on a disk that stands still."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.server import Server


@contextmanager
def hanging(*servers: Server) -> Iterator[None]:
    """Stop servers and all their processes for the block."""
    stopped = []
    for server in servers:
        parent = psutil.Process(server.pid)
        # The parent first, so that it starts no new child meanwhile.
        parent.suspend()
        stopped.append(parent)
        for child in parent.children(recursive=True):
            child.suspend()
            stopped.append(child)
    try:
        yield
    finally:
        for process in reversed(stopped):
            process.resume()
