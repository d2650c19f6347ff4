"""Blasts: one notification to everybody in a segment, in steps that each can be killed at any line.

A *step* takes people from the segment for a few seconds, hands pages to workers and rings for itself again; a *page* is
sent like any batch, and rings for the next ones. Whatever gets lost is found by the dispatcher, as with deliveries.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import structlog

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import blast_id
from knocktwice_shared.messages import blast_batch, parse_batch
from knocktwice_shared.names import Queue, Task
from knocktwice_worker.audience import segment_filter, segments
from knocktwice_worker.blasts import content as blast_content
from knocktwice_worker.blasts import store as blast_store
from knocktwice_worker.content import plans
from knocktwice_worker.content.links.short_links import example
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.concurrency import at_most
from knocktwice_worker.privacy import erasure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.audience.segment_filter import Filter
    from knocktwice_worker.blasts.content import BlastContent
    from knocktwice_worker.config import Settings
    from knocktwice_worker.services import Services

    Publish = Callable[[Task, Sequence[str]], None]

log = structlog.get_logger(__name__)

#: People taken from the segment in one transaction.
_TAKEN = 5_000
#: How long a step goes on; well within the visibility timeout.
_STEP_S = 10.0
#: Messages waiting for pushes from which on no pages are handed out.
_MOST_WAITING = 40


class Started(NamedTuple):
    """A blast's id, and whether it is new: a key that was used before starts nothing."""

    id: UUID
    new: bool


def start(conn: Connection, blast: Blast, schedule: str | None = None, *, settings: Settings | None = None) -> Started:
    """Start a blast, which a worker takes up within its next tick.

    Args:
        schedule: the recurring blast that it is one of.
        settings: how long the links in its texts are, and which delays are allowed; without them neither is looked at.

    Raises:
        InvalidMessage: there is no such segment or template, the filter is none, a parameter is missing, or a delay is
            not allowed. The key stays free.
    """
    if blast_store.find(conn, blast.key) is None:
        wanted = audience(conn, blast)
        check_content(conn, blast, settings)
        if blast_store.start(conn, blast, segment_filter.dump(wanted), schedule):
            return Started(blast_id(blast.key), True)
    return Started(blast_id(blast.key), False)


def audience(conn: Connection, blast: Blast) -> Filter:
    """Return who a blast is for.

    Raises:
        InvalidMessage: there is no such segment, or the filter is none.
    """
    if blast.segment is None:
        return segment_filter.parse(blast.filter, "filter")
    try:
        return segments.get(conn, blast.segment).filter
    except segments.UnknownSegment as error:
        raise InvalidMessage("segment", str(error)) from None


def check_content(conn: Connection, blast: Blast, settings: Settings | None = None) -> BlastContent:
    """Return what a blast says, filled in once: what is missing is missing for all.

    Raises:
        InvalidMessage: a parameter is missing, a text is too long, a delay is not allowed, or there is no such template.
    """
    said = blast_content.of(conn, blast)
    try:
        if settings is not None:
            plans.check_delays(said.plan, least_s=settings.min_after_s, most_s=settings.max_after_s)
        said.check(example(settings.link_address) if settings else None)
    except InvalidMessage as error:
        if blast.template is None:
            raise
        raise InvalidMessage(f"template {blast.template} {error.field}", error.problem) from None
    return said


def ring(services: Services, publish: Publish) -> None:
    """Publish a step for each blast that is due."""
    with services.engine.begin() as conn:
        due = blast_store.ring(conn, services.settings.lease)
    for id_ in due:
        publish(Task.EXPAND_BLAST, [id_])


def step(services: Services, id_: str, publish: Publish) -> None:
    """Take people from the segment and hand them out, for a few seconds; or cancel what an aborted blast has sent."""
    try:
        _step(services, id_, publish)
    except InvalidMessage as error:
        _give_up(services, id_, error)


def _give_up(services: Services, id_: str, error: InvalidMessage) -> None:
    """Abort a blast that was right when it was started, by another version of this program, and is not any more."""
    with services.engine.begin() as conn:
        blast = blast_store.find(conn, id_)
        if blast is not None:
            blast_store.abort(conn, blast.key, str(error))
    log.error("blast given up", blast=id_, field=error.field)


def _step(services: Services, id_: str, publish: Publish) -> None:
    until = time.monotonic() + _STEP_S
    taken = 0
    while time.monotonic() < until:
        more = _expand(services, id_)
        if more is None:
            for page in _released(services, id_, wait=True):
                publish(Task.SEND_PAGE, [page])
            break
        taken += more
    else:
        publish(Task.EXPAND_BLAST, [id_])
    cancelled = _cancel(services, id_, until)
    if taken or cancelled:
        log.info("blast stepped", blast=id_, taken=taken, cancelled=cancelled)


def _expand(services: Services, id_: str) -> int | None:
    """Write the next pages with the cursor behind them; ``None`` when there are none to write."""
    lease = services.settings.lease
    with services.engine.begin() as conn:
        blast = blast_store.lock(conn, id_)
        if blast is None or blast.expanded_at:
            return None
        wanted = segment_filter.parse(blast.filter, "filter")
        users = segments.members(conn, wanted, blast.cursor, _TAKEN)
        blast_store.write_pages(conn, blast, users, last=len(users) < _TAKEN, lease=lease)
    return len(users)


def _released(services: Services, id_: str, *, wait: bool) -> list[str]:
    # Asked first, so that without a broker no page is handed out.
    full = services.redis.llen(Queue.PUSH) >= _MOST_WAITING
    with services.engine.begin() as conn:
        blast = blast_store.lock(conn, id_, wait=wait)
        if blast is None:
            return []
        most = 0 if full else blast_store.IN_FLIGHT
        return blast_store.release(conn, blast, services.settings.lease, most=most)


def send_page(services: Services, id_: str, publish: Publish) -> None:
    """Notify the people of a page, once, and ring for the next ones."""
    blast = _send(services, id_)
    if blast is not None:
        for next_ in _released(services, blast, wait=False):
            publish(Task.SEND_PAGE, [next_])


@at_most(2)
def _send(services: Services, id_: str) -> str | None:
    """Send a page; return the id of its blast, or ``None`` if somebody else did."""
    # Only when it is its turn: while it waited, somebody may have been faster.
    with services.engine.begin() as conn:
        page = blast_store.page(conn, id_)
    if page is None:
        return None
    message = dict(page.message)
    params = message.pop("params", {})
    try:
        if page.people:
            batch = parse_batch(blast_batch(message, params, page.id, page.people))
            batch = erasure.without_erased(services, batch)
            services.pushes.send_all([batch], lambda conn: blast_store.take(conn, page.id))
        else:
            with services.engine.begin() as conn:
                blast_store.take(conn, id_)
    except InvalidMessage as error:
        _give_up(services, page.blast_id, error)
        return None
    return page.blast_id


def abort(conn: Connection, key: str, reason: str) -> bool:
    """End a blast by its key, and with it what was not sent; workers do that page by page."""
    return blast_store.abort(conn, key, reason)


def _cancel(services: Services, id_: str, until: float) -> int:
    with services.engine.begin() as conn:
        if blast_store.lock(conn, id_, "aborted") is None:
            return 0
        blast_store.discard(conn, id_)
    cancelled = 0
    while time.monotonic() < until:
        # Committed before it is carried out, as every cancellation: see cancellation.py.
        with services.engine.begin() as conn:
            next_ = blast_store.next_to_cancel(conn, id_)
            if next_ is None:
                break
            page, ids = next_
            store.note_cancelled(conn, ids, (), datetime.now(UTC))
        with services.engine.begin() as conn:
            store.settle_cancelled(conn, ids)
            blast_store.cancelled(conn, page)
        cancelled += len(ids)
    return cancelled
