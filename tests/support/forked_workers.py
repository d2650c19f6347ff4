"""Workers that start in a fraction of a second, for tests that kill many: forked from a process that has loaded the
libraries.

Each is a process of its own with the settings it is given, as ``celery -A knocktwice_worker worker`` would start it.
Only what it does beside its tasks is in a hurry: it counts and tells again at once, so that kills hit that, too.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path
    from typing import Self

#: All that takes long to load, and nothing that reads settings.
_LOADED = [
    "celery.apps.worker",
    "celery.bin.worker",
    "celery.concurrency.thread",
    "knocktwice_worker.runtime.background",
    "knocktwice_worker.blasts.schedules",
    "knocktwice_worker.notifications.store.provider_reports",
    "knocktwice_worker.notifications.pipeline.delivery_reports",
    "knocktwice_worker.runtime.dispatcher",
    "knocktwice_worker.notifications.pipeline.fallback",
    "knocktwice_worker.notifications.pipeline.fallback_gates",
    "knocktwice_worker.notifications.pipeline.fallback_texts",
    "knocktwice_worker.notifications.pipeline.push",
    "knocktwice_worker.notifications.pipeline.push_delivery",
    "knocktwice_worker.notifications.pipeline.push_texts",
    "knocktwice_worker.notifications.pipeline.receipts",
    "knocktwice_worker.notifications.pipeline.reconcile",
    "knocktwice_worker.privacy.retention",
    "knocktwice_worker.notifications.pipeline.later_claims",
    "knocktwice_worker.notifications.pipeline.later_steps",
    "knocktwice_worker.notifications.pipeline.withdraw",
    "pytest",
]


class ForkedWorkers:
    """Forks workers that all have one environment."""

    def __init__(self, environment: dict[str, str], home: Path) -> None:
        self._environment = environment
        self._home = home
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_LOADED)
        self._forked: list[ForkedWorker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._forked:
            worker.kill()

    def fork(self) -> ForkedWorker:
        """Start a worker; it need not be ready yet."""
        number = len(self._forked) + 1
        log = self._home / f"forked-{number}.log"
        self._forked.append(ForkedWorker(self._context, self._environment, log, f"h{number}@test"))
        return self._forked[-1]


class ForkedWorker:
    """A worker that waits to be killed."""

    def __init__(
        self, context: multiprocessing.context.ForkServerContext, environment: dict[str, str], log: Path, name: str
    ) -> None:
        self._log = log
        self._process: BaseProcess = context.Process(target=_work, args=(environment, str(log), name), daemon=True)
        self._process.start()

    @property
    def ready(self) -> bool:
        """Whether it takes work; fails if it died by itself."""
        assert self._process.is_alive(), self.log()
        return "ready" in self.log()

    def kill(self) -> None:
        """End it as ``kill -9`` would, if it has not ended yet."""
        self._process.kill()
        self._process.join()

    def log(self) -> str:
        """Return what it wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def _end_with_the_test() -> None:
    test = multiprocessing.parent_process()
    if test is not None:
        test.join()
    os._exit(1)


def _work(environment: dict[str, str], log: str, name: str) -> None:
    threading.Thread(target=_end_with_the_test, daemon=True).start()
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.clear()
    os.environ.update(environment)
    from knocktwice_worker.celery import app
    from knocktwice_worker.reporting import rollups
    from knocktwice_worker.runtime import background
    from knocktwice_worker.webhooks import sending

    background._COUNT_EVERY_S = background._WEBHOOKS_EVERY_S = 0.1
    background._REST = 1
    rollups.SOONEST = rollups.LATEST = timedelta()
    sending._LEASE = timedelta(seconds=3)
    app.worker_main(["worker", "-n", name, "--without-gossip", "--without-mingle", "--loglevel", "info"])
