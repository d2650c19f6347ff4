"""Accepted messages, kept in Redis until their rows are in Postgres.

Celery on Redis can lose a message whatever its settings: the message is taken from the queue before it is noted as
unacknowledged. So the producer leaves a copy in the inbox. Processing removes the copy, and :meth:`Inbox.sweep`
publishes the messages of remaining copies again. Ids make repeats harmless.
"""

from __future__ import annotations

import json
import math
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError

from knocktwice_shared import subjects
from knocktwice_shared.counted import many
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import (
    BACKLOG_BYTES,
    BACKLOG_MESSAGES,
    INBOX_ACCEPTED,
    INBOX_BACKLOG,
    INBOX_BEGUN,
    INBOX_FAILURES,
    INBOX_MESSAGES,
    INBOX_SUBJECTS,
    ROUTES,
    Queue,
    Task,
    key_name,
)
from knocktwice_worker.notifications.inbox import dead_letters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis
    from sqlalchemy import Engine

    from knocktwice_worker.queues.lengths import Lengths

log = structlog.get_logger(__name__)

#: Failures after which a message is parked. Outages of a server do not count.
_MOST_FAILURES = 5
#: Workers that may end while they work on a message that came again; then the message is parked.
_MOST_ENDS = 4
#: Tasks of producers' messages. All others are about rows, which ring again by themselves.
_REPLAYED = frozenset({Task.SEND_PUSH, Task.RECORD_EVENTS, Task.CANCEL, Task.UPDATE_AUDIENCE, Task.BLAST})
#: The most messages published per sweep.
SWEEP_LIMIT = 100
#: Messages in a queue behind which nothing is published again: most of it still waits there, and the rest would only
#: make the queue longer.
_LONG = 1_000

# Takes the oldest overdue messages and restarts their grace by the clock of Redis, so that only one of several sweepers
# takes a message.
# It also writes the limits of the backlog to where the accepting script reads them.
_TAKE = """
local limits = redis.call('HMGET', KEYS[3], 'messages', 'bytes')
if limits[1] ~= ARGV[3] or limits[2] ~= ARGV[4] then
  redis.pcall('HSET', KEYS[3], 'messages', ARGV[3], 'bytes', ARGV[4])
end
local now = redis.call('TIME')[1] + 0
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local out = {}
for i = 1, #found, 2 do
  local id = found[i]
  local message = redis.call('HGET', KEYS[2], id)
  if message then
    redis.call('ZADD', KEYS[1], now, id)
    out[#out + 1] = id
    out[#out + 1] = message
    out[#out + 1] = found[i + 1]
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return out
"""

# Removes messages and counts their bytes down. A broker whose memory is full refuses HINCRBY; then the count is too
# high until the inbox is empty, and no removal is lost.
_FORGET = """
local freed = 0
for _, id in ipairs(ARGV) do
  freed = freed + redis.call('HSTRLEN', KEYS[1], id)
  redis.call('HDEL', KEYS[1], id)
end
if redis.call('HLEN', KEYS[1]) == 0 then
  redis.call('HDEL', KEYS[2], 'used')
elseif freed > 0 then
  local left = redis.pcall('HINCRBY', KEYS[2], 'used', -freed)
  if type(left) == 'number' and left < 0 then redis.call('HDEL', KEYS[2], 'used') end
end
return freed
"""


# Notes that work on a message begins, and returns how often it was begun and never ended, and whether the inbox still
# has it. Beginnings within one grace count once, because several workers may try a message at the same time.
_BEGIN = """
local now = redis.call('TIME')[1] + 0
local count, at = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (%d+)$')
count = tonumber(count or 0)
if count == 0 or now - at >= tonumber(ARGV[2]) then
  count = count + 1
  redis.call('HSET', KEYS[1], ARGV[1], count .. ' ' .. now)
end
return {count, redis.call('HEXISTS', KEYS[2], ARGV[1])}
"""


# Notes that work begins on messages that were never begun before, and that the inbox still has, and returns these.
_BEGIN_AGAIN = """
local now = redis.call('TIME')[1] + 0
local fit = {}
for _, id in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1], id) == 0 and redis.call('HEXISTS', KEYS[2], id) == 1 then
    redis.call('HSET', KEYS[1], id, '1 ' .. now)
    fit[#fit + 1] = id
  end
end
return fit
"""


#: Errors of a server that does not answer. The message did not cause them, so they are not counted as its failures.
OUTAGES = (OperationalError, InterfaceError, ConnectionError, TimeoutError)


class NotDoneYet(Exception):
    """A message's effect is visible but not complete. The message stays in the inbox and comes again."""


class Work(Protocol):
    """Carries out messages of one task, and commits the result."""

    def __call__(self, messages: Sequence[object], /) -> None:
        """Carry out messages. A repeat is safe, also of a part of them.

        Raises:
            InvalidMessage: a message violates the contract.
            NotDoneYet: a part of the work is left for another run.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """The accepted messages of one installation.

    Attributes:
        redis: keeps the messages.
        queues: from which workers take them.
        engine: opens the transaction that parks a message.
        grace_s: seconds that a message may wait for its worker before :meth:`sweep` publishes it again.
        most_messages: the most messages that may wait; the accepting script refuses more.
        most_bytes: the most bytes of messages that may wait.
    """

    redis: Redis
    queues: Lengths
    engine: Engine
    grace_s: float
    most_messages: int = BACKLOG_MESSAGES
    most_bytes: int = BACKLOG_BYTES
    _one_suspect: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def carry_out(self, task: Task, message_id: str, message: object, work: Work, *, came_again: bool = False) -> None:
        """Carry out one message, and remove it. A message that violates the contract or keeps failing is parked.

        A message that came again may be the one that ended its worker, so each try is noted before it begins. Messages
        whose work was begun like this and never ended are carried out one at a time; after too many tries that never
        ended a message is parked.

        Args:
            came_again: the message was delivered or published before.

        Raises:
            Exception: the work failed. The message stays in the inbox.
        """
        if not came_again or self.begin_again([message_id]):
            self._carry_out(task, message_id, message, work)
            return
        with self._one_suspect:
            keys = (INBOX_BEGUN, INBOX_MESSAGES)
            begun, waits = self.redis.eval(_BEGIN, 2, *keys, message_id, math.ceil(self.grace_s))
            if not waits and self._is_parked(message_id):
                # A copy that was still in a queue when its message was parked would end one more worker.
                self.has_ended([message_id])
                log.info("copy of a parked message dropped", task=task.value, message_id=message_id)
                return
            if begun > _MOST_ENDS:
                log.error("message parked", task=task.value, message_id=message_id, reason="its workers ended")
                self.park(
                    message_id, task.value, f"ended its worker each time it was tried: {many(begun, 'time')}", message
                )
                return
            self._carry_out(task, message_id, message, work)

    def begin_again(self, message_ids: Sequence[str]) -> list[str]:
        """Note that work on messages that came again begins, and return the ids of those that may be carried out together.

        A message whose work was begun like this and never ended is not among them, nor one that the inbox does not have.

        Raises:
            RedisError: nothing can be noted.
        """
        fit = self.redis.eval(_BEGIN_AGAIN, 2, INBOX_BEGUN, INBOX_MESSAGES, *message_ids)
        return [id_.decode() for id_ in fit]

    def _is_parked(self, message_id: str) -> bool:
        with self.engine.connect() as conn:
            return dead_letters.is_parked(conn, message_id)

    def has_ended(self, message_ids: Sequence[str]) -> None:
        """Note that work on these messages has ended, so that no worker died of them."""
        with suppress(RedisError):
            self.redis.hdel(INBOX_BEGUN, *message_ids)

    def _carry_out(self, task: Task, message_id: str, message: object, work: Work) -> None:
        try:
            work([message])
        except NotDoneYet:
            self.has_ended([message_id])
            # The message's effect is visible already, so no decision has to wait for the rest: remove its subjects.
            self._remove([], _members(task, message_id, message))
            log.info("message stays in the inbox until it is done", task=task.value, message_id=message_id)
        except InvalidMessage as error:
            log.warning("message parked", task=task.value, message_id=message_id, field=error.field)
            self.park(message_id, task.value, str(error), message)
        except OUTAGES:
            self.has_ended([message_id])
            raise
        except Exception as error:
            self.has_ended([message_id])
            self.failed(message_id, task.value, type(error).__name__, message)
            raise
        else:
            self.done(task, [(message_id, message)])

    def done(self, task: Task, messages: Sequence[tuple[str, object]]) -> None:
        """Remove messages whose rows are committed, given as ``(id, message)``."""
        members = [member for id_, message in messages for member in _members(task, id_, message)]
        self._remove([id_ for id_, _ in messages], members)

    def remove(self, message_id: str) -> None:
        """Remove a message of which only the id is known."""
        self._remove([message_id], [])

    def _remove(self, message_ids: Sequence[str], members: Sequence[str]) -> None:
        pipe = self.redis.pipeline()
        # The subjects are removed first, so that a search by subject finds a message either complete or not at all.
        if members:
            pipe.zrem(INBOX_SUBJECTS, *members)
        if message_ids:
            pipe.eval(_FORGET, 2, INBOX_MESSAGES, INBOX_BACKLOG, *message_ids)
            pipe.zrem(INBOX_ACCEPTED, *message_ids)
            pipe.hdel(INBOX_FAILURES, *message_ids)
            pipe.hdel(INBOX_BEGUN, *message_ids)
        pipe.execute()

    def ids_of(self, keys: Sequence[str]) -> list[str]:
        """Return the notification ids for which producers used these idempotency keys, if Redis still has them.

        Redis knows a notification whose message still waits in its queue; Postgres does not know it yet.

        Args:
            keys: as :func:`~knocktwice_shared.names.scoped` returns them.
        """
        found = self.redis.mget([key_name(key) for key in keys]) if keys else []
        # Behind the id stands a digest of what the notification says.
        return [value.decode().partition(" ")[0] for value in found if isinstance(value, bytes)]

    def park(self, message_id: str, task: str, reason: str, message: object) -> None:
        """Move a message that cannot be processed to the dead-letter table."""
        payload = json.dumps(message, default=str)
        with self.engine.begin() as conn:
            dead_letters.park(conn, message_id=message_id, task=task, reason=reason, payload=payload)
        self._remove([message_id], _members(task, message_id, message))

    def replay(self, parked: dead_letters.Parked) -> Task:
        """Hand a parked message to the workers once more, and return its task. A repeat is harmless, as of any message.

        Raises:
            InvalidMessage: nobody could process it: it is not JSON, or no message of a producer.
        """
        try:
            task, message = Task(parked.task or ""), parked.message()
        except ValueError:
            raise InvalidMessage("message", f"{parked.id} is no readable message of a known task; drop it") from None
        if task not in _REPLAYED:
            raise InvalidMessage("message", f"{parked.id} is work of our own, which comes again by itself; drop it")
        id_, entry = parked.message_id or str(uuid7()), json.dumps({"task": task, "message": message})
        now = self.redis.time()[0]
        pipe = self.redis.pipeline()
        pipe.hset(INBOX_MESSAGES, id_, entry)
        pipe.hincrby(INBOX_BACKLOG, "used", len(entry.encode()))
        # Older than the grace, so the next sweep of a worker publishes it.
        pipe.zadd(INBOX_ACCEPTED, {id_: now - math.ceil(self.grace_s) - 1})
        pipe.execute()
        # The row goes last: a process that dies in between has handed it over, and leaves a row that may go again.
        with self.engine.begin() as conn:
            dead_letters.drop(conn, parked.id)
        return task

    def failed(self, message_id: str, task: str, reason: str, message: object) -> None:
        """Count a failure that is the message's own fault; park the message after too many failures."""
        failures = self.redis.hincrby(INBOX_FAILURES, message_id, 1)
        if int(failures) >= _MOST_FAILURES:
            self.park(message_id, task, f"failed {many(failures, 'time')}: {reason}", message)

    def sweep(
        self,
        publish: Callable[[Task, object, str], None],
        begin: Callable[[Task, object, str], None] | None = None,
    ) -> int:
        """Publish accepted messages that no worker has processed within the grace.

        Args:
            publish: called with task, message and message id of a message that was published before.
            begin: likewise, of a message that no queue is known to have had: its producer scored it with 0. No worker
                can have died of it. Left out, ``publish``.

        Returns:
            The number of messages published; after :data:`SWEEP_LIMIT` there may be more.
        """
        keys = [INBOX_ACCEPTED, INBOX_MESSAGES, INBOX_BACKLOG]
        limits = [self.most_messages, self.most_bytes]
        taken = self.redis.eval(_TAKE, len(keys), *keys, self.grace_s, SWEEP_LIMIT, *limits)
        found = list(zip(taken[::3], taken[1::3], taken[2::3], strict=True))
        long = self._long_queues() if found else set()
        published = 0
        for id_, raw, score in found:
            try:
                entry = json.loads(raw)
                task, message = Task(entry["task"]), entry["message"]
            except (ValueError, KeyError, TypeError) as error:
                # The entry was written by hand or by a newer producer. Park it, so that it does not block the others.
                reason = f"inbox entry cannot be read: {type(error).__name__}"
                self.park(id_.decode(), "", reason, raw.decode(errors="replace"))
                continue
            if float(score) == 0:
                # It waits in no queue, however long the queue is.
                (begin or publish)(task, message, id_.decode())
                published += 1
            elif ROUTES[task] not in long:
                publish(task, message, id_.decode())
                published += 1
        if published:
            log.warning("messages swept from the inbox", messages=published)
        return published

    def _long_queues(self) -> set[Queue]:
        """Return the queues behind which nothing is published again."""
        return {queue for queue, length in self.queues.lengths().items() if length > _LONG}


def _members(task: str, message_id: str, message: object) -> list[str]:
    """Return a message's members in the set of subjects.

    For an unreadable message none are returned; a later search by subject removes its members.
    """
    try:
        return [f"{subject}\n{message_id}" for subject in subjects.of(Task(task), message)]  # type: ignore[arg-type]
    except (AttributeError, KeyError, TypeError, ValueError):
        return []
