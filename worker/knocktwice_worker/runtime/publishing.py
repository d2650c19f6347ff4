"""Publishes our tasks in a way that Flower and the logs show counts and ids, and never the arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from knocktwice_shared.names import Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

#: The header of a message that was published before.
AGAIN = "knocktwice_again"
#: kombu's mark on a message that was delivered before, in the message's delivery information.
REDELIVERED = "redelivered"

#: The kind of a task's ids, for tasks whose ids are not those of notifications.
_SHOWN = {Task.EXPAND_BLAST: "blasts", Task.SEND_PAGE: "pages"}


def publish(app: Celery, task: Task, ids: Sequence[str]) -> None:
    """Publish a task for ids. Flower and the logs show the number of ids, their kind, and the first one."""
    shown = f"({len(ids)} {_SHOWN.get(task, 'notifications')}: {ids[0]}{', …' if len(ids) > 1 else ''},)"
    app.send_task(task.value, args=[list(ids)], task_id=str(uuid4()), argsrepr=shown, kwargsrepr="{}")


def publish_message(app: Celery, task: Task, message: object, message_id: str) -> None:
    """Publish a producer's message again under its own id."""
    app.send_task(
        task.value,
        args=[message],
        task_id=message_id,
        argsrepr=f"({message_id} again,)",
        kwargsrepr="{}",
        headers={AGAIN: True},
    )
