"""The push: write a batch's rows and countdowns, push to every device, record what the provider said."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from knocktwice_shared import subjects
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import TTL_LIMIT, Batch, Category, Push, ReceiptEvent, Recipient
from knocktwice_shared.test_side import is_test
from knocktwice_worker.channels import stand_in
from knocktwice_worker.channels.deadline import Deadline
from knocktwice_worker.channels.messages import PushMessage
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown, patience
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.content import plans, rendering, resolution
from knocktwice_worker.content.pushes import FilledPush, PushForm
from knocktwice_worker.lifecycle import WAITS_TURN, AttemptState, Note
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.notifications.pipeline.catch_up import PENDING
from knocktwice_worker.notifications.pipeline.pauses import PUSH_PROVIDER, a_push
from knocktwice_worker.notifications.pipeline.send_time import SendTimes, send_times
from knocktwice_worker.notifications.store.paused import with_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection, Engine

    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.outbound.pacing import Pace
    from knocktwice_worker.channels.outbound.troubles import Troubles
    from knocktwice_worker.channels.provider import Provider
    from knocktwice_worker.content.links.receipt_urls import ReceiptUrls
    from knocktwice_worker.content.links.short_links import Tracker
    from knocktwice_worker.notifications.pipeline.catch_up import CatchUp
    from knocktwice_worker.notifications.pipeline.pauses import PauseGate

log = structlog.get_logger(__name__)

#: A push leaves within this part of its lease; the rest is for the answer and its record.
_OF_LEASE = 0.8

#: How old the last look at cancellations may be when a push leaves. A worker that stood still for longer looks again,
#: and its requests leave within the same time after that look.
_FRESH = timedelta(seconds=1)

#: First wait before a push is tried again when the provider names none.
_BACKOFF = timedelta(seconds=10)


@dataclass(slots=True)
class _Written:
    """The texts of the notifications of a batch.

    Attributes:
        pushes: notification id → its push.
        unwritable: notification id → why its push cannot be written, though a step behind it can.
        problems: notification id → why nothing of it can go out.
    """

    pushes: dict[str, FilledPush] = field(default_factory=dict)
    unwritable: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A batch whose texts are filled in."""

    resolved: resolution.Resolution
    written: _Written
    ttl: timedelta
    times: SendTimes

    @property
    def intake(self) -> store.Intake:
        resolved = self.resolved
        problems = {**self.written.problems, **self.times.problems}
        unwritable = self.written.unwritable
        return store.Intake(
            resolved.batch, problems, self.ttl, resolved.content, resolved.locales, self.times.later, unwritable
        )


@dataclass(frozen=True, slots=True)
class Allowed:
    """The bounds that operators set for batches.

    Attributes:
        least_s, most_s: shortest and longest delay of a step, in seconds.
        max_ahead_days: how far ahead ``send_at`` may lie.
    """

    least_s: float
    most_s: float
    max_ahead_days: int


@dataclass(frozen=True, kw_only=True)
class Pushes:
    """Accepts batches and pushes them.

    Attributes:
        engine: for short transactions.
        catch_up: carries out what was said about people and notifications before the push.
        erased_meanwhile: returns the notifications of batches whose people were erased while these were written.
        channel: the push channel.
        transport: carries its requests.
        pace: how fast the push provider may be spoken to.
        troubles: takes notice of a provider that refuses us or fails.
        links: returns what makes the links in a step's message, if anything does.
        receipt_urls: makes the addresses at which apps report; ``None``: apps could not reach them.
        allowed: what batches may ask for.
        default_zone: IANA name of the zone of recipients about whom nothing is known.
        lease: how long a worker may take before another one makes the pushes.
        retry_for: how long after the time it was to go out a push is still retried.
        ttl_grace: how long a push outlives the countdown of its first step.
        useless_after: how long after it was due a push may still go, by category.
        pauses: stops pushes that operators have paused.
    """

    engine: Engine
    catch_up: CatchUp
    erased_meanwhile: Callable[[Connection, Sequence[Batch]], Sequence[str]]
    channel: Provider[PushMessage]
    transport: Carrier
    pace: Pace
    troubles: Troubles
    links: Callable[[str, int], Tracker | None]
    receipt_urls: ReceiptUrls | None
    allowed: Allowed
    default_zone: str
    lease: timedelta
    retry_for: timedelta
    ttl_grace: timedelta
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
        ready = [self._prepare(one, held) for one in resolved]
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
            self._message(w, r.written.pushes[w.notification_id], r.ttl, r.resolved.batch.project) for w, r in shown
        ]
        messages, look = self._looked_again(self._wanted(messages) if erased else messages, look)
        self._deliver(messages, min(lease, look.later(_FRESH)), complete=True)

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
        made: list[PushMessage] = []
        broken: list[store.PushResult] = []
        forms: dict[tuple[str, str | None], PushForm] = {}
        for w in work:
            person = people[w.notification_id]
            batch = batches[person.batch_id]
            push, _ = rendering.of(batch.content, person.locale)
            if push is None:
                continue
            form = forms.setdefault((person.batch_id, person.locale), PushForm(push))
            try:
                filled = form.fill(person.params)
            except InvalidMessage as error:
                # It could be filled in when it was accepted, by another version of this program. It must not stop the
                # others.
                broken.append(store.PushResult(w.notification_id, w.registration, AttemptState.REJECTED, str(error)))
                continue
            made.append(self._message(w, filled, batch.ttl, person.project))
        if broken:
            with self.engine.begin() as conn:
                store.record_push(conn, broken, retry_for=self.retry_for)
        messages, look = self._looked_again(self._wanted(made), look)
        self._deliver(messages, min(lease, look.later(_FRESH)))

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

    def _paused_since(self, messages: Sequence[PushMessage]) -> tuple[set[str], Deadline]:
        """Return the pushes that were paused since their claim, and until when the others may leave.

        Those that were paused are given back at once; :meth:`resume` lets them wait for their pause.
        """
        look = self.pauses.look_with(self.engine)
        if not look.pauses:
            return set(), look.holds
        with self.engine.begin() as conn:
            return self.pauses.stopped_since(conn, map(a_push, {m.notification_id for m in messages}), pushes=True)

    def _prepare(self, resolved: resolution.Resolution, held: Mapping[str, datetime]) -> _Ready:
        written = self._write(resolved)
        times = send_times(
            self.engine,
            resolved.batch,
            default_zone=self.default_zone,
            max_ahead_days=self.allowed.max_ahead_days,
            useful_for=self._useful_for(resolved.batch),
        )
        if held:
            own = {str(r.id) for r in resolved.batch.recipients}
            waiting = {id_: since for id_, since in held.items() if id_ in own and id_ not in times.later}
            times = replace(times, later={**times.later, **waiting})
        return _Ready(resolved, written, self._ttl(resolved.batch), times)

    def _write(self, resolved: resolution.Resolution) -> _Written:
        """Fill in every text before anything is sent. A step that cannot be written stops none of the others."""
        written = _Written(problems=dict(resolved.problems))
        refused = self._delay_problem(resolved.batch)
        steps = resolved.batch.plan or ()
        kept = [plans.written(step) for step in steps]
        forms: dict[str | None, tuple[PushForm | None, Push | None, str | None]] = {}
        for recipient in resolved.batch.recipients:
            id_, values = str(recipient.id), recipient.values
            if refused:
                written.problems[id_] = refused
            if id_ in written.problems:
                continue
            locale = resolved.locales.get(id_)
            if locale not in forms:
                push, sms_text = resolved.own(id_)
                forms[locale] = None if push is None else PushForm(push), push, sms_text
            form, push, sms_text = forms[locale]
            filled, problem = _filled(form, values)
            broken = plans.problems(
                steps,
                push,
                sms_text,
                locale,
                values,
                partial(self.links, id_),
                kept=kept,
                body=None if filled is None else filled.body,
                wording_of=wording_of,
            )
            if filled is not None:
                written.pushes[id_] = filled
                continue
            first = problem or (broken[min(broken)] if len(broken) == len(steps) and broken else None)
            if first is None:
                continue
            told = f"{resolved.name(id_)}{first}"
            (written.problems if len(broken) == len(steps) else written.unwritable)[id_] = told
        return written

    def _delay_problem(self, batch: Batch) -> str | None:
        try:
            plans.check_delays(batch.plan or (), least_s=self.allowed.least_s, most_s=self.allowed.most_s)
        except InvalidMessage as error:
            return str(error)
        return None

    def _ttl(self, batch: Batch) -> timedelta:
        """A push lives as long as the fallback waits, so that a phone that reconnects late does not get both.

        It lives no longer than it is of use, if the message says how long that is, or if nothing follows it.
        """
        longest = min(batch.valid_for or TTL_LIMIT, TTL_LIMIT)
        if batch.ttl is not None:
            return min(batch.ttl, longest)
        if batch.plan:
            return min(batch.plan[0].after + self.ttl_grace, longest)
        return min(self._useful_for(batch), TTL_LIMIT)

    def _useful_for(self, batch: Batch) -> timedelta:
        return batch.valid_for or self.useless_after[batch.category or Category.TRANSACTIONAL]

    def _message(self, work: store.PushWork, filled: FilledPush, ttl: timedelta, project: str | None) -> PushMessage:
        urls = self.receipt_urls
        return PushMessage(
            notification_id=work.notification_id,
            registration=work.registration,
            title=filled.title,
            body=filled.body,
            ttl=ttl,
            push=filled.push,
            receipt_url=urls.url(work.notification_id, work.registration, now=time.time(), ttl_s=ttl.total_seconds())
            if urls
            else None,
            test=is_test(project),
        )

    def _deliver(self, messages: Sequence[PushMessage], lease: Deadline, *, complete: bool = False) -> None:
        if not messages:
            return
        paused, unpaused_until = self._paused_since(messages)
        results = [
            store.PushResult(
                m.notification_id,
                m.registration,
                AttemptState.OPEN,
                "paused",
                retry_after=timedelta(),
                untried=True,
            )
            for m in messages
            if m.notification_id in paused
        ]
        messages = [m for m in messages if m.notification_id not in paused]
        tests = [m for m in messages if m.test]
        results += [_result(m, stand_in.push(m)) for m in tests]
        # From here on no test is left, so the provider, its pace and its troubles know of none.
        messages = [m for m in messages if not m.test]
        # Pushes that are taken up again have waited.
        turn = self.pace.take([1] * len(messages), entitled=0 if complete else len(messages))
        outcomes = deliver(self.transport, self.channel, messages[: turn.granted], min(lease, unpaused_until))
        self.troubles.note(PUSH_PROVIDER, outcomes)
        results += [_result(m, o) for m, o in zip(messages, outcomes, strict=False)]
        for m, wait in zip(messages[turn.granted :], turn.waits, strict=True):
            waits = store.PushResult(
                m.notification_id, m.registration, AttemptState.OPEN, WAITS_TURN, retry_after=wait, untried=True
            )
            results.append(waits)
        if asked := patience(outcomes):
            self.pace.slow_down(asked.after)
        with self.engine.begin() as conn:
            again = store.record_push(conn, results, retry_for=self.retry_for, complete=complete)
            store.write_ledger(conn, _tested(tests))
        if again:
            with self.engine.begin() as conn:
                store.settle_cancelled(conn, again)
        if tests:
            self._report(tests)

    def _report(self, tests: Sequence[PushMessage]) -> None:
        """Record what the apps of a test would report, by how their registrations begin."""
        now = datetime.now(UTC)
        told = [
            ReceiptEvent(UUID(m.notification_id), kind, now, m.registration)
            for m in tests
            for kind in stand_in.receipts(m)
        ]
        if told:
            receipts.record(self.engine, told)


def _tested(tests: Sequence[PushMessage]) -> list[store.Decision]:
    """Return the lines of the ledger that tell of pushes which would have gone out."""
    devices = Counter(m.notification_id for m in tests)
    return [store.Decision(id_, Note.WOULD_HAVE_SENT, {"devices": count}, step=0) for id_, count in devices.items()]


def _filled(form: PushForm | None, params: Mapping[str, Any]) -> tuple[FilledPush | None, InvalidMessage | None]:
    """Return the push for a person, or why it cannot be written; nothing where there is none."""
    try:
        return None if form is None else form.fill(params), None
    except InvalidMessage as error:
        return None, error


def _result(message: PushMessage, outcome: Outcome) -> store.PushResult:
    ids = (message.notification_id, message.registration)
    match outcome:
        case Sent(provider_id):
            return store.PushResult(*ids, AttemptState.SENT, provider_id=provider_id)
        case Rejected(reason, detail, address_dead):
            text = f"{reason}: {detail}" if detail else reason
            return store.PushResult(*ids, AttemptState.REJECTED, text, address_dead=address_dead)
        case Retry(reason, after, ours=ours):
            return store.PushResult(*ids, AttemptState.OPEN, reason, retry_after=_wait(after), untried=ours)
        case Unknown(reason, after):
            return store.PushResult(*ids, AttemptState.OPEN, reason, retry_after=_wait(after))


def _wait(asked: timedelta | None) -> timedelta:
    """Return when to try again: spread, so that a batch that failed together does not come back together, and never early."""
    if asked is None:
        return _BACKOFF * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
    return asked * random.uniform(1, 1.2)  # noqa: S311 - no secret


def _subjects(recipient: Recipient) -> list[str]:
    """Return whom a notification concerns that is about to be written, beside its user."""
    found = [subjects.notification(recipient.id), *map(subjects.device, recipient.registrations)]
    return found if recipient.key is None else [*found, subjects.key(recipient.key)]
