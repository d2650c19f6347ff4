"""A message in the envelope a Celery worker opens: task protocol 2, as Celery's own ``as_task_v2`` writes it."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from knocktwice_shared import subjects
from knocktwice_shared.names import ROUTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from knocktwice_shared.names import Queue, Task

_HOST = socket.gethostname()
_json = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))
_EMBED = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A checked message on its way out.

    Args:
        id: the message's id, which becomes the Celery task's.
        task: who gets it.
        message: the contract's JSON, encoded once for both the inbox and the queue.
        summary: what Flower and logs may show of it, such as ``3 notifications``.
        subjects: whom it is about, if a decision about them has to wait for it.
    """

    id: UUID
    task: Task
    message: str
    summary: str
    subjects: Sequence[str] = ()

    @classmethod
    def encode(cls, id_: UUID, task: Task, wire: dict[str, Any], summary: str) -> Outgoing:
        """Encode a message that ``parse_*`` has accepted."""
        return cls(id_, task, _json(wire), summary, subjects.of(task, wire))

    @property
    def queue(self) -> Queue:
        """The queue in which it waits for a worker."""
        return ROUTES[self.task]

    def inbox_entry(self) -> str:
        """Return what the inbox keeps: enough to publish the message again."""
        return f'{{"task":"{self.task}","message":{self.message}}}'

    def body(self) -> str:
        """Return Celery's ``[args, kwargs, embed]`` with the message as the only argument."""
        return f"[[{self.message}],{{}},{_EMBED}]"

    def queued(self) -> str:
        """Return what kombu's Redis transport would put on the queue.

        Its body is the text as it is. kombu would write it in Base64, which is for bodies that are no text.
        """
        return _json(
            {
                "body": self.body(),
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "headers": self.headers(),
                "properties": {
                    "correlation_id": str(self.id),
                    "reply_to": "",
                    "delivery_mode": 2,
                    "delivery_info": {"exchange": "", "routing_key": str(self.queue)},
                    "priority": 0,
                    "body_encoding": None,
                    "delivery_tag": str(uuid4()),
                },
            }
        )

    def headers(self) -> dict[str, Any]:
        """Return Celery's headers. They are shown by Flower, events and logs, so they name ids and counts only."""
        id_ = str(self.id)
        return {
            "lang": "py",
            "task": str(self.task),
            "id": id_,
            "root_id": id_,
            "parent_id": None,
            "group": None,
            "group_index": None,
            "shadow": None,
            "eta": None,
            "expires": None,
            "retries": 0,
            "timelimit": [None, None],
            "argsrepr": f"('{id_} {self.summary}',)",
            "kwargsrepr": "{}",
            "origin": f"{os.getpid()}@{_HOST}",
            "ignore_result": True,
            "replaced_task_nesting": 0,
            "stamped_headers": None,
            "stamps": {},
        }
