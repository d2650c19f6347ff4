"""Servers that hang: they take connections and never answer, as after SIGSTOP or on a disk that stands still."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.server import Server


@contextmanager
def hanging(*servers: Server) -> Iterator[None]:
    """Stop servers and all their processes for the block."""
    with ExitStack() as resumed:
        for server in servers:
            parent = psutil.Process(server.pid)
            # The parent first, and it goes on last: meanwhile it starts no new child,
            # and one that ends can still be signalled, as nobody waits for it.
            parent.suspend()
            resumed.callback(parent.resume)
            for child in parent.children(recursive=True):
                child.suspend()
                resumed.callback(child.resume)
        yield
