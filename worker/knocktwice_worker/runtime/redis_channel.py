"""kombu's Redis channel with less cost per message: it reads, notes and acknowledges messages together.

kombu writes a note of each message that it has read to Redis (*unacked*), so that the message is delivered again if its
worker dies.
"""

from __future__ import annotations

from queue import Empty
from typing import TYPE_CHECKING, Any

import structlog
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger(__name__)

#: Errors that kombu raises for a queue entry that is not a message of kombu's.
UNREADABLE = (AttributeError, ValueError, KeyError, TypeError)


class _Notes(kombu_redis.QoS):
    """Notes of messages under way: written together for messages that were read together, and removed together.

    If the process dies between reading a message and noting it, the broker loses the message, as with kombu itself; the
    dispatcher finds it in the inbox or by its row. If an acknowledgement fails, the message comes again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._new: dict[str, str] = {}
        self._done: list[str] = []

    def append(self, message: Any, delivery_tag: str) -> None:
        """Remember a message; :meth:`write` writes its note."""
        where = message.delivery_info
        # The note has kombu's own format, but is made from the text that was read: encoding the message again would
        # cost as much as all the other work.
        raw = self.channel.read or dumps(message._raw)
        self._new[delivery_tag] = f"[{raw}, {dumps(where['exchange'])}, {dumps(where['routing_key'])}]"
        virtual.QoS.append(self, message, delivery_tag)
        if self.channel.read is None:
            self.write()

    def write(self, more: str | None = None, most: int = 0) -> Sequence[bytes]:
        """Write the notes of remembered messages.

        Args:
            more: a queue from which to read more messages in the same round trip.
            most: the most messages to read from it.

        Returns:
            The messages that were read.
        """
        new, self._new = self._new, {}
        # The index is written before the messages. If the process dies in between, an entry of the index without a
        # message is harmless.
        with self._pipeline() as pipe:
            if new:
                now = kombu_redis.time()
                pipe.zadd(self.unacked_index_key, dict.fromkeys(new, now))
                pipe.hset(self.unacked_key, mapping=new)
            if more is not None and most > 0:
                pipe.rpop(more, most)
                return pipe.execute()[-1] or ()
            pipe.execute()
        return ()

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, together with others, before the event loop waits again."""
        virtual.QoS.ack(self, delivery_tag)
        # If a message is finished before its note was written, there is no note to remove.
        if self._new.pop(delivery_tag, None) is None:
            self._done.append(delivery_tag)
        if not self.channel.looped:
            self.forget()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or drop it."""
        # kombu gives a message back from its note, so the note must be written first.
        self.write()
        super().reject(delivery_tag, requeue)

    def _pipeline(self) -> Any:
        return self.channel._create_client().pipeline(transaction=False)

    def forget(self) -> None:
        """Remove the notes of messages that are done."""
        done, self._done = self._done, []
        if not done:
            return
        try:
            with self._pipeline() as pipe:
                pipe.hdel(self.unacked_key, *done).zrem(self.unacked_index_key, *done).execute()
        except self.channel.connection_errors as error:
            log.warning("messages not acknowledged; they come again", messages=len(done), error=type(error).__name__)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back messages that were not processed; forget finished ones first, so that they do not come again."""
        self.forget()
        super().restore_unacked_once(stderr)


class Channel(kombu_redis.Channel):
    """A channel that reads more messages while its queue has them, and keeps its Redis client.

    redis-py 8 takes longer to make a client than to run a command.
    """

    QoS = _Notes

    #: Whether an event loop calls :meth:`forget` before it waits.
    looped = False
    #: The text of the message that :meth:`_brpop_read` is delivering; ``None`` at other times, when notes are written
    #: at once.
    read: str | None = None

    _kept: Any = None

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind a queue, and make sure that an exchange of one of our queues leads to no other queue.

        Earlier versions bound all queues to one exchange, and Redis remembers that.
        """
        super()._queue_bind(exchange, routing_key, pattern, queue)
        if exchange != queue:
            return
        with self.conn_or_acquire() as client:
            name = self.keyprefix_queue % exchange
            bound = [bytes_to_str(binding) for binding in client.smembers(name)]
            if strange := [binding for binding in bound if binding.rpartition(self.sep)[2] != queue]:
                client.srem(name, *strange)

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        # After a lost connection there is a new pool, so a new client is made.
        if self._kept is None or self._kept.connection_pool is not self.pool:
            self._kept = super()._create_client()
        return self._kept

    def forget(self) -> None:
        """Remove the notes of messages that are done."""
        self.qos.forget()

    def _brpop_read(self, **options: Any) -> bool:
        """Deliver the message that was waited for, and more from its queue while the worker has room.

        Otherwise the same as kombu's own method, which delivers one message.
        """
        try:
            try:
                answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if not answer:
            raise Empty
        key, item = answer
        queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            stumbled = self._hand_over([item], queue)
            more = self.qos.write(bytes_to_str(key), self.qos.can_consume_max_estimate() or 0)
            if more:
                stumbled = self._hand_over(more, queue) or stumbled
                self.qos.write()
        finally:
            self.read = None
        if stumbled is not None:
            raise stumbled
        return True

    def _hand_over(self, items: Sequence[bytes], queue: str) -> Exception | None:
        """Deliver messages. An entry that is not a message stops no other; the last such error is returned."""
        stumbled = None
        for item in items:
            try:
                self.read = bytes_to_str(item)
                self.connection._deliver(loads(self.read), queue)
            except UNREADABLE as error:
                stumbled = error
        return stumbled


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """The same for a broker behind Sentinel: each new connection asks the Sentinels where the primary is."""


def install() -> None:
    """Let kombu's transports use these channels."""
    kombu_redis.Transport.Channel = Channel
    kombu_redis.SentinelTransport.Channel = SentinelChannel
