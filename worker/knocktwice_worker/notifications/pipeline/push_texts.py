"""The texts and the shape of a batch's pushes: filled in before anything is sent, and again when a push is taken up."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import TTL_LIMIT, Batch, Category, Push
from knocktwice_shared.test_side import is_test
from knocktwice_worker.channels.messages import PushMessage
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.content import plans, rendering, resolution
from knocktwice_worker.content.pushes import FilledPush, PushForm
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline.send_time import SendTimes, send_times

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Engine

    from knocktwice_worker.content.links.receipt_urls import ReceiptUrls
    from knocktwice_worker.content.links.short_links import Tracker


@dataclass(slots=True)
class Written:
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
class Ready:
    """A batch whose texts are filled in.

    Attributes:
        resolved: the batch, with the content that its template names.
        written: its texts.
        ttl: how long its pushes live.
        times: when they go.
    """

    resolved: resolution.Resolution
    written: Written
    ttl: timedelta
    times: SendTimes

    @property
    def intake(self) -> store.Intake:
        """The batch as it is stored, with what was found wrong in its texts and times."""
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
class PushTexts:
    """Writes the pushes of batches.

    Attributes:
        engine: for short transactions.
        links: returns what makes the links in a step's message, if anything does.
        receipt_urls: makes the addresses at which apps report; ``None``: apps could not reach them.
        allowed: what batches may ask for.
        default_zone: IANA name of the zone of recipients about whom nothing is known.
        ttl_grace: how long a push outlives the countdown of its first step.
        useless_after: how long after it was due a push may still go, by category.
    """

    engine: Engine
    links: Callable[[str, int], Tracker | None]
    receipt_urls: ReceiptUrls | None
    allowed: Allowed
    default_zone: str
    ttl_grace: timedelta
    useless_after: Mapping[Category, timedelta]

    def prepare(self, resolved: resolution.Resolution, held: Mapping[str, datetime]) -> Ready:
        """Fill in the texts of a batch, and return when and for how long its pushes go.

        Args:
            held: notification id → since when it waits.
        """
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
        return Ready(resolved, written, self._ttl(resolved.batch), times)

    def refill(
        self,
        work: Sequence[store.PushWork],
        people: Mapping[str, store.PushContents],
        batches: Mapping[str, store.BatchContents],
    ) -> tuple[list[PushMessage], list[store.PushResult]]:
        """Fill in once more what is taken up; return the pushes, and the results of those that cannot be written."""
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
            made.append(self.message(w, filled, batch.ttl, person.project))
        return made, broken

    def message(self, work: store.PushWork, filled: FilledPush, ttl: timedelta, project: str | None) -> PushMessage:
        """Return the push for one device."""
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

    def _write(self, resolved: resolution.Resolution) -> Written:
        """Fill in every text before anything is sent. A step that cannot be written stops none of the others."""
        written = Written(problems=dict(resolved.problems))
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


def _filled(form: PushForm | None, params: Mapping[str, Any]) -> tuple[FilledPush | None, InvalidMessage | None]:
    """Return the push for a person, or why it cannot be written; nothing where there is none."""
    try:
        return None if form is None else form.fill(params), None
    except InvalidMessage as error:
        return None, error
