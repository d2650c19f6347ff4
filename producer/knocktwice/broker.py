"""The way to the broker: one connection per process, bounded waits, and an inbox that keeps what was accepted.

On Redis a message is written to the inbox and put on Celery's queue in one step. The worker takes it out of the inbox
when its rows are committed, and ``sweep`` puts it on the queue again if it stays. So a message is accepted once the
inbox has it, as safely as ``durability`` asks, and a queue that refuses it is a matter of delay, not of loss: it is
logged, not raised. Where RabbitMQ carries the queues, the inbox stays in Redis, and the message goes to RabbitMQ next.

The inbox is bounded: a script that finds it full refuses notifications first, and what a decision waits for later.

kombu and redis are imported on first use, so that ``import knocktwice`` costs an application's start nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from knocktwice.durability import Asked
from knocktwice.joining import Joining, StillWaiting
from knocktwice.keys import Use
from knocktwice.rabbitmq import RabbitQueues
from knocktwice_shared.counted import many
from knocktwice_shared.durability import Durability
from knocktwice_shared.errors import BrokerUnavailable, NotConfirmed, QueueFull
from knocktwice_shared.names import (
    BACKLOG_BYTES,
    BACKLOG_HEADROOM,
    BACKLOG_MESSAGES,
    INBOX_ACCEPTED,
    INBOX_BACKLOG,
    INBOX_MESSAGES,
    INBOX_SUBJECTS,
    key_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kombu import Connection
    from redis import Redis

    from knocktwice.address import Address
    from knocktwice.envelope import Outgoing

log = logging.getLogger("knocktwice")

#: How long Redis remembers which notification an idempotency key was first used for. PostgreSQL remembers longer.
KEY_LIFETIME = timedelta(days=7)
#: Messages per round trip: 20 full batches are 10,000 notifications and, inbox and queue together, about 4 MB.
_AT_ONCE = 20
_BUSY = "other threads of this process kept the connection busy"
#: Atomic, and scored by the server's clock, so that a producer with a wrong clock cannot hide a message from ``sweep``.
#: KEYS are the inbox's four and each message's queue; ARGV of each message its id, inbox entry, queued form, the
#: number of its subjects, and these. Returns how many a queue refused, and the ids of the messages without room.
_ACCEPT = f"""
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local known = redis.call('HMGET', KEYS[4], 'messages', 'bytes', 'used')
local most = tonumber(known[1] or {BACKLOG_MESSAGES})
local most_bytes = tonumber(known[2] or {BACKLOG_BYTES})
local used = tonumber(known[3] or 0)
local waiting = redis.call('HLEN', KEYS[1])
local out, at, grown = {{0}}, 1, 0
for i = 5, #KEYS do
  local id, entry, message, subjects = unpack(ARGV, at, at + 3)
  local before = redis.call('HSTRLEN', KEYS[1], id)
  local room = subjects == '0' and 1 or {BACKLOG_HEADROOM}
  if before == 0 and (waiting >= most * room or used + grown >= most_bytes * room) then
    out[#out + 1] = id
  else
    redis.call('HSET', KEYS[1], id, entry)
    redis.call('ZADD', KEYS[2], now, id)
    for s = at + 4, at + 3 + subjects do
      redis.call('ZADD', KEYS[3], 0, ARGV[s] .. '\\n' .. id)
    end
    if before == 0 then waiting = waiting + 1 end
    grown = grown + #entry - before
    -- Without a queued form, the queue is not here but in RabbitMQ.
    local answer = message == '' and 1 or redis.pcall('LPUSH', KEYS[i], message)
    if type(answer) == 'table' and answer.err then out[1] = out[1] + 1 end
  end
  at = at + 4 + subjects
end
if grown ~= 0 then redis.call('HINCRBY', KEYS[4], 'used', grown) end
return out
"""


class Broker(Protocol):
    """The methods of a broker that a client needs. ``knocktwice.testing`` has another implementation."""

    def claim_keys(self, proposals: Mapping[str, Use]) -> dict[str, Use]:
        """Return for each idempotency key its first use, now or before."""

    def accept(self, messages: Iterable[Outgoing]) -> None:
        """Take responsibility for the messages, in order, or raise BrokerUnavailable."""

    def close(self) -> None:
        """Let go of connections."""


class KombuBroker:
    """Redis or Valkey, spoken to through kombu, and RabbitMQ if it carries the queues.

    Threads take turns on the connection. A forked child starts afresh; a call that finds a connection dead replaces it.
    """

    def __init__(self, address: Address, timeout: float, asked: Asked = Asked(Durability.MEMORY)) -> None:  # noqa: B008
        self._address = address
        self._rabbitmq = RabbitQueues(address.queues) if address.queues else None
        self._timeout = timeout
        self._asked = asked
        self._lock = threading.Lock()
        self._joining = Joining()
        self._connection: Connection | None = None
        #: The hash of the accepting script, as the broker said it.
        self._script: str | None = None
        # A pid check in each call would race: a child's first two threads might both find the parent's lock.
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(this()))

    def claim_keys(self, proposals: Mapping[str, Use]) -> dict[str, Use]:
        """Return for each key its first use."""
        with self._turn() as connection, connection.default_channel.conn_or_acquire() as redis:
            pipe = redis.pipeline(transaction=False)
            for key, use in proposals.items():
                name = key_name(key)
                # Two commands, because SET with both NX and GET needs Redis 7.
                pipe.set(name, str(use), nx=True, ex=KEY_LIFETIME)
                pipe.get(name)
            found = pipe.execute()[1::2]
        first = zip(proposals.items(), found, strict=True)
        return {key: Use.read(value.decode()) if value else use for (key, use), value in first}

    def accept(self, messages: Iterable[Outgoing]) -> None:
        """Take responsibility for the messages.

        Raises:
            BrokerUnavailable: not within the timeout. Of many messages, some may have been accepted.
            NotConfirmed: not as safely as asked, within the timeout.
            QueueFull: there is no room for some; the others are accepted.
        """
        rest = iter(messages)
        some = list(islice(rest, _AT_ONCE))
        refused: list[str] = []
        alone = True
        while some:
            following = list(islice(rest, _AT_ONCE))
            if alone and not following:
                refused += self._accept_together(some)
                break
            alone = False
            refused += self._take(some, confirm=not following)
            some = following
        if refused:
            raise self._full(f"{many(len(refused), 'message was', 'messages were')} not accepted", frozenset(refused))

    def close(self) -> None:
        """Close the connection. The next call opens another."""
        with self._lock:
            self._drop()
        if self._rabbitmq is not None:
            self._rabbitmq.close()

    def _accept_together(self, messages: Sequence[Outgoing]) -> Sequence[str]:
        """Accept messages in one round trip, with those of other threads; return the ids of those without room."""
        try:
            return self._joining.accept(messages, partial(self._take, confirm=True), self._timeout)
        except StillWaiting:
            raise self._unavailable(_BUSY) from None

    def _take(self, messages: Sequence[Outgoing], *, confirm: bool) -> list[str]:
        """Accept messages and have them queued; return the ids of those without room."""
        until = time.monotonic() + self._timeout
        refused = self._accept(messages, confirm=confirm)
        if self._rabbitmq is not None:
            known = set(refused)
            accepted = [message for message in messages if str(message.id) not in known]
            unqueued = self._rabbitmq.publish(accepted, until - time.monotonic())
            if unqueued:
                self._hurry(unqueued)
        return refused

    def _hurry(self, messages: Sequence[Outgoing]) -> None:
        """Have the next sweep of a worker publish messages that RabbitMQ has not confirmed, before their grace ends."""
        with (
            suppress(BrokerUnavailable),
            self._turn() as connection,
            connection.default_channel.conn_or_acquire() as redis,
        ):
            # XX: only those that no worker has removed meanwhile.
            redis.zadd(INBOX_ACCEPTED, {str(message.id): 0 for message in messages}, xx=True)

    def _accept(self, messages: Sequence[Outgoing], *, confirm: bool) -> list[str]:
        """Accept messages, and return the ids of those without room.

        Args:
            confirm: wait until these and all before them are as safe as asked.
        """
        keys = [INBOX_MESSAGES, INBOX_ACCEPTED, INBOX_SUBJECTS, INBOX_BACKLOG, *(str(m.queue) for m in messages)]
        parts = [
            part
            for m in messages
            for part in (str(m.id), m.inbox_entry(), self._queued(m), str(len(m.subjects)), *m.subjects)
        ]
        wait = self._asked.command(self._timeout) if confirm else None
        with self._turn() as connection, connection.default_channel.conn_or_acquire() as redis:
            answers = self._run_script(redis, (len(keys), *keys, *parts), wait)
        unqueued, *refused = answers[0]
        if unqueued:
            log.warning("accepted but not queued; a worker's sweep will: %d of %d messages", unqueued, len(messages))
        if wait is not None and (problem := self._asked.problem(answers[1])) is not None:
            raise NotConfirmed(
                f"the broker at {self._address.place} has the message, but does not confirm durability "
                f"{self._asked.level} ({problem}); the outcome is unknown, and it is safe to call again with the same "
                "key (or ids)"
            )
        return [id_.decode() if isinstance(id_, bytes) else str(id_) for id_ in refused]

    def _run_script(self, redis: Redis, arguments: Sequence[Any], wait: Sequence[Any] | None) -> list[Any]:
        """Run the accepting script by its hash, because its text is longer than most messages.

        A broker that has restarted, or another one behind the same address, does not know the hash: it has done
        nothing then, and gets the text.
        """
        from redis.exceptions import NoScriptError

        if self._script is not None:
            try:
                return self._run_known(redis, self._script, arguments, wait)
            except NoScriptError:
                log.debug("the broker does not know the script any more")
        hash_ = redis.script_load(_ACCEPT)
        self._script = hash_.decode() if isinstance(hash_, bytes) else str(hash_)
        return self._run_known(redis, self._script, arguments, wait)

    def _run_known(self, redis: Redis, script: str, arguments: Sequence[Any], wait: Sequence[Any] | None) -> list[Any]:
        if wait is None:
            return [redis.evalsha(script, *arguments)]
        # One request, on one connection: the broker waits for what this connection has written.
        pipe: Any = redis.pipeline(transaction=False)
        pipe.evalsha(script, *arguments)
        pipe.execute_command(*wait)
        answers: list[Any] = pipe.execute(raise_on_error=False)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers

    def _queued(self, message: Outgoing) -> str:
        """Return what is put on the queue in Redis."""
        return "" if self._rabbitmq is not None else message.queued()

    @contextmanager
    def _turn(self) -> Iterator[Connection]:
        """Lend the connection to one thread; drop it when anything goes wrong on it."""
        if not self._lock.acquire(timeout=self._timeout):
            raise self._unavailable(_BUSY)
        try:
            yield self._connected()
        except _broker_errors() as error:
            if str(error).startswith("OOM ") or type(error).__name__ == "OutOfMemoryError":
                # The server answered, so the connection is fine.
                raise self._full("its memory is full (maxmemory), so nothing was accepted") from error
            self._drop()
            # Cut, because some errors recite the whole connection pool.
            raise self._unavailable(f"{type(error).__name__}: {error!s:.200}") from error
        except BaseException:
            # A signal or a bug half-way through an exchange: what comes next on this connection is anybody's guess.
            self._drop()
            raise
        finally:
            self._lock.release()

    def _connected(self) -> Connection:
        if self._connection is None:
            from kombu import Connection

            connection = Connection(
                self._address.url,
                connect_timeout=self._timeout,
                transport_options=self._address.transport_options(self._timeout),
                ssl=self._address.tls,
            )
            # kombu would otherwise repeat for ever.
            connection.ensure_connection(max_retries=0, interval_start=0, interval_step=0)
            _keep_client(connection.default_channel)
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not release(): that says goodbye and waits for an answer.
            connection.collect(socket_timeout=self._timeout)

    def _unavailable(self, reason: str) -> BrokerUnavailable:
        return BrokerUnavailable(
            f"the broker at {self._address.place} did not accept the message within {self._timeout:g} s ({reason}); "
            "check that it runs and is reachable from here, then call again with the same key"
        )

    def _full(self, finding: str, refused: frozenset[str] = frozenset()) -> QueueFull:
        return QueueFull(
            f"the broker at {self._address.place} has no room: {finding}; the limits are KNOCKTWICE_BACKLOG_MESSAGES and "
            "KNOCKTWICE_BACKLOG_BYTES of the workers; 'knocktwice doctor' shows what waits; start workers, or wait, and "
            "call again with the same key (or ids)",
            refused,
        )


def _keep_client(channel: Any) -> None:
    """Give a kombu channel one Redis client for its life; making one for each command takes longer than the command."""
    make = channel._create_client
    kept = make()
    channel._create_client = lambda asynchronous=False: make(asynchronous=True) if asynchronous else kept


def _forget(broker: KombuBroker | None) -> None:
    if broker is not None:
        # Nothing is closed: after a fork the sockets are the parent's.
        broker._lock = threading.Lock()
        broker._joining = Joining()
        broker._connection = None
        if broker._rabbitmq is not None:
            broker._rabbitmq.forget()


def _broker_errors() -> tuple[type[Exception], ...]:
    from kombu.exceptions import KombuError
    from redis import RedisError

    return (OSError, KombuError, RedisError)
