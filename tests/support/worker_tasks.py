"""The work of a worker's tasks, done in this process: one message, or all that is due."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from knocktwice_shared.names import Task
from knocktwice_worker.runtime.dispatcher import dispatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.services import Services


def perform(here: Services, task: Task, ids: Sequence[str]) -> None:
    """Do what a worker does with a message, and what follows from it."""
    follow = partial(perform, here)
    match task:
        case Task.RESUME_PUSH:
            here.pushes.resume(ids)
        case Task.CHECK_FALLBACK:
            here.later_steps.send(here.fallback.check(ids))
        case Task.SEND_SMS:
            here.later_steps.send(ids)
        case Task.RECONCILE:
            here.reconcile.resolve(ids)
        case Task.EXPAND_BLAST:
            for id_ in ids:
                here.expansion.step(id_, follow)
        case Task.SEND_PAGE:
            for id_ in ids:
                here.expansion.send_page(id_, follow)
        case _:
            raise AssertionError(task)


def work(here: Services) -> None:
    """Do what is due until nothing is."""
    here.expansion.ring(partial(perform, here))
    while dispatch(here, partial(perform, here)):
        here.expansion.ring(partial(perform, here))
