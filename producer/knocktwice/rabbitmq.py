"""The way to RabbitMQ's queues: messages go out together, and each is confirmed by RabbitMQ or left to the inbox.

A message is accepted before it comes here: the inbox has it. So nothing here raises. A message that RabbitMQ does not
confirm in time is returned, and the inbox publishes it again; ids make repeats harmless.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kombu import Connection

    from knocktwice.address import Address
    from knocktwice.envelope import Outgoing

log = logging.getLogger("knocktwice")

#: Seconds for which a RabbitMQ that has failed is left alone, so that not every call waits for it.
_PAUSE_S = 5.0


class RabbitQueues:
    """Publishes messages. Threads take turns on the connection.

    Args:
        address: of RabbitMQ.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._channel: Any = None
        self._paused_until = float("-inf")
        #: Delivery tags of the messages under way; RabbitMQ counts each channel's messages from 1 on.
        self._open: dict[int, Outgoing] = {}
        self._published = 0
        self._failed: list[Outgoing] = []
        self._returned: set[str] = set()

    def publish(self, messages: Sequence[Outgoing], within: float) -> Sequence[Outgoing]:
        """Publish messages, and return those that RabbitMQ has not confirmed.

        Args:
            within: the longest wait for RabbitMQ, in seconds.
        """
        until = time.monotonic() + within
        if time.monotonic() < self._paused_until or not self._lock.acquire(timeout=max(0.0, within)):
            return messages
        try:
            had_connection = self._channel is not None
            left = self._try(messages, until)
            if left and self._channel is None and had_connection:
                # RabbitMQ has restarted since the last call, for example, and only this call noticed it.
                left = self._try(left, until)
            if self._channel is None:
                self._paused_until = time.monotonic() + _PAUSE_S
                # Once in a pause: with each call an outage would flood the application's log.
                log.warning(
                    "RabbitMQ at %s does not answer; messages are accepted, and a worker's sweep will queue them",
                    self._address.place,
                )
            elif left:
                log.warning(
                    "accepted but not queued; a worker's sweep will: %d of %d messages", len(left), len(messages)
                )
            return left
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the connection. The next call opens another."""
        with self._lock:
            self._drop()

    def forget(self) -> None:
        """Start afresh after a fork: nothing is closed, because the sockets are the parent's."""
        self.__init__(self._address)  # type: ignore[misc]

    def _try(self, messages: Sequence[Outgoing], until: float) -> Sequence[Outgoing]:
        """Publish on one connection; drop it when anything goes wrong on it."""
        from amqp import AMQPError
        from kombu.exceptions import KombuError

        self._open, self._failed, self._returned = {}, [], set()
        unsent = list(reversed(messages))
        try:
            self._connect(until)
            while unsent:
                self._send(unsent[-1], until)
                unsent.pop()
            while self._open:
                self._connection.drain_events(timeout=_left(until))  # type: ignore[union-attr]
        except (OSError, AMQPError, KombuError) as error:
            self._drop()
            log.debug("RabbitMQ at %s has not confirmed: %s", self._address.place, type(error).__name__)
        except BaseException:
            # A signal half-way through an exchange: nobody knows what comes next on this connection.
            self._drop()
            raise
        return [*self._failed, *self._open.values(), *reversed(unsent)]

    def _send(self, message: Outgoing, until: float) -> None:
        prepared = self._channel.prepare_message(
            message.body().encode(),
            content_type="application/json",
            content_encoding="utf-8",
            headers=message.headers(),
            properties={"correlation_id": str(message.id), "delivery_mode": 2},
        )
        # "mandatory": RabbitMQ says so if there is no such queue, which no worker has declared yet.
        self._channel.basic_publish(
            prepared, exchange="", routing_key=str(message.queue), mandatory=True, timeout=_left(until)
        )
        self._published += 1
        self._open[self._published] = message

    def _connect(self, until: float) -> None:
        if self._channel is not None:
            return
        from kombu import Connection

        patience = _left(until)
        self._connection = Connection(
            self._address.url,
            connect_timeout=patience,
            ssl=self._address.tls,
            transport_options={"read_timeout": patience, "write_timeout": patience},
        )
        # kombu would otherwise repeat for ever; this tries each node of the URL once.
        self._connection.ensure_connection(max_retries=self._address.url.count(";"), interval_start=0, interval_step=0)
        channel = self._connection.channel()
        channel.confirm_select()
        channel.events["basic_ack"].add(lambda tag, multiple: self._answered(tag, multiple, taken=True))
        channel.events["basic_nack"].add(lambda tag, multiple: self._answered(tag, multiple, taken=False))
        channel.events["basic_return"].add(self._came_back)
        self._channel, self._published = channel, 0

    def _answered(self, tag: int, multiple: bool, *, taken: bool) -> None:
        for one in [known for known in self._open if known == tag or (multiple and known <= tag)]:
            message = self._open.pop(one)
            if not taken or str(message.id) in self._returned:
                self._failed.append(message)

    def _came_back(self, _error: Exception, _exchange: str, _queue: str, message: Any) -> None:
        # RabbitMQ confirms what it has returned, afterwards.
        self._returned.add(message.properties.get("correlation_id", ""))

    def _drop(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            # Not release(): that says goodbye and waits for an answer.
            connection.collect(socket_timeout=1)


def _left(until: float) -> float:
    """Return the seconds that are left, or raise TimeoutError."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("RabbitMQ did not answer in time")
    return left
