"""A worker that certain messages end as ``kill -9`` would: ``celery -A support.poisoned_worker worker``.

It dies of a batch whose push has the title :data:`~support.poison.POISON`, and of a receipt of a device of that name. A
test that imported this module would break its own process.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from knocktwice_worker.celery import app
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.services.accepted_work import AcceptedWork
from support.poison import POISON

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["app"]

_push_batches = AcceptedWork.push_batches
_record = receipts.record


def _push_or_die(self: AcceptedWork, messages: Sequence[object]) -> None:
    if POISON in str(messages):
        os.kill(os.getpid(), signal.SIGKILL)
    _push_batches(self, messages)


def _record_or_die(engine: object, events: Sequence[object]) -> None:
    if POISON in str(events):
        os.kill(os.getpid(), signal.SIGKILL)
    _record(engine, events)  # type: ignore[arg-type]


AcceptedWork.push_batches = _push_or_die  # type: ignore[method-assign]
receipts.record = _record_or_die  # type: ignore[assignment]
