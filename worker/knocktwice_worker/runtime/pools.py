"""Celery's worker pools: which of them can run our tasks."""

from __future__ import annotations

import sys
from typing import Any

from celery.concurrency import get_implementation

#: Pools that work: threads, and one task at a time, which is slow but easy to debug.
_FIT = ("threads", "solo")
_WHY = {
    "prefork": "its children would each gather, send and connect for themselves",
    "processes": "its children would each gather, send and connect for themselves",
    "gevent": "the driver of PostgreSQL and libcurl block its loop",
    "eventlet": "the driver of PostgreSQL and libcurl block its loop",
}


def refuse_unfit(pool: Any) -> None:
    """End the process with a sentence if tasks cannot run in this pool.

    Args:
        pool: the class that Celery chose, or its name.
    """
    # Celery takes a typed "prefork" for its own default and starts what the application is configured for.
    typed = {word for word in sys.argv if word.removeprefix("--pool=").removeprefix("-P") == "prefork"}
    chosen = "prefork" if typed else _name(pool)
    if chosen not in _FIT:
        why = _WHY.get(chosen, "nobody has tried it")
        sys.exit(
            f"knocktwice's tasks do not run in the pool {chosen}: {why}. Leave --pool out (threads), or take --pool=solo "
            "for debugging; more cores are used by starting more workers"
        )


def _name(pool: Any) -> str:
    if isinstance(pool, str):
        return pool
    module = str(pool.__module__).rpartition(".")[2]
    for name in _FIT:
        if issubclass(pool, get_implementation(name)):
            return name
    return module
