"""Blasts: one notification to everybody in a segment, in steps that each can be killed at any line.

A *step* takes people from the segment for a few seconds, hands pages to workers and rings for itself again; a *page* is
sent like any batch, and rings for the next ones. Whatever gets lost is found by the dispatcher, as with deliveries.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_shared import subjects
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import blast_batch, parse_batch
from knocktwice_shared.names import Queue, Task
from knocktwice_worker.audience import segment_filter, segments
from knocktwice_worker.blasts import own_params, pages, standing, states
from knocktwice_worker.blasts.states import BlastState
from knocktwice_worker.notifications.pipeline.catch_up import PENDING
from knocktwice_worker.notifications.pipeline.concurrency import at_most
from knocktwice_worker.notifications.store import note_cancelled, settle_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from sqlalchemy import Connection, Engine

    from knocktwice_shared.cells import Cell
    from knocktwice_shared.messages import Batch
    from knocktwice_worker.blasts.pages import Page
    from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
    from knocktwice_worker.queues.lengths import Lengths

    #: Publishes a task for ids.
    Publish = Callable[[Task, Sequence[str]], None]
    #: Accepts and pushes batches, if what is asked in the transaction that writes their rows agrees.
    Send = Callable[[Sequence[Batch], Callable[[Connection], bool]], None]

log = structlog.get_logger(__name__)

#: People taken from the segment in one transaction.
_TAKEN = 5_000
#: The longest time of one step, well below the visibility timeout.
_STEP_S = 10.0
#: Messages waiting for pushes from which on no pages are handed out.
_MOST_WAITING = 40


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """Carries blasts out.

    Attributes:
        engine: for short transactions.
        catch_up: carries out what was accepted about a blast before a page is sent.
        queues: tells how many messages wait for pushes.
        lease: how long a worker may take for a step or a page before another one takes it up.
        send: accepts and pushes batches; the second argument is asked in the transaction that writes their rows.
        cell: whose number the notifications' ids carry, where there are cells.
    """

    engine: Engine
    catch_up: CatchUp
    queues: Lengths
    lease: timedelta
    send: Send
    cell: Cell | None = None

    def ring(self, publish: Publish) -> None:
        """Publish a step for each blast that is due."""
        with self.engine.begin() as conn:
            due = states.ring(conn, self.lease)
        for id_ in due:
            publish(Task.EXPAND_BLAST, [id_])

    def step(self, id_: str, publish: Publish) -> None:
        """Take people from the segment and publish their pages, for some seconds; or cancel an aborted blast's rest."""
        try:
            self._step(id_, publish)
        except InvalidMessage as error:
            self._give_up(id_, error)

    def send_page(self, id_: str, publish: Publish) -> None:
        """Notify the people of a page, once, and ring for the next ones."""
        blast = self._send_once(id_)
        if blast is not None:
            for page in self._released(blast, wait=False):
                publish(Task.SEND_PAGE, [page])

    def _give_up(self, id_: str, error: InvalidMessage) -> None:
        """Abort a blast that was right when it was started, by another version of this program, and is not any more."""
        with self.engine.begin() as conn:
            blast = standing.find(conn, id_)
            if blast is not None:
                states.abort(conn, blast.key, str(error), blast.project)
        log.error("blast given up", blast=id_, field=error.field)

    def _step(self, id_: str, publish: Publish) -> None:
        until = time.monotonic() + _STEP_S
        taken = 0
        while time.monotonic() < until:
            more = self.expand(id_)
            if more is None:
                for page in self._released(id_, wait=True):
                    publish(Task.SEND_PAGE, [page])
                break
            taken += more
        else:
            publish(Task.EXPAND_BLAST, [id_])
        cancelled = self._cancel(id_, until)
        if taken or cancelled:
            log.info("blast stepped", blast=id_, taken=taken, cancelled=cancelled)

    def expand(self, id_: str) -> int | None:
        """Write the next pages with the cursor behind them.

        Returns:
            How many people they have; ``None``: there are none to write.
        """
        with self.engine.begin() as conn:
            blast = states.lock(conn, id_)
            if blast is None or blast.expanded_at:
                return None
            wanted = segment_filter.parse(blast.filter, "filter")
            users = segments.members(conn, wanted, blast.cursor, _TAKEN)
            last, cursor = len(users) < _TAKEN, users[-1] if users else None
            if blast.own_params:
                given = own_params.of(conn, id_, users)
                users = [user for user in users if user in given]
            pages.write(conn, blast, users, last=last, lease=self.lease, cursor=cursor, cell=self.cell)
        return len(users)

    def _released(self, id_: str, *, wait: bool) -> list[str]:
        # The broker is asked first: without one no page is handed out.
        full = self.queues.lengths()[Queue.PUSH] >= _MOST_WAITING
        with self.engine.begin() as conn:
            blast = states.lock(conn, id_, wait=wait)
            if blast is None:
                return []
            return pages.release(conn, blast, self.lease, most=0 if full else pages.IN_FLIGHT)

    @at_most(2)
    def _send_once(self, id_: str) -> str | None:
        """Send a page; return the id of its blast, or ``None`` if another worker did."""
        # The page is read inside of ``at_most``: another worker may have sent it while this one waited.
        with self.engine.begin() as conn:
            page = pages.find(conn, id_)
            own = (
                None
                if page is None or not page.own_params
                else own_params.of(conn, page.blast_id, page.people.values())
            )
        if page is None:
            return None
        # Who was erased meanwhile has no values any more.
        people = {id_: user for id_, user in page.people.items() if own is None or user in own}
        message = dict(page.message)
        params = message.pop("params", {})
        try:
            if people:
                batch = parse_batch(blast_batch(message, params, page.id, people, own))
                self.send([batch], lambda conn: self._take(conn, page))
            else:
                with self.engine.begin() as conn:
                    pages.take(conn, id_)
        except InvalidMessage as error:
            self._give_up(page.blast_id, error)
            return None
        return page.blast_id

    def _take(self, conn: Connection, page: Page) -> bool:
        if self._is_pending(page):
            pages.put_back(conn, page.id, PENDING)
            return False
        wanted = pages.take(conn, page.id)
        if wanted and page.own_params:
            own_params.used(conn, page.blast_id, page.people.values())
        return wanted

    def _is_pending(self, page: Page) -> bool:
        """Carry out what was accepted about a blast; return whether something is still pending."""
        try:
            return bool(self.catch_up.about([subjects.blast(page.key)]))
        except RedisError:
            # Then it is unknown about all its people, and ``send`` lets them wait.
            return False

    def _cancel(self, id_: str, until: float) -> int:
        with self.engine.begin() as conn:
            if states.lock(conn, id_, BlastState.ABORTED) is None:
                return 0
            pages.discard(conn, id_)
        cancelled = 0
        while time.monotonic() < until:
            # A cancellation is committed before it is carried out: see the pipeline's.
            with self.engine.begin() as conn:
                page = pages.next_to_cancel(conn, id_)
                if page is None:
                    break
                note_cancelled(conn, page.open, (), datetime.now(UTC))
            with self.engine.begin() as conn:
                settle_cancelled(conn, page.open)
                pages.cancelled(conn, page.id)
            cancelled += len(page.open)
        return cancelled
