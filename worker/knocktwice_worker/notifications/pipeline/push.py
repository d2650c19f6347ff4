"""The first knock: write a batch's rows and countdowns, push to every device, record what the provider said."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import structlog

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import TTL_LIMIT, Batch, Push
from knocktwice_worker.channels.messages import PushMessage
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown, patience
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.content import plans, rendering, resolution
from knocktwice_worker.content.rendering import Texts, render
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.send_time import SendTimes, send_times

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: First wait before a push is tried again when the provider names none.
_BACKOFF = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A batch whose texts are filled in."""

    resolved: resolution.Resolution
    contents: dict[str, tuple[Push, Texts]]
    problems: dict[str, str]
    ttl: timedelta
    times: SendTimes

    @property
    def intake(self) -> store.Intake:
        resolved = self.resolved
        return store.Intake(
            resolved.batch, self.problems, self.ttl, resolved.content, resolved.locales, self.times.later
        )


def send(services: Services, batch: Batch) -> None:
    """Accept a batch and push it, as :func:`send_all` does."""
    send_all(services, [batch])


def send_all(
    services: Services, batches: Sequence[Batch], wanted: Callable[[Connection], bool] = lambda _: True
) -> None:
    """Accept batches and push them together. Safe to repeat: recipients that were accepted before are left alone.

    Args:
        wanted: asked in the transaction that writes the rows; unless it agrees nothing is written.
    """
    lease = services.settings.lease
    resolved = resolution.resolve(services.engine, batches)
    ready = [_prepare(services, one) for one in resolved]
    with services.engine.begin() as conn:
        if not wanted(conn):
            return
        work = store.accept(conn, [r.intake for r in ready], lease=lease)
    pushed = {w.notification_id for w in work}
    # Of what is pushed now this is asked when that is recorded; and of what is due now, when it is decided.
    waiting = {id_ for r in ready for id_ in (*r.times.later, *(r.contents if r.resolved.batch.plan else ()))} - pushed
    if waiting:
        with services.engine.begin() as conn:
            store.settle_cancelled(conn, sorted(waiting))
    people = {id_: r for r in ready for id_ in r.contents}
    log.info(
        "batches accepted",
        first=str(ready[0].resolved.batch.id),
        batches=len(ready),
        notifications=sum(len(r.resolved.batch.recipients) for r in ready),
        pushes=len(work),
    )
    shown = ((w, people[w.notification_id]) for w in work)
    _deliver(services, [_message(services, w, *r.contents[w.notification_id], r.ttl) for w, r in shown], complete=True)


def _prepare(services: Services, resolved: resolution.Resolution) -> _Ready:
    contents, problems = _render_all(services, resolved)
    times = send_times(services.engine, resolved.batch, services.settings)
    return _Ready(resolved, contents, {**problems, **times.problems}, _ttl(services, resolved.batch), times)


def resume(services: Services, ids: Sequence[str]) -> None:
    """Take up pushes that a provider asked to repeat or whose worker died. A repeated push replaces itself."""
    with services.engine.begin() as conn:
        work = store.claim_push(conn, ids, services.settings.lease)
        people = store.push_contents(conn, [w.notification_id for w in work])
        batches = store.contents(conn, (person.batch_id for person in people.values()))
    messages: list[PushMessage] = []
    broken: list[store.PushResult] = []
    for w in work:
        person = people[w.notification_id]
        batch = batches[str(person.batch_id)]
        push, sms_text = rendering.of(batch.content, person.locale)
        if push is None:
            continue
        try:
            texts = render(push, sms_text, person.params, services.links(w.notification_id, 1))
        except InvalidMessage as error:
            # It could be filled in when it was accepted, by another version of this program. It must not stop the others.
            broken.append(store.PushResult(*w, state="rejected", reason=str(error)))
            continue
        messages.append(_message(services, w, push, texts, batch.ttl))
    if broken:
        with services.engine.begin() as conn:
            store.record_push(conn, broken, retry_for=timedelta(seconds=services.settings.push_retry_s))
    _deliver(services, messages)


def _deliver(services: Services, messages: Sequence[PushMessage], *, complete: bool = False) -> None:
    if not messages:
        return
    turn = services.push_pace.take([1] * len(messages))
    outcomes = deliver(services.transport, services.push, messages[: turn.granted])
    results = [_result(m, o) for m, o in zip(messages, outcomes, strict=False)]
    for m in messages[turn.granted :]:
        waits = store.PushResult(
            m.notification_id, m.registration, state="open", reason="waits its turn", retry_after=turn.wait
        )
        results.append(waits)
    if asked := patience(outcomes):
        services.push_pace.slow_down(asked.after)
    retry_for = timedelta(seconds=services.settings.push_retry_s)
    with services.engine.begin() as conn:
        again = store.record_push(conn, results, retry_for=retry_for, complete=complete)
    if again:
        with services.engine.begin() as conn:
            store.settle_cancelled(conn, again)


def _result(message: PushMessage, outcome: Outcome) -> store.PushResult:
    ids = (message.notification_id, message.registration)
    match outcome:
        case Sent(provider_id):
            return store.PushResult(*ids, state="sent", provider_id=provider_id)
        case Rejected(reason, detail, address_dead):
            text = f"{reason}: {detail}" if detail else reason
            return store.PushResult(*ids, state="rejected", reason=text, address_dead=address_dead)
        case Retry(reason, after) | Unknown(reason, after):
            return store.PushResult(*ids, state="open", reason=reason, retry_after=after or _BACKOFF)


def _message(services: Services, work: store.PushWork, push: Push, texts: Texts, ttl: timedelta) -> PushMessage:
    urls = services.receipt_urls
    return PushMessage(
        notification_id=work.notification_id,
        registration=work.registration,
        title=texts.title,
        body=texts.body,
        ttl=ttl,
        data=push.data,
        link=push.link,
        image=push.image,
        receipt_url=urls.url(*work, now=time.time(), ttl_s=ttl.total_seconds()) if urls else None,
    )


def _render_all(
    services: Services, resolved: resolution.Resolution
) -> tuple[dict[str, tuple[Push, Texts]], dict[str, str]]:
    """Fill in every text before anything is sent; who cannot be served is named with the reason."""
    contents: dict[str, tuple[Push, Texts]] = {}
    problems = dict(resolved.problems)
    refused = _delay_problem(services, resolved.batch)
    steps = resolved.batch.plan or ()
    for recipient in resolved.batch.recipients:
        id_ = str(recipient.id)
        if refused:
            problems[id_] = refused
        elif id_ not in problems:
            try:
                push, sms_text = resolved.own(id_)
                links = partial(services.links, id_)
                if push is not None:
                    contents[id_] = push, render(push, sms_text, recipient.values, links(1))
                if steps:
                    plans.check(steps, push, sms_text, resolved.locales.get(id_), recipient.values, links)
            except InvalidMessage as error:
                problems[id_] = f"{resolved.name(id_)}{error}"
    return contents, problems


def _delay_problem(services: Services, batch: Batch) -> str | None:
    try:
        plans.check_delays(batch.plan or (), services.settings)
    except InvalidMessage as error:
        return str(error)
    return None


def _ttl(services: Services, batch: Batch) -> timedelta:
    """A push lives as long as the fallback waits, so that a phone that reconnects late does not get both."""
    if batch.ttl is not None:
        return batch.ttl
    if batch.plan:
        return min(batch.plan[0].after + timedelta(seconds=services.settings.ttl_grace_s), TTL_LIMIT)
    return TTL_LIMIT
