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

#: Seconds that RabbitMQ has to take and to confirm a message; Redis confirms by its answer. What was not confirmed is
#: published again: a row when its lease is over, a message when its grace is.
BOUNDS = {"timeout": 5, "confirm_timeout": 5}

#: The kind of a task's ids, for tasks whose ids are not those of notifications.
_SHOWN = {Task.EXPAND_BLAST: "blasts", Task.SEND_PAGE: "pages"}


def publish(app: Celery, task: Task, ids: Sequence[str]) -> None:
    """Publish a task for ids. Flower and the logs show the number of ids, their kind, and the first one."""
    shown = f"({len(ids)} {_SHOWN.get(task, 'notifications')}: {ids[0]}{', …' if len(ids) > 1 else ''},)"
    app.send_task(task.value, args=[list(ids)], task_id=str(uuid4()), argsrepr=shown, kwargsrepr="{}", **BOUNDS)


def publish_message(app: Celery, task: Task, message: object, message_id: str, *, again: bool = True) -> None:
    """Publish a producer's message under its own id.

    Args:
        again: it was published before, so a worker may have died of it.
    """
    app.send_task(
        task.value,
        args=[message],
        task_id=message_id,
        argsrepr=f"({message_id} again,)" if again else f"({message_id},)",
        kwargsrepr="{}",
        headers={AGAIN: True} if again else {},
        **BOUNDS,
    )
