"""Sending for all faces: the checks, limits and idempotency of ``/v1/notifications`` and ``/v1/blasts``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.blasts import request as blast_request
from knocktwice_worker.blasts import standing
from knocktwice_worker.gateway.auth.access import here, outbox
from knocktwice_worker.gateway.faces import message_codes
from knocktwice_worker.gateway.intake import idempotency
from knocktwice_worker.gateway.intake.outbox import identify
from knocktwice_worker.gateway.transactions import writing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from starlette.requests import Request

    from knocktwice.drafts import Draft
    from knocktwice_shared.messages import Blast
    from knocktwice_worker.gateway.auth.keys import Key
    from knocktwice_worker.services import Services

#: The header by which a request that is sent again is the same request.
IDEMPOTENCY_KEY = "idempotency-key"


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of a request.

    Attributes:
        code: stands for all of it; :mod:`knocktwice_worker.gateway.faces.message_codes`.
        ids: the notifications; none for a blast.
        duplicate: of a blast: its key was used before, so nothing happened.
        differs: of such a blast: it is for other people, or says something else.
    """

    code: str
    ids: Sequence[UUID] = ()
    duplicate: bool = False
    differs: bool = False


def repeated(request: Request, own: str | None = None) -> str | None:
    """Return the idempotency key of a request: that of its body, or else that of its head.

    Raises:
        InvalidMessage: it is too long, or there are several.
    """
    given = request.headers.getlist(IDEMPOTENCY_KEY)
    if len(given) > 1 or (given and own is not None):
        raise InvalidMessage(IDEMPOTENCY_KEY, "is given twice; send one")
    key = own if own is not None else given[0] if given else None
    if key is not None and not (1 <= len(key) <= idempotency.KEY_LIMIT and key.isprintable()):
        raise InvalidMessage(IDEMPOTENCY_KEY, f"must have 1 to {idempotency.KEY_LIMIT} printable characters")
    return key


def in_batches(count: int) -> Iterable[range]:
    """Return the places of so many recipients, batch by batch."""
    return (range(first, min(first + BATCH_LIMIT, count)) for first in range(0, count, BATCH_LIMIT))


async def checked(
    request: Request, drafts: Iterable[Draft], words: Callable[[InvalidMessage], InvalidMessage]
) -> list[Draft]:
    """Return drafts that a worker could serve, as far as that is known here.

    Args:
        words: renames the contract's fields in an error to the request's.

    Raises:
        InvalidMessage: one could not be served.
    """
    ready = list(drafts)
    try:
        for draft in ready:
            if draft.parsed is not None:
                await request.app.state.admission.check(draft.parsed)
    except InvalidMessage as error:
        raise words(error) from None
    return ready


async def notify(request: Request, key: Key, drafts: Sequence[Draft], body: object, repeat: str | None) -> Sent:
    """Hand drafts to the broker.

    Args:
        key: whose request it is.
        body: the decoded body, which a repeat must have, too.
        repeat: the idempotency key.

    Raises:
        Problem: the idempotency key was used for something else, or too much is waiting.
        BrokerUnavailable: a repeat with the same idempotency key is safe.
    """
    root = uuid7()
    ids: list[UUID] = []
    for number, draft in enumerate(drafts):
        identify(draft, message_codes.batch_id(root, number))
        own = f"{repeat}#{number}" if number else repeat
        claim = None if own is None else idempotency.claim(key.id, own, body, draft.id)
        ids += await outbox(request).send(draft, claim)
        if number == 0:
            # A repeat has taken over the id of its first time.
            root = draft.id
    return Sent(message_codes.of(root, ids), ids)


async def blast(request: Request, wanted: Blast, words: Callable[[InvalidMessage], InvalidMessage]) -> Sent:
    """Start a blast; a key starts once.

    Args:
        words: renames the contract's fields in an error to the request's.

    Raises:
        InvalidMessage: there is no such segment, a parameter is missing, or a delay is not allowed.
    """
    try:
        return await run_in_threadpool(_start, here(request), wanted)
    except InvalidMessage as error:
        raise words(error) from None


def _start(services: Services, wanted: Blast) -> Sent:
    with writing(services) as conn:
        started = blast_request.start(conn, wanted, settings=services.settings)
        differs = not started.new and standing.of(conn, wanted) is not None and blast_request.differs(conn, wanted)
    return Sent(str(started.id), duplicate=not started.new, differs=differs)
