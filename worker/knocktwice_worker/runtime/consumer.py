"""A consumer that parks what it cannot read, instead of choking on it for ever, and outlives its broker.

Celery's own consumer drops unknown tasks, and one message without an ``id`` header blocks a queue. Here each such message
goes to the dead-letter table with its reason and is acknowledged. If the table cannot be reached the message stays
unacknowledged, and the broker brings it back later.
"""

from __future__ import annotations

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

#: What kombu raises from something in a queue that is no message of its (that is lost), and, AttributeError, from a channel
#: whose connection is gone, for example when a task ends that was taken over it. Celery knows these for no connection errors,
#: and the worker would end. The rows ring again, so starting anew is safe.
_UNEXPECTED = redis_channel.UNREADABLE


#: How long Flower's events wait for others, in seconds, and how many of them at most.
_EVENTS_EVERY_S, _MOST_EVENTS = 0.2, 1_000


class _ForgivingBase64(virtual.base.Base64):
    """Leaves a body as it is that is not Base64, so that there is a message to park. kombu's own ends the worker."""

    def decode(self, s: Any) -> bytes:
        try:
            return bytes(super().decode(s))
        except ValueError:
            return str(s).encode(errors="replace")


class Consumer(CeleryConsumer):
    """Celery's consumer with a dead-letter table."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connection_errors: tuple[type[BaseException], ...] = (*self.connection_errors, *_UNEXPECTED)
        self._events_planned = False
        self._forget: Callable[[], None] | None = None
        virtual.Channel.codecs = {"base64": _ForgivingBase64()}

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of a broken connection, so that the consumer starts again on a new one."""
        try:
            super().on_connection_error_after_connected(exc)
        except _UNEXPECTED as error:
            log.info("connection given up", error=type(error).__name__)

    def on_send_event_buffered(self) -> None:
        """Send Flower's events in groups, some times a second; Celery sends them with each turn of its loop."""
        if self.hub and not self._events_planned:
            self._events_planned = True
            self.hub.call_later(_EVENTS_EVERY_S, self._send_events)

    def _send_events(self) -> None:
        self._events_planned = False
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def _forget_done_messages(self, channel: Any) -> None:
        """Have the channel acknowledge with each turn of the event loop, all that is done by then."""
        if not self.hub or not isinstance(channel, redis_channel.Channel):
            return
        if self._forget:
            self.hub.on_tick.discard(self._forget)
        self._forget = channel.forget
        channel.looped = True
        self.hub.on_tick.add(self._forget)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Wrap Celery's handler: whatever it stumbles over is parked."""
        handle = super().create_task_handler(*args, **kwargs)
        # A new connection comes with a new plan.
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
        """Park a task this worker does not know; a newer producer may have sent it."""
        self._park(message, f"names a task this worker does not know: {message.headers.get('task')!r:.100}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Park a task whose arguments are not a task's."""
        self._park(message, f"is not a valid task: {type(exc).__name__}")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Park a body that is not what its headers say."""
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
                # Or the sweep would bring it back for ever.
                services().inbox.remove(str(headers["id"]))
        except Exception as error:
            log.error("message not parked", reason=reason, error=type(error).__name__)
            return
        log.warning("message parked", reason=reason)
        message.ack()
