"""The consumer: parks messages that it cannot read, and survives the loss of its broker.

Celery's own consumer drops unknown tasks, and one message without an ``id`` header blocks its queue for ever. Our
consumer writes each such message to the dead-letter table with its reason and acknowledges it. If the table cannot be
reached, the message stays unacknowledged and the broker delivers it again later.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.transport import virtual

from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.runtime import redis_channel
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

#: Errors that kombu raises for a queue entry that is not a message of kombu's (the entry is lost), and an
#: AttributeError from a channel whose connection is gone, for example when a task ends that was read from it. Celery
#: does not treat them as connection errors, so the worker would end. Our consumer restarts instead; that is safe,
#: because the rows will be due again.
_UNEXPECTED = redis_channel.UNREADABLE

#: Seconds for which Flower's events are collected before they are sent.
_EVENTS_EVERY_S = 0.2
#: The most events for Flower that are collected.
_MOST_EVENTS = 1_000


class _ForgivingBase64(virtual.base.Base64):
    """Keeps a body that is not Base64 as it is, so that it can be parked. kombu's own codec ends the worker."""

    def decode(self, s: Any) -> bytes:
        try:
            return bytes(super().decode(s))
        except ValueError:
            return str(s).encode(errors="replace")


class Consumer(CeleryConsumer):
    """Celery's consumer with a dead-letter table."""

    class Blueprint(CeleryConsumer.Blueprint):
        """Celery's steps without the one that makes 28 queues in RabbitMQ for countdowns: our tasks have none."""

        default_steps = [  # noqa: RUF012 - as Celery has it
            step for step in CeleryConsumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection_errors: tuple[type[BaseException], ...] = (*self.connection_errors, *_UNEXPECTED)
        self._events_planned = False
        self._forget: Callable[[], None] | None = None
        virtual.Channel.codecs = {"base64": _ForgivingBase64()}

    def ensure_connected(self, conn: Any) -> Any:
        """Connect one of the loop's own connections, without confirmations and without long pauses.

        The loop must wait for nobody, and what it publishes, events for Flower and answers to it, may be lost. kombu's
        own pauses between attempts grow to half a minute.
        """
        conn.transport_options = {
            name: value for name, value in conn.transport_options.items() if name != "confirm_publish"
        }
        conn.ensure_connection = partial(conn.ensure_connection, interval_start=1, interval_step=1, interval_max=3)
        return super().ensure_connected(conn)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Give up a broken connection, so that the consumer restarts on a new one."""
        try:
            super().on_connection_error_after_connected(exc)
        except _UNEXPECTED as error:
            log.info("connection given up", error=type(error).__name__)

    def on_send_event_buffered(self) -> None:
        """Send Flower's events in groups, a few times a second, and not in each turn of the event loop."""
        if self.hub and not self._events_planned:
            self._events_planned = True
            self.hub.call_later(_EVENTS_EVERY_S, self._send_events)

    def _send_events(self) -> None:
        self._events_planned = False
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def _forget_done_messages(self, channel: Any) -> None:
        """Let the channel acknowledge finished messages together, once in each turn of the event loop."""
        if not self.hub or not isinstance(channel, redis_channel.Channel):
            return
        if self._forget:
            self.hub.on_tick.discard(self._forget)
        self._forget = channel.forget
        channel.looped = True
        self.hub.on_tick.add(self._forget)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Wrap Celery's handler: if it raises for a message, the message is parked."""
        handle = super().create_task_handler(*args, **kwargs)
        # The planned sending of Flower's events belonged to the previous connection.
        self._events_planned = False
        if self.event_dispatcher:
            self.event_dispatcher.buffer_limit = _MOST_EVENTS
        self._forget_done_messages(self.task_consumer.channel)

        def handle_or_park(message: Any) -> None:
            try:
                if not isinstance(message.headers, dict) or not message.headers.get("id"):
                    self._park(message, "has no id header, so it is not a Celery message")
                else:
                    handle(message)
            except Exception as error:
                self._park(message, f"cannot be read: {type(error).__name__}")

        return handle_or_park

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Park a message that is not a task."""
        self._park(message, "is not a Celery task message")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Park a task that this worker does not know; a newer producer may have sent it."""
        self._park(message, f"names a task this worker does not know: {message.headers.get('task')!r:.100}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Park a task with invalid arguments."""
        self._park(message, f"is not a valid task: {type(exc).__name__}")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Park a message whose body does not match its headers."""
        self._park(message, f"cannot be decoded: {type(exc).__name__}")

    def _park(self, message: Any, reason: str) -> None:
        headers = message.headers if isinstance(message.headers, dict) else {}
        body = message.body if isinstance(message.body, str) else bytes(message.body or b"").decode(errors="replace")
        try:
            with services().engine.begin() as conn:
                dead_letters.park(
                    conn,
                    message_id=str(headers.get("id"))[:200] if headers.get("id") else None,
                    task=str(headers.get("task"))[:200] if headers.get("task") else None,
                    reason=f"message {reason}",
                    payload=body,
                )
            if headers.get("id"):
                # Without this the sweep would publish the message again and again.
                services().inbox.remove(str(headers["id"]))
        except Exception as error:
            log.error("message not parked", reason=reason, error=type(error).__name__)
            return
        log.warning("message parked", reason=reason)
        message.ack()
