"""The lengths of the queues, in Redis or in RabbitMQ. Messages that a worker has taken do not count."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from amqp import AMQPError, NotFound, PreconditionFailed
from kombu import Connection
from kombu.exceptions import KombuError
from redis.exceptions import ResponseError

from knocktwice_shared import rabbitmq
from knocktwice_shared.names import Queue

if TYPE_CHECKING:
    from redis import Redis

#: The arguments of our queues in RabbitMQ: each is kept by several nodes, of which one may be lost.
ARGUMENTS = {"x-queue-type": "quorum"}
#: Seconds to wait for RabbitMQ.
_PATIENCE_S = 5.0
_ERRORS = (OSError, AMQPError, KombuError)


@dataclass(frozen=True, slots=True)
class Examined:
    """A look at RabbitMQ.

    Attributes:
        version: RabbitMQ's.
        lengths: queue → messages that wait in it, of those that exist.
        others: queues that exist, and are no quorum queues of ours.
    """

    version: str
    lengths: dict[Queue, int]
    others: list[Queue]


class Lengths(Protocol):
    """Knows the queues' lengths."""

    def lengths(self) -> dict[Queue, int]:
        """Return queue → messages that wait in it.

        Raises:
            RedisError: Redis does not answer.
            ConnectionError: RabbitMQ does not answer.
        """
        ...

    def examine(self) -> Examined | None:
        """Return what RabbitMQ says of its queues; ``None``: they are not in RabbitMQ.

        Raises:
            ConnectionError: RabbitMQ does not answer, or refuses the login.
        """
        ...

    def close(self) -> None:
        """Close connections of its own."""


@dataclass(frozen=True)
class InRedis:
    """Queues in Redis or Valkey.

    Attributes:
        redis: where they are.
    """

    redis: Redis

    def lengths(self) -> dict[Queue, int]:
        """Return queue → messages that wait in it."""
        pipe = self.redis.pipeline(transaction=False)
        for queue in Queue:
            pipe.llen(queue.value)
        found = pipe.execute(raise_on_error=False)
        for error in found:
            if isinstance(error, Exception) and not isinstance(error, ResponseError):
                raise error
        # A key that is no queue has no length; publishing to it shows the error.
        return {queue: 0 if isinstance(n, Exception) else n for queue, n in zip(Queue, found, strict=True)}

    def examine(self) -> None:
        """Say that they are not in RabbitMQ."""
        return

    def close(self) -> None:
        """Leave the connection to whoever opened it."""


class InRabbitMq:
    """Queues in RabbitMQ. Threads take turns on one connection.

    Args:
        url: where they are.
    """

    def __init__(self, url: str) -> None:
        self._at = rabbitmq.parse(url)
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def lengths(self) -> dict[Queue, int]:
        """Return queue → messages that wait in it; a queue that no worker has made yet has none."""
        with self._lock:
            was_open = self._connection is not None
            try:
                return self._read()
            except _ERRORS as error:
                self._drop()
                if not was_open:
                    raise _unreachable(error) from None
            # The connection was an old one; RabbitMQ may have restarted meanwhile.
            try:
                return self._read()
            except _ERRORS as error:
                self._drop()
                raise _unreachable(error) from None

    def examine(self) -> Examined:
        """Look at the queues' kinds, too. A queue of another kind is found by declaring ours in its place."""
        try:
            with self._open() as connection:
                lengths: dict[Queue, int] = {}
                others = []
                for queue in Queue:
                    waiting = _length(connection, queue)
                    if waiting is None:
                        continue
                    lengths[queue] = waiting
                    if not _is_ours(connection, queue):
                        others.append(queue)
                version = connection.connection.server_properties.get("version", "")
                return Examined(str(version), lengths, others)
        except _ERRORS as error:
            raise _unreachable(error) from None

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # Not release(): that says goodbye and waits for an answer.
            connection.collect(socket_timeout=1)

    def _read(self) -> dict[Queue, int]:
        if self._connection is None:
            self._connection = self._open()
        return {queue: _length(self._connection, queue) or 0 for queue in Queue}

    def _open(self) -> Connection:
        connection = Connection(
            self._at.url,
            ssl=self._at.tls or False,
            connect_timeout=_PATIENCE_S,
            transport_options={"read_timeout": _PATIENCE_S, "write_timeout": _PATIENCE_S},
        )
        # kombu would otherwise repeat for ever; this tries each node once.
        connection.ensure_connection(max_retries=self._at.url.count(";"), interval_start=0, interval_step=0)
        return connection


def _length(connection: Connection, queue: Queue) -> int | None:
    """Return how many messages wait; ``None``: there is no such queue."""
    try:
        with connection.channel() as channel:
            return int(channel.queue_declare(queue.value, passive=True).message_count)
    except NotFound:
        return None


def _is_ours(connection: Connection, queue: Queue) -> bool:
    try:
        with connection.channel() as channel:
            channel.queue_declare(queue.value, durable=True, auto_delete=False, arguments=ARGUMENTS)
    except PreconditionFailed:
        return False
    return True


def _unreachable(error: Any) -> ConnectionError:
    # Only the kind: its text may quote the address.
    return ConnectionError(f"RabbitMQ does not answer: {type(error).__name__}")
