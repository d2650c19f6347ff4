"""Refusing at the door what a worker would refuse later: a template that is not there, a text that cannot be filled in,
a time or a delay that operators do not allow.

Templates are looked up once in a few seconds; one that is not known is always looked up anew, because it may have been
made a second ago. Without PostgreSQL nothing is refused here: sending needs the broker only.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Category, LocalTime
from knocktwice_shared.messages.braces import templates
from knocktwice_shared.messages.problems import all_at_once, attempt, fail, settle
from knocktwice_shared.messages.values import PERSON
from knocktwice_worker.channels.opened import require_carriers
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.content import personal, plans, resolution, template_store
from knocktwice_worker.content.liquid import BrokenTemplate, variables
from knocktwice_worker.content.pushes import PushForm
from knocktwice_worker.gateway.transactions import reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_shared.messages import Batch, Recipient
    from knocktwice_worker.config import Settings
    from knocktwice_worker.content.templates import Definition
    from knocktwice_worker.services import Services

#: Seconds for which a template that was found is not looked up again.
KNOWN_FOR_S = 5.0
#: Templates kept.
_MOST = 1_000
#: A gateway's clock may differ from the database's, by which workers judge.
_SLACK = timedelta(minutes=1)
#: The widest difference between a clock on a wall and UTC.
_ZONES = timedelta(hours=15)
#: Recipients that are looked at on the event loop; more are looked at in a thread.
_FEW = 20


class Admission:
    """Looks at batches that the contract's validator has accepted.

    Args:
        services: where templates are, and the settings.
        clock: seconds that never go backwards.
    """

    def __init__(self, services: Services, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._known: dict[str, tuple[float, Definition | None]] = {}

    async def check(self, batch: Batch) -> None:
        """Return if a worker could serve a batch, as far as that is known here.

        Raises:
            InvalidMessage: it could not; all problems are named in the contract's words.
        """
        definition = None
        if batch.template is not None:
            found = self._remembered(batch.template)
            if found is None:
                found = await run_in_threadpool(self._look_up, batch.template)
            if found is None:
                return
            definition = found[0]
        if len(batch.recipients) > _FEW:
            await run_in_threadpool(_check, batch, definition, self._services)
        else:
            _check(batch, definition, self._services)

    def _remembered(self, name: str) -> tuple[Definition | None] | None:
        until, definition = self._known.get(name, (0.0, None))
        return (definition,) if self._clock() < until else None

    def _look_up(self, name: str) -> tuple[Definition | None] | None:
        """Return a template; ``None``: the database does not answer.

        Raises:
            InvalidMessage: there is none of this name.
        """
        try:
            with reading(self._services) as conn:
                stored = template_store.find(conn, [name]).get(name)
        except (DBAPIError, PoolTimeout):
            return None
        if stored is None:
            raise InvalidMessage(
                "content.template", f"there is none called {name}; GET /v1/templates lists those there are"
            )
        if isinstance(stored, InvalidMessage):
            raise InvalidMessage("content.template", f"cannot be used: {stored}")
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[name] = (self._clock() + KNOWN_FOR_S, stored.definition)
        return (stored.definition,)


@all_at_once
def _check(batch: Batch, definition: Definition | None, services: Services) -> None:
    settings = services.settings
    attempt(_check_time, None, batch, definition, settings)
    plan = batch.plan or () if definition is None else resolution.plan(batch, definition)
    attempt(plans.check_delays, None, plan, least_s=settings.min_after_s, most_s=settings.max_after_s)
    attempt(require_carriers, None, plan, services.channels.__getitem__)
    if definition is not None and batch.sms_only and definition.fallback == "never":
        fail("content.template", f"the fallback of {batch.template} is never, which forbids an SMS", None)
        return
    if definition is not None and not definition.pushes and batch.plan == () and not batch.sms_only:
        fail("content.template", resolution.NOTHING.format(batch.template), None)
        return
    texts = templates(batch)
    for field, text in texts:
        attempt(_check_text, None, field, text)
    settle()
    if definition is None and not texts and not batch.locales:
        return
    all_said = resolution.spoken(batch, definition)
    person = all_said.person
    unfilled: dict[int, InvalidMessage] = {}
    for place, recipient in enumerate(batch.recipients):
        try:
            _fill(all_said, recipient, person)
        except InvalidMessage as error:
            unfilled[place] = error
    if definition is None and len(unfilled) == len(batch.recipients):
        # Whatever the values are, the text cannot be filled in, so it is the text that is named.
        raise unfilled[0]
    for place, problem in unfilled.items():
        path, text = f"recipients[{place}]", "text" if definition is None else f"template {batch.template}"
        if problem.field == "locale":
            fail(f"{path}.locale", problem.problem, None)
        else:
            fail(f"{path}.params", f"do not fill in the {text}: {problem}", None)


def _check_text(field: str, text: str) -> None:
    try:
        variables(text)
    except BrokenTemplate as error:
        raise InvalidMessage(field, str(error)) from None


def _fill(all_said: resolution.Spoken, recipient: Recipient, person: personal.Used | None) -> None:
    """Fill in what a recipient would get; of the languages that it may be in, one that works is enough."""
    known = all_said.choose(recipient.locale) if recipient.locale and all_said.locales else None
    if recipient.locale and all_said.locales and known is None:
        there = ", ".join(locale for locale in all_said.contents if locale)
        raise InvalidMessage("locale", f"nothing for {recipient.locale}; there are {there} and no default_locale")
    problems = []
    for locale in [known] if known else all_said.contents:
        try:
            if person is None or PERSON in recipient.values:
                _fill_one(all_said, locale, recipient)
            else:
                # What is known of the person only a worker knows.
                personal.check(all_said.fields(locale), recipient.values, person)
        except InvalidMessage as error:
            problems.append(error)
        else:
            return
    raise problems[0]


def _fill_one(all_said: resolution.Spoken, locale: str | None, recipient: Recipient) -> None:
    push, sms_text = all_said.contents[locale]
    plan = all_said.plan
    first: InvalidMessage | None = None
    if push is not None:
        try:
            PushForm(push).fill(recipient.values)
        except InvalidMessage as error:
            first = error
        else:
            return
    broken = plans.problems(plan, push, sms_text, locale, recipient.values, wording_of=wording_of)
    # A step that can be written goes, whatever is wrong with the others.
    if len(broken) == len(plan) and (problem := first or (broken[min(broken)] if broken else None)):
        raise problem


def _check_time(batch: Batch, definition: Definition | None, settings: Settings) -> None:
    if batch.send_at is None:
        return
    now = datetime.now(UTC)
    local = isinstance(batch.send_at, LocalTime)
    at = batch.send_at.at.replace(tzinfo=UTC) if isinstance(batch.send_at, LocalTime) else batch.send_at
    slack = _SLACK + (_ZONES if local else timedelta())
    days = settings.max_ahead_days
    if at - slack > now + timedelta(days=days):
        raise InvalidMessage(
            "send_at", f"is more than {days} days ahead (KNOCKTWICE_MAX_AHEAD_DAYS); send it when it is nearer"
        )
    category = batch.category or (definition.category if definition else None) or Category.TRANSACTIONAL
    if at + slack < now - settings.useless_after[category]:
        raise InvalidMessage("send_at", f"is over for longer than a {category} message is of use")
