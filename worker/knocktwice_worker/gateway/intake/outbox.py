"""From the event loop to the broker: what comes while others are sent waits a moment, and goes together.

A call of the producer library costs about the same for one message as for fifty, and it blocks. So one thread sends,
and takes along whatever has arrived meanwhile: a single request goes at once, and thousands a second share a few round
trips.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID  # noqa: TC003 - in the type of a future

import structlog
from redis.exceptions import RedisError

from knocktwice import address
from knocktwice.broker import KombuBroker
from knocktwice.durability import asked
from knocktwice_shared.errors import BrokerUnavailable, QueueFull
from knocktwice_worker.embedded.installation import broker_url, connect_redis
from knocktwice_worker.gateway.intake import idempotency
from knocktwice_worker.gateway.problems import Problem, full, unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice.drafts import Draft
    from knocktwice_shared.cells import Cell
    from knocktwice_worker.gateway.intake.idempotency import Claim
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: The header of an answer of 202 that says how safely the request is kept by now.
DURABILITY = "Knocktwice-Durability"
#: Its value where PostgreSQL has committed the request.
COMMITTED = "database"
#: Messages sent together.
_AT_ONCE = 200
#: Messages that may wait for their turn; more than that, and the broker is too slow for what comes in.
_MOST_WAITING = 5_000


@dataclass(slots=True)
class _Waiting:
    draft: Draft
    claim: Claim | None
    ids: asyncio.Future[list[UUID]]
    sent_before: bool = False
    refusal: Problem | None = None


class Outbox:
    """Hands messages to the broker. Make it inside a running event loop.

    Args:
        services: where the broker is.
        cell: whose broker it is instead, and whose number the notifications' ids carry.
    """

    def __init__(self, services: Services, cell: Cell | None = None) -> None:
        settings = services.settings
        #: What "accepted" means of the messages that go this way.
        self.durability = settings.durability
        self._redis = services.redis if cell is None else connect_redis(cell.broker)
        level = asked(settings.durability, settings.durability_replicas)
        place = address.find(broker_url(settings), settings.state_url) if cell is None else address.find(cell.broker)
        self._broker = KombuBroker(place, 5.0, level)
        self._thread = ThreadPoolExecutor(1, "outbox")
        self._waiting: deque[_Waiting] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def send(self, draft: Draft, claim: Claim | None = None) -> list[UUID]:
        """Send a message and return its notifications' ids, once the broker has it.

        Args:
            claim: of the request's ``Idempotency-Key``.

        Raises:
            Problem: the key was used for something else, or too much is waiting.
            BrokerUnavailable: the outcome is unknown, or the broker is full; a repeat with the same key is safe.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise unavailable("more comes in than the broker takes; slow down")
        waiting = _Waiting(draft, claim, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        return await waiting.ids

    async def close(self) -> None:
        """Send what waits and let go of the broker."""
        if self._sender is not None:
            await self._sender
        self._thread.shutdown()
        self._broker.close()

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            together = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            try:
                await loop.run_in_executor(self._thread, self._send, together)
            except BrokerUnavailable as error:
                # The requests that wait behind this one would wait as long for the same answer, so they are refused,
                # too.
                together += self._waiting
                self._waiting.clear()
                _fail(together, error)
            except Exception as error:  # noqa: BLE001 - raised again in the requests whose message it was
                _fail(together, error)
            else:
                _answer(together)

    def _send(self, together: Sequence[_Waiting]) -> None:
        try:
            claimed = [w for w in together if w.claim is not None]
            if claimed:
                self._hold(claimed)
            fine = [w for w in together if w.refusal is None]
            self._adopt_keys([w.draft for w in fine])
            self._accept([w for w in fine if not w.sent_before])
        except RedisError as error:
            raise BrokerUnavailable(f"the broker does not answer: {type(error).__name__}") from error
        done = [(w.claim, w.draft.id) for w in fine if w.claim is not None and not w.sent_before and w.refusal is None]
        try:
            if done:
                idempotency.finish(self._redis, done)
        except RedisError as error:
            # A repeat then publishes the same ids again, which is harmless.
            log.warning("idempotency keys not finished", error=type(error).__name__)

    def _accept(self, waiting: Sequence[_Waiting]) -> None:
        """Have the broker accept messages; a request of which it has no room for a part is refused, alone."""
        outgoing = [(w, message) for w in waiting for message in w.draft.outgoing()]
        try:
            self._broker.accept(message for _, message in outgoing)
        except QueueFull as error:
            if not error.refused:
                raise
            for one, message in outgoing:
                if str(message.id) in error.refused:
                    one.refusal = full(error)

    def _hold(self, claimed: Sequence[_Waiting]) -> None:
        held = idempotency.hold(self._redis, [w.claim for w in claimed if w.claim is not None])
        for waiting, first in zip(claimed, held, strict=True):
            if waiting.claim is None or first.body != waiting.claim.body:
                waiting.refusal = Problem(
                    "idempotency-key-reused",
                    "this Idempotency-Key came with another body before; use a new one for a new request",
                    field="Idempotency-Key",
                )
                continue
            waiting.sent_before = first.done
            if first.batch != waiting.draft.id:
                identify(waiting.draft, first.batch)

    def _adopt_keys(self, drafts: Sequence[Draft]) -> None:
        proposals = {key: use for draft in drafts for key, use in draft.proposals().items()}
        if proposals:
            first = self._broker.claim_keys(proposals)
            for draft in drafts:
                draft.adopt(first)


def identify(draft: Draft, batch: UUID) -> None:
    """Give a batch and all of its notifications the ids that follow from ``batch``."""
    draft.id = batch
    draft.wire["id"] = str(batch)
    places = range(len(draft.ids)) if draft.places is None else draft.places
    draft.ids = [idempotency.notification_id(batch, place) for place in places]
    if draft.cell is not None:
        draft.ids = [draft.cell.marked(id_) for id_ in draft.ids]
    for recipient, id_ in zip(draft.wire["recipients"], draft.ids, strict=True):
        recipient["id"] = str(id_)


def _answer(together: Sequence[_Waiting]) -> None:
    for waiting in together:
        if waiting.ids.done():  # The request was given up.
            continue
        if waiting.refusal is not None:
            waiting.ids.set_exception(waiting.refusal)
        else:
            waiting.ids.set_result(waiting.draft.ids)


def _fail(together: Sequence[_Waiting], error: Exception) -> None:
    for waiting in together:
        if not waiting.ids.done():
            waiting.ids.set_exception(error)
