"""The push: accept batches, write their rows and countdowns, and take up pushes that wait for another try."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_shared import subjects
from knocktwice_shared.messages import Batch, Category, Recipient
from knocktwice_worker.channels.deadline import Deadline
from knocktwice_worker.content import resolution
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.catch_up import PENDING
from knocktwice_worker.notifications.pipeline.pauses import a_push
from knocktwice_worker.notifications.store.paused import with_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from knocktwice_worker.channels.messages import PushMessage
    from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
    from knocktwice_worker.notifications.pipeline.pauses import PauseGate
    from knocktwice_worker.notifications.pipeline.push_delivery import PushDelivery
    from knocktwice_worker.notifications.pipeline.push_texts import PushTexts

log = structlog.get_logger(__name__)

#: A push leaves within this part of its lease; the rest is for the answer and its record.
_OF_LEASE = 0.8

#: How old the last look at cancellations may be when a push leaves. A worker that stood still for longer looks again,
#: and its requests leave within the same time after that look.
_FRESH = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Pushes:
    """Accepts batches and pushes them.

    Attributes:
        engine: for short transactions.
        catch_up: carries out what was said about people and notifications before the push.
        erased_meanwhile: returns the notifications of batches whose people were erased while these were written.
        texts: writes the pushes.
        delivery: hands them to the provider.
        lease: how long a worker may take before another one makes the pushes.
        useless_after: how long after it was due a push may still go, by category.
        pauses: stops pushes that operators have paused.
    """

    engine: Engine
    catch_up: CatchUp
    erased_meanwhile: Callable[[Connection, Sequence[Batch]], Sequence[str]]
    texts: PushTexts
    delivery: PushDelivery
    lease: timedelta
    useless_after: Mapping[Category, timedelta]
    pauses: PauseGate

    def send(self, batch: Batch) -> None:
        """Accept a batch and push it, as :func:`send_all` does."""
        self.send_all([batch])

    def send_all(self, batches: Sequence[Batch], wanted: Callable[[Connection], bool] = lambda _: True) -> None:
        """Accept batches and push them together. Safe to repeat: recipients that were accepted before are left alone.

        Args:
            wanted: asked in the transaction that writes the rows; unless it agrees nothing is written.
        """
        # From before the first look: what is accepted after it is not seen any more.
        look = Deadline.within(_FRESH)
        held = self._held(batches)
        # From before the rows are written: past the lease another worker makes the pushes.
        lease = Deadline.within(self.lease * _OF_LEASE)
        resolved = resolution.resolve(self.engine, batches)
        held = self._paused(resolved, held)
        ready = [self.texts.prepare(one, held) for one in resolved]
        with self.engine.begin() as conn:
            if not wanted(conn):
                return
            work = store.accept(conn, [r.intake for r in ready], lease=self.lease)
        erased = self._stop_unwanted(batches)
        pushed = {w.notification_id for w in work}
        # record_push checks the pushes that go out now, check_fallback the steps that are due; only waiting ones are
        # checked here.
        waiting = {
            id_
            for r in ready
            for id_ in (
                *r.times.later,
                *((*r.written.pushes, *r.written.unwritable) if r.resolved.batch.plan else ()),
            )
        } - pushed
        if waiting:
            with self.engine.begin() as conn:
                store.settle_cancelled(conn, sorted(waiting))
        people = {id_: r for r in ready for id_ in r.written.pushes}
        log.info(
            "batches accepted",
            first=str(ready[0].resolved.batch.id),
            batches=len(ready),
            notifications=sum(len(r.resolved.batch.recipients) for r in ready),
            pushes=len(work),
        )
        shown = ((w, people[w.notification_id]) for w in work)
        messages: Sequence[PushMessage] = [
            self.texts.message(w, r.written.pushes[w.notification_id], r.ttl, r.resolved.batch.project)
            for w, r in shown
        ]
        messages, look = self._looked_again(self._wanted(messages) if erased else messages, look)
        self.delivery.deliver(messages, min(lease, look.later(_FRESH)), complete=True)

    def _stop_unwanted(self, batches: Sequence[Batch]) -> bool:
        """Note as cancelled whose person was erased, or what a project cancelled, while the rows were being written.

        Returns:
            Whether somebody was erased.
        """
        projects = {str(r.id): b.project for b in batches if b.project is not None for r in b.recipients}
        with self.engine.begin() as conn:
            erased = self.erased_meanwhile(conn, batches)
            if erased:
                store.note_cancelled(conn, erased, [], datetime.now(UTC))
            if projects:
                store.adopt_cancelled(conn, projects)
        return bool(erased)

    def resume(self, ids: Sequence[str]) -> None:
        """Take up pushes that a provider asked to repeat or whose worker died. A repeated push replaces itself."""
        look = Deadline.within(_FRESH)
        pending = self._pending(ids)
        lease = Deadline.within(self.lease * _OF_LEASE)
        store.end_useless(self.engine, ids, self.useless_after)
        with self.engine.begin() as conn:
            waiting = pending - store.overdue(conn, sorted(pending), self.catch_up.patience) if pending else set()
            store.postpone_pushes(conn, sorted(waiting), PENDING)
            store.not_awaited(conn, len(pending) - len(waiting), self.catch_up.patience.total_seconds())
            free = [id_ for id_ in ids if id_ not in waiting]
            paused = self.pauses.stop(conn, map(a_push, free), self.useless_after, pushes=True)
            work = store.claim_push(conn, [id_ for id_ in free if id_ not in paused], self.lease)
            people = store.push_contents(conn, [w.notification_id for w in work])
            batches = store.contents(conn, (person.batch_id for person in people.values()))
        made, broken = self.texts.refill(work, people, batches)
        if broken:
            with self.engine.begin() as conn:
                store.record_push(conn, broken, retry_for=self.delivery.retry_for)
        messages, look = self._looked_again(self._wanted(made), look)
        self.delivery.deliver(messages, min(lease, look.later(_FRESH)))

    def _pending(self, ids: Sequence[str]) -> set[str]:
        """Carry out what was accepted about these notifications; return those about which something is still pending.

        Without Redis that is unknown, so it may be all. Redis accepts nothing meanwhile, so the wait is limited.
        """
        try:
            return self.catch_up.notifications(self.engine, ids)
        except RedisError as error:
            log.warning("pushes wait for the inbox", error=type(error).__name__)
            return set(ids)

    def _looked_again(self, messages: Sequence[PushMessage], look: Deadline) -> tuple[Sequence[PushMessage], Deadline]:
        """Look again if the last look is too old, and return until when the present look counts.

        Cancelled pushes end. Those about which something is still pending, and those whose device is not the person's any
        more, are left to the end of their lease.
        """
        if not messages or not look.over:
            return messages, look
        look = Deadline.within(_FRESH)
        pending = self._pending(list({m.notification_id for m in messages}))
        return self._still_theirs(self._wanted([m for m in messages if m.notification_id not in pending])), look

    def _wanted(self, messages: Sequence[PushMessage]) -> Sequence[PushMessage]:
        """Look once more, right before the call, for what was cancelled or ended since the claim."""
        if not messages:
            return messages
        with self.engine.begin() as conn:
            stopped = store.stop_claimed(conn, {m.notification_id for m in messages})
        return [m for m in messages if m.notification_id not in stopped]

    def _still_theirs(self, messages: Sequence[PushMessage]) -> Sequence[PushMessage]:
        if not messages:
            return messages
        with self.engine.begin() as conn:
            moved = store.moved(conn, [(m.notification_id, m.registration) for m in messages])
        return [m for m in messages if (m.notification_id, m.registration) not in moved]

    def _held(self, batches: Sequence[Batch]) -> Mapping[str, datetime]:
        """Return the notifications that wait, and since when, because something about them could not be carried out yet.

        They are written as those are that go out later, and taken up by :meth:`resume`.
        """
        recipients = [r for batch in batches for r in batch.recipients]
        users = list(dict.fromkeys(r.user for r in recipients if r.user is not None))
        try:
            pending_users = self.catch_up.people(self.engine, users)
            pending = self.catch_up.about(subject for r in recipients for subject in _subjects(r))
        except RedisError as error:
            # Somebody's device may have been accepted and be in no row yet: they would be texted as if they had none.
            log.warning("pushes wait for the inbox", error=type(error).__name__)
            held = [str(r.id) for r in recipients]
        else:
            if not pending and not pending_users:
                return {}
            held = [str(r.id) for r in recipients if r.user in pending_users or pending.intersection(_subjects(r))]
        with self.engine.begin() as conn:
            now = store.now(conn)
        return dict.fromkeys(held, now)

    def _paused(
        self, resolved: Sequence[resolution.Resolution], held: Mapping[str, datetime]
    ) -> Mapping[str, datetime]:
        """Return what waits, with the pushes that an operator has paused. :meth:`resume` lets them wait for their pause.

        A person without a device gets no push that could wait, so the message behind it does not wait either.
        """
        pauses = self.pauses.look_with(self.engine).pauses
        if not pauses:
            return held
        batches = [one.batch for one in resolved]
        stopped = [
            r
            for batch in batches
            for r in batch.recipients
            if pauses.stopping(a_push(str(r.id)), batch.category or Category.TRANSACTIONAL, batch.template)
        ]
        if not stopped:
            return held
        with self.engine.begin() as conn:
            now = store.now(conn)
            waiting = with_device(conn, stopped)
        return {**dict.fromkeys(sorted(waiting), now), **held}


def _subjects(recipient: Recipient) -> list[str]:
    """Return whom a notification concerns that is about to be written, beside its user."""
    found = [subjects.notification(recipient.id), *map(subjects.device, recipient.registrations)]
    return found if recipient.key is None else [*found, subjects.key(recipient.key)]
