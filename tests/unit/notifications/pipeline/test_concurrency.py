"""Only so many threads do one thing at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from knocktwice_worker.notifications.pipeline.concurrency import at_most


def test_only_so_many_are_let_in_at_once() -> None:
    inside, most, lock, both = 0, 0, threading.Lock(), threading.Barrier(2)

    @at_most(2)
    def enter() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        both.wait(30)
        with lock:
            inside -= 1

    with ThreadPoolExecutor(40) as pool:
        for future in [pool.submit(enter) for _ in range(20)]:
            future.result(timeout=30)
    assert most == 2
