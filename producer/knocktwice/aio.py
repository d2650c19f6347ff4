"""The client for asyncio: the same methods as :class:`~knocktwice.Client`, to be awaited.

A call checks its arguments in the event loop and hands its messages to one thread for all calls. That thread sends
whatever waits in one exchange with the broker, so a thousand concurrent calls cost a few round trips, and no thread
each. The loop never waits for the broker.
"""

from __future__ import annotations

import asyncio
import functools
import os
import queue
import threading
import weakref
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast
from uuid import UUID

from knocktwice.client import Client
from knocktwice_shared.errors import BrokerUnavailable, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Self

    from knocktwice.drafts import Draft
    from knocktwice.keys import NotificationId
    from knocktwice.routing import Part
    from knocktwice_shared.durability import Durability

_P = ParamSpec("_P")
_R = TypeVar("_R")

#: The most calls that one exchange with the broker serves.
_MOST_CALLS = 500


@dataclass(eq=False, slots=True)
class _Call:
    """A call whose messages wait for the sending thread.

    Attributes:
        drafts: its messages.
        loop, done: where and how its caller waits.
        given_up: the caller does not wait any more, so nothing is sent unless it is under way.
    """

    drafts: list[Draft]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    given_up: bool = False

    def settle(self, error: Exception | None) -> None:
        """Wake the caller up. Called by the sending thread."""
        try:
            self.loop.call_soon_threadsafe(self._settle, error)
        except RuntimeError:
            # The loop is closed, and nobody waits there any more.
            return

    def _settle(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class _Drafting(Client):
    """Checks the arguments of one call, and keeps the messages instead of sending them."""

    def __init__(self, project: str | None) -> None:
        self._project = project
        self.drafts: list[Draft] = []

    def _send(self, ready: Sequence[Draft]) -> list[NotificationId]:
        self.drafts += ready
        return [id_ for draft in ready for id_ in draft.results()]


class _Sender:
    """The thread that sends for all calls; it starts with the first one, anew in a forked child.

    Args:
        client: sends, and knows the broker.
        timeout: seconds that the broker gets for each exchange.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._start_anew()
        this = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _start_anew(this()))

    def _start_anew(self) -> None:
        self._waiting: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    async def send(self, drafts: list[Draft]) -> None:
        """Send messages, and return when the broker has accepted them.

        Raises:
            BrokerUnavailable: not within the timeout.
        """
        loop = asyncio.get_running_loop()
        call = _Call(drafts, loop, loop.create_future())
        self._start()
        self._waiting.put(call)
        try:
            # Two exchanges: for idempotency keys, and for the messages.
            async with asyncio.timeout(2 * self._timeout + 1):
                await call.done
        except TimeoutError:
            raise BrokerUnavailable(
                f"the broker did not accept the message within {2 * self._timeout:g} s, because it does not answer; "
                "check that it runs and is reachable from here, then call again with the same key"
            ) from None
        finally:
            call.given_up = True

    def close(self) -> None:
        """Send what waits, and end the thread."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="knocktwice-sender", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        waiting = self._waiting
        while (call := waiting.get()) is not None:
            calls, ended = [call], False
            while len(calls) < _MOST_CALLS and not waiting.empty():
                following = waiting.get()
                if following is None:
                    ended = True
                    break
                calls.append(following)
            self._serve([c for c in calls if not c.given_up])
            if ended:
                return

    def _serve(self, calls: list[_Call]) -> None:
        error: Exception | None = None
        try:
            self._client._send([draft for call in calls for draft in call.drafts])
        except Exception as failure:  # noqa: BLE001 - it is raised again where it belongs, in each call
            error = failure
        for call in calls:
            call.settle(error if error is None or _concerns(error, call) else None)


def _concerns(error: Exception, call: _Call) -> bool:
    """Return whether an error is about one of a call's messages. A full broker names the messages that it refused."""
    if not isinstance(error, QueueFull) or not error.refused:
        return True
    return any(str(message.id) in error.refused for draft in call.drafts for message in draft.outgoing())


def _start_anew(sender: _Sender | None) -> None:
    if sender is not None:
        # The thread is the parent's; its callers wait there.
        sender._start_anew()


def _asynchronous(
    method: Callable[Concatenate[Client, _P], _R],
) -> Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, _R]]:
    """Return a method of :class:`~knocktwice.Client` as one to be awaited."""

    async def call(self: AsyncClient, /, *arguments: _P.args, **named: _P.kwargs) -> _R:
        drafting = _Drafting(self._client._project)
        drafting._router = self._client._router
        returned = method(drafting, *arguments, **named)
        if drafting.drafts:
            await self._send(drafting.drafts)
        # A used idempotency key has changed the ids.
        ids = [id_ for draft in drafting.drafts for id_ in draft.results()]
        if isinstance(returned, UUID):
            return cast("_R", ids[0])
        return cast("_R", ids) if isinstance(returned, list) else returned

    functools.update_wrapper(call, method)
    return call


class AsyncClient:
    """Knocks at people's phones from asyncio. Make one per process and keep it; loops and tasks may share it.

    A cancelled call sends nothing if its messages still waited in this process; else they may have been accepted, as
    after :class:`BrokerUnavailable`. Call again with the same ``key`` to be safe.

    Args:
        broker_url, state_url: as :class:`~knocktwice.Client` takes them.
        timeout: seconds the broker gets for each exchange. A call takes about twice that at most.
        durability, replicas, project, test, cells: as :class:`~knocktwice.Client` takes them.

    Raises:
        InvalidMessage: the project's name is none.
        KnocktwiceError: no broker is named and no local stack runs, the URL is not one, or there is no such level.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        *,
        state_url: str | None = None,
        timeout: float = 5.0,
        durability: Durability | str | None = None,
        replicas: int | None = None,
        project: str | None = None,
        test: bool = False,
        cells: str | os.PathLike[str] | None = None,
    ) -> None:
        client = partial(Client, timeout=timeout, durability=durability, replicas=replicas)
        self._client = client(broker_url, state_url=state_url, project=project, test=test, cells=cells)
        self._sender = _Sender(self._client, timeout)
        #: One for each cell, so that a cell that does not answer holds up nobody else's calls.
        self._senders: dict[int, _Sender] = {}
        if self._client._router is not None:
            for cell in self._client._router.cells.all:
                self._senders[cell.number] = _Sender(client(cell.broker), timeout)

    notify = _asynchronous(Client.notify)
    notify_many = _asynchronous(Client.notify_many)
    blast = _asynchronous(Client.blast)
    cancel = _asynchronous(Client.cancel)
    record_delivered = _asynchronous(Client.record_delivered)
    record_clicked = _asynchronous(Client.record_clicked)
    record_seen = _asynchronous(Client.record_seen)
    record_receipts = _asynchronous(Client.record_receipts)
    register_device = _asynchronous(Client.register_device)
    unregister_device = _asynchronous(Client.unregister_device)
    bind_phone = _asynchronous(Client.bind_phone)
    tag_user = _asynchronous(Client.tag_user)
    set_marketing_consent = _asynchronous(Client.set_marketing_consent)
    log_out_everywhere = _asynchronous(Client.log_out_everywhere)
    opt_out = _asynchronous(Client.opt_out)
    opt_in = _asynchronous(Client.opt_in)
    erase_user = _asynchronous(Client.erase_user)

    async def close(self) -> None:
        """Send what waits and close the connection. A later call opens another."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._sender.close()
        self._client.close()
        for sender in self._senders.values():
            sender.close()
            sender._client.close()

    async def _send(self, drafts: list[Draft]) -> None:
        if self._client._router is None:
            await self._sender.send(drafts)
            return
        from knocktwice import routing

        whole = [(draft, routing.split(draft, self._client._router.cells)) for draft in drafts]
        parts = [part for _, of in whole for part in of]
        outcomes = await asyncio.gather(*(self._send_part(part) for part in parts))
        if (failed := routing.failure(zip(parts, outcomes, strict=True))) is not None:
            raise failed
        for draft, of in whole:
            routing.collect(draft, of)

    async def _send_part(self, part: Part) -> BrokerUnavailable | None:
        try:
            await self._senders[part.cell.number].send([part.draft])
        except BrokerUnavailable as error:
            return error
        return None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
