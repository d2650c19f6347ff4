"""The way to the broker: one connection per process, bounded waits, and an inbox that makes "accepted" mean durable.

On Redis a message is written to the inbox and put on Celery's queue in one step. The worker takes it out of the inbox
when its rows are committed, and ``sweep`` puts it on the queue again if it stays. So a message is accepted once the
inbox has it, and a queue that refuses it is a matter of delay, not of loss: it is logged, not raised. RabbitMQ needs no
inbox; it confirms each message.

kombu and redis are imported on first use, so that ``import knocktwice`` costs an application's start nothing.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from knocktwice_shared.errors import BrokerUnavailable
from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_MESSAGES, INBOX_SUBJECTS, key_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from kombu import Connection

    from knocktwice.address import Address
    from knocktwice.envelope import Outgoing

log = logging.getLogger("knocktwice")

#: How long Redis remembers which notification an idempotency key was first used for. PostgreSQL remembers longer.
KEY_LIFETIME = timedelta(days=7)
#: Messages per round trip: 20 full batches are 10,000 notifications and, inbox and queue together, about 4 MB.
_AT_ONCE = 20
#: Atomic, and scored by the server's clock, so that a producer with a wrong clock cannot hide a message from ``sweep``.
#: KEYS are the inbox's three and each message's queue; ARGV of each message its id, inbox entry, queued form, the
#: number of its subjects, and these. Returns how many a queue refused.
_ACCEPT = """
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
local refused, at = 0, 1
for i = 4, #KEYS do
  local id, entry, message, subjects = unpack(ARGV, at, at + 3)
  redis.call('HSET', KEYS[1], id, entry)
  redis.call('ZADD', KEYS[2], now, id)
  for s = at + 4, at + 3 + subjects do
    redis.call('ZADD', KEYS[3], 0, ARGV[s] .. '\\n' .. id)
  end
  at = at + 4 + subjects
  local answer = redis.pcall('LPUSH', KEYS[i], message)
  if type(answer) == 'table' and answer.err then refused = refused + 1 end
end
return refused
"""


class Broker(Protocol):
    """The methods of a broker that a client needs. ``knocktwice.testing`` has another implementation."""

    def claim_keys(self, proposals: Mapping[str, UUID]) -> dict[str, UUID]:
        """Return for each idempotency key the notification id it was first used for, now or before."""

    def accept(self, messages: Iterable[Outgoing]) -> None:
        """Take responsibility for the messages, in order, or raise BrokerUnavailable."""

    def close(self) -> None:
        """Let go of connections."""


class KombuBroker:
    """Redis, Valkey or RabbitMQ, spoken to through kombu.

    Threads take turns on the connection. A forked child starts afresh; a call that finds a connection dead replaces it.
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        # A pid check in each call would race: a child's first two threads might both find the parent's lock.
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(this()))

    def claim_keys(self, proposals: Mapping[str, UUID]) -> dict[str, UUID]:
        """Return for each key the id it was first used for. RabbitMQ has no memory: there PostgreSQL alone decides."""
        if not self._address.speaks_redis:
            return dict(proposals)
        with self._turn() as connection, connection.default_channel.conn_or_acquire() as redis:
            pipe = redis.pipeline(transaction=False)
            for key, id_ in proposals.items():
                name = key_name(key)
                # Two commands, because SET with both NX and GET needs Redis 7.
                pipe.set(name, str(id_), nx=True, ex=KEY_LIFETIME)
                pipe.get(name)
            found = pipe.execute()[1::2]
        first = zip(proposals.items(), found, strict=True)
        return {key: UUID(value.decode()) if value else id_ for (key, id_), value in first}

    def accept(self, messages: Iterable[Outgoing]) -> None:
        """Take responsibility for the messages.

        Raises:
            BrokerUnavailable: not within the timeout. Of many messages, some may have been accepted.
        """
        rest = iter(messages)
        while some := list(islice(rest, _AT_ONCE)):
            if self._address.speaks_redis:
                self._accept(some)
            else:
                self._publish(some)

    def close(self) -> None:
        """Close the connection. The next call opens another."""
        with self._lock:
            self._drop()

    def _accept(self, messages: Sequence[Outgoing]) -> None:
        keys = [INBOX_MESSAGES, INBOX_ACCEPTED, INBOX_SUBJECTS, *(str(m.queue) for m in messages)]
        parts = [
            part
            for m in messages
            for part in (str(m.id), m.inbox_entry(), m.queued(), str(len(m.subjects)), *m.subjects)
        ]
        with self._turn() as connection, connection.default_channel.conn_or_acquire() as redis:
            refused = redis.eval(_ACCEPT, len(keys), *keys, *parts)
        if refused:
            log.warning("accepted but not queued; a worker's sweep will: %d of %d messages", refused, len(messages))

    def _publish(self, messages: Sequence[Outgoing]) -> None:
        with self._turn() as connection:
            producer = connection.Producer(auto_declare=False)
            with producer.batch():
                for message in messages:
                    producer.publish(
                        message.body(),
                        exchange="",
                        routing_key=str(message.queue),
                        content_type="application/json",
                        content_encoding="utf-8",
                        headers=message.headers(),
                        correlation_id=str(message.id),
                        reply_to="",
                        mandatory=True,
                        timeout=self._timeout,
                        confirm_timeout=self._timeout,
                    )

    @contextmanager
    def _turn(self) -> Iterator[Connection]:
        """Lend the connection to one thread; drop it when anything goes wrong on it."""
        if not self._lock.acquire(timeout=self._timeout):
            raise self._unavailable("other threads of this process kept the connection busy")
        try:
            yield self._connected()
        except _broker_errors() as error:
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
                ssl={"ssl_cert_reqs": "required"} if self._address.scheme == "rediss" else False,
            )
            # kombu would otherwise repeat for ever; this tries each address of the URL once.
            others = self._address.url.count(";") if not self._address.speaks_redis else 0
            connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0)
            if self._address.speaks_redis:
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


def _keep_client(channel: Any) -> None:
    """Give a kombu channel one Redis client for its life; making one for each command takes longer than the command."""
    make = channel._create_client
    kept = make()
    channel._create_client = lambda asynchronous=False: make(asynchronous=True) if asynchronous else kept


def _forget(broker: KombuBroker | None) -> None:
    if broker is not None:
        # Nothing is closed: after a fork the sockets are the parent's.
        broker._lock = threading.Lock()
        broker._connection = None


def _broker_errors() -> tuple[type[Exception], ...]:
    from amqp import AMQPError
    from kombu.exceptions import KombuError
    from redis import RedisError

    return (OSError, AMQPError, KombuError, RedisError)
