"""The class of all our tasks: a running task is shown with ids and counts, never with its arguments.

``celery inspect`` and Flower ask workers for their tasks. Without this class they would get the real arguments, and
with them the phone numbers and texts of a producer's message.
"""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.worker.request import Request


class DiscreetRequest(Request):
    """A task's request that always describes itself by the ``argsrepr`` it was published with."""

    def info(self, safe: bool = False) -> Any:
        """Return the description that ``inspect active`` and ``inspect reserved`` show."""
        return {**super().info(safe=True), "args": self._shown(self._argsrepr), "kwargs": self._shown(self._kwargsrepr)}

    def _shown(self, text: object) -> object:
        # A foreign client's message may have no description, and its arguments may be personal data. Show neither.
        return text if isinstance(text, str) else "…"


class DiscreetTask(Task):
    """The class of all our tasks."""

    Request = "knocktwice_worker.runtime.private_task:DiscreetRequest"
