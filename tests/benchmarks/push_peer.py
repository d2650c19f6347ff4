"""One way of sending pushes, alone in its process: ``python -m benchmarks.push_peer NAME COUNT``
prints seconds as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import ssl
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knocktwice_shared.ids import uuid7

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What all of them are asked to send at once.
BATCH = 500
_TOKEN = "c" * 150


def knocktwice() -> Callable[[int], None]:
    """Our engine and channel, as a worker's threads use them: several batches at once."""
    from concurrent.futures import ThreadPoolExecutor

    from knocktwice_worker.channels.fcm import FcmChannel
    from knocktwice_worker.channels.messages import PushMessage
    from knocktwice_worker.channels.outbound.transport import Transport
    from knocktwice_worker.channels.outcomes import Sent
    from knocktwice_worker.channels.provider import deliver

    transport = Transport(timeout=20, in_flight=400, ca_file=os.environ["BENCHMARK_CA"])
    file = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
    channel = FcmChannel(url=os.environ["KNOCKTWICE_FCM_URL"], credentials_file=file, project=None)

    def send_batch(size: int) -> None:
        messages = [
            PushMessage(str(uuid7()), f"{_TOKEN}{n}", "Order ready", f"Hi, order {n}", timedelta(minutes=5))
            for n in range(size)
        ]
        assert all(isinstance(o, Sent) for o in deliver(transport, channel, messages))

    threads = ThreadPoolExecutor(4)

    def send(count: int) -> None:
        list(threads.map(send_batch, _sizes(count)))

    return send


def send_each() -> Callable[[int], None]:
    """``firebase_admin.messaging.send_each``."""
    messaging = _firebase()

    def send(count: int) -> None:
        for size in _sizes(count):
            assert messaging.send_each([_message(messaging, n) for n in range(size)]).success_count == size

    return send


def send_each_async() -> Callable[[int], None]:
    """``firebase_admin.messaging.send_each_async``."""
    messaging = _firebase()
    loop = asyncio.new_event_loop()

    async def all_of(count: int) -> None:
        for size in _sizes(count):
            told = await messaging.send_each_async([_message(messaging, n) for n in range(size)])
            assert told.success_count == size

    return lambda count: loop.run_until_complete(all_of(count))


def aiohttp() -> Callable[[int], None]:
    """A good hand-written client: aiohttp, JSON by hand, 100 kept connections."""
    import aiohttp as library

    url = os.environ["KNOCKTWICE_FCM_URL"] + "/v1/projects/p/messages:send"
    headers = {"content-type": "application/json", "authorization": "Bearer " + "x" * 205}
    context = ssl.create_default_context(cafile=os.environ["BENCHMARK_CA"])
    loop = asyncio.new_event_loop()

    async def one(session: library.ClientSession, n: int) -> None:
        message = {
            "token": f"{_TOKEN}{n}",
            "notification": {"title": "Order ready", "body": f"Hi, order {n}"},
            "data": {"id": str(uuid7())},
            "android": {"priority": "high", "ttl": "300s"},
        }
        async with session.post(url, data=json.dumps({"message": message}), headers=headers) as answer:
            assert (await answer.json())["name"]

    async def all_of(count: int) -> None:
        async with library.ClientSession(connector=library.TCPConnector(limit=100, ssl=context)) as session:
            for size in _sizes(count):
                await asyncio.gather(*(one(session, n) for n in range(size)))

    return lambda count: loop.run_until_complete(all_of(count))


PEERS: dict[str, Callable[[], Callable[[int], None]]] = {
    peer.__name__: peer for peer in (knocktwice, aiohttp, send_each, send_each_async)
}


def _sizes(count: int) -> Iterator[int]:
    return (min(BATCH, count - done) for done in range(0, count, BATCH))


def _firebase() -> Any:
    import firebase_admin
    from firebase_admin import messaging

    warnings.simplefilter("ignore", DeprecationWarning)
    messaging._MessagingService.FCM_URL = os.environ["KNOCKTWICE_FCM_URL"] + "/v1/projects/{0}/messages:send"
    firebase_admin.initialize_app()
    return messaging


def _message(messaging: Any, n: int) -> Any:
    return messaging.Message(
        token=f"{_TOKEN}{n}",
        notification=messaging.Notification(title="Order ready", body=f"Hi, order {n}"),
        data={"id": str(uuid7())},
        android=messaging.AndroidConfig(priority="high", ttl=300),
    )


def main() -> None:
    """Warm up with one batch, then measure."""
    send, count = PEERS[sys.argv[1]](), int(sys.argv[2])
    send(BATCH)
    cpu, wall = _cpu(), time.perf_counter()
    send(count)
    json.dump({"wall_s": time.perf_counter() - wall, "cpu_s": _cpu() - cpu}, sys.stdout)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
