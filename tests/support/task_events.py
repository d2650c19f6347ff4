"""The events of Celery tasks as Flower hears them: who started what, and how it ended."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from celery import Celery

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def heard(broker_url: str) -> Iterator[dict[str, list[str]]]:
    """The kinds of events that workers tell while the block runs, in order, by task id."""
    events: dict[str, list[str]] = {}
    listening, stop = threading.Event(), threading.Event()

    def hear(event: dict[str, Any]) -> None:
        if event["type"].startswith("task-"):
            events.setdefault(event["uuid"], []).append(event["type"])

    def listen() -> None:
        app = Celery(broker=broker_url)
        receiver = app.events.Receiver(app.connection_for_read(), handlers={"*": hear})
        with receiver.consumer_context() as (connection, _, _):
            listening.set()
            while not stop.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.2)

    thread = threading.Thread(target=listen)
    thread.start()
    assert listening.wait(30)
    try:
        yield events
    finally:
        stop.set()
        thread.join()
