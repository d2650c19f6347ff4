"""Accepted messages, kept in Redis until their rows are in Postgres.

Celery on Redis can lose a message whatever its settings: it is popped before it is noted as unacknowledged. So the
producer leaves a copy here. Processing removes it; :meth:`Inbox.sweep` publishes the messages that stay. Ids make
repeats harmless.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from knocktwice_shared import subjects
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_FAILURES, INBOX_MESSAGES, INBOX_SUBJECTS, Task, key_name
from knocktwice_worker.notifications.inbox import dead_letters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis
    from sqlalchemy import Engine

log = structlog.get_logger(__name__)

#: After failing this often for a reason of its own (not an outage) a message is parked.
_MOST_FAILURES = 5
#: Messages published again per sweep.
_SWEEP_LIMIT = 100

# Takes the oldest overdue messages and counts their grace anew, by the clock of Redis, so that of many sweepers one
# wins.
_TAKE = """
local now = redis.call('TIME')[1] + 0
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])
local out = {}
for _, id in ipairs(ids) do
  local message = redis.call('HGET', KEYS[2], id)
  if message then
    redis.call('ZADD', KEYS[1], now, id)
    out[#out + 1] = id
    out[#out + 1] = message
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return out
"""


#: Errors of a server that is away. They say nothing about a message, so they do not count against it.
OUTAGES = (OperationalError, InterfaceError, ConnectionError, TimeoutError)


class NotDoneYet(Exception):
    """What a message asks for has begun to hold and is not finished: the message stays in the inbox and comes again."""


class Work(Protocol):
    """Does what messages of one task ask for, and commits it."""

    def __call__(self, messages: Sequence[object], /) -> None:
        """Do it. Safe to repeat, also in parts.

        Raises:
            InvalidMessage: the contract refuses a message.
            NotDoneYet: part of it is left for another time.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """The accepted messages of one installation.

    Attributes:
        redis: where they wait.
        engine: where a message is parked that cannot be processed.
        grace_s: seconds that a message may wait for its worker before :meth:`sweep` publishes it again.
    """

    redis: Redis
    engine: Engine
    grace_s: float

    def carry_out(self, task: Task, message_id: str, message: object, work: Work) -> None:
        """Do what one message asks for, and remove it. One that the contract refuses, or that keeps failing, is parked.

        Raises:
            Exception: it failed; it stays in the inbox.
        """
        try:
            work([message])
        except NotDoneYet:
            # What it says holds already: no decision has to wait for the rest.
            self._remove([], _members(task, message_id, message))
            log.info("message stays in the inbox until it is done", task=task.value, message_id=message_id)
        except InvalidMessage as error:
            log.warning("message parked", task=task.value, message_id=message_id, field=error.field)
            self.park(message_id, task.value, str(error), message)
        except OUTAGES:
            raise
        except Exception as error:
            self.failed(message_id, task.value, type(error).__name__, message)
            raise
        else:
            self.done(task, [(message_id, message)])

    def done(self, task: Task, messages: Sequence[tuple[str, object]]) -> None:
        """Forget messages whose rows are committed, given as ``(id, message)``."""
        members = [member for id_, message in messages for member in _members(task, id_, message)]
        self._remove([id_ for id_, _ in messages], members)

    def remove(self, message_id: str) -> None:
        """Forget a message of which only the id is known."""
        self._remove([message_id], [])

    def _remove(self, message_ids: Sequence[str], members: Sequence[str]) -> None:
        pipe = self.redis.pipeline()
        # First, so that whoever looks for a message by its subject finds it whole or not at all.
        if members:
            pipe.zrem(INBOX_SUBJECTS, *members)
        if message_ids:
            pipe.hdel(INBOX_MESSAGES, *message_ids)
            pipe.zrem(INBOX_ACCEPTED, *message_ids)
            pipe.hdel(INBOX_FAILURES, *message_ids)
        pipe.execute()

    def ids_of(self, keys: Sequence[str]) -> list[str]:
        """Return the notification ids that producers used these idempotency keys for, as far as Redis remembers.

        A notification whose message still waits in its queue is known here and not yet in Postgres.
        """
        found = self.redis.mget([key_name(key) for key in keys]) if keys else []
        return [value.decode() for value in found if isinstance(value, bytes)]

    def park(self, message_id: str, task: str, reason: str, message: object) -> None:
        """Move a message that cannot be processed to the dead-letter table."""
        payload = json.dumps(message, default=str)
        with self.engine.begin() as conn:
            dead_letters.park(conn, message_id=message_id, task=task, reason=reason, payload=payload)
        self._remove([message_id], _members(task, message_id, message))

    def failed(self, message_id: str, task: str, reason: str, message: object) -> None:
        """Note that processing failed for a reason of the message's own; park it when that keeps happening."""
        failures = self.redis.hincrby(INBOX_FAILURES, message_id, 1)
        if int(failures) >= _MOST_FAILURES:
            self.park(message_id, task, f"failed {failures} times: {reason}", message)

    def sweep(self, publish: Callable[[Task, object, str], None]) -> int:
        """Publish accepted messages again that nobody has processed within the grace.

        Args:
            publish: called with task, message and message id.

        Returns:
            How many were published.
        """
        taken = self.redis.eval(_TAKE, 2, INBOX_ACCEPTED, INBOX_MESSAGES, self.grace_s, _SWEEP_LIMIT)
        pairs = list(zip(taken[::2], taken[1::2], strict=True))
        for id_, raw in pairs:
            try:
                entry = json.loads(raw)
                task, message = Task(entry["task"]), entry["message"]
            except (ValueError, KeyError, TypeError) as error:
                # Written by hand or by a newer producer; it must not hold up the others.
                reason = f"inbox entry cannot be read: {type(error).__name__}"
                self.park(id_.decode(), "", reason, raw.decode(errors="replace"))
                continue
            publish(task, message, id_.decode())
        if pairs:
            log.warning("messages swept from the inbox", messages=len(pairs))
        return len(pairs)


def _members(task: str, message_id: str, message: object) -> list[str]:
    """Return a message's entries among the subjects; none of one that cannot be read, whose entries go when they are found."""
    try:
        return [f"{subject}\n{message_id}" for subject in subjects.of(Task(task), message)]  # type: ignore[arg-type]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
