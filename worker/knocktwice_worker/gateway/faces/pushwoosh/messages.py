"""``createMessage`` and ``deleteMessage``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.concurrency import run_in_threadpool

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import BATCH_LIMIT
from knocktwice_worker.audience import hwids
from knocktwice_worker.blasts import standing, states
from knocktwice_worker.gateway import wording
from knocktwice_worker.gateway.auth.access import here, let_in, of_project, outbox
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.faces import message_codes, sending
from knocktwice_worker.gateway.faces.pushwoosh import audience, content
from knocktwice_worker.gateway.faces.pushwoosh.envelope import answer, opened
from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.gateway.transactions import reading, writing
from knocktwice_worker.notation.phone_numbers import UnusableNumber, canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from starlette.requests import Request
    from starlette.responses import Response

    from knocktwice.drafts import Draft
    from knocktwice_shared.messages import Blast
    from knocktwice_worker.gateway.auth.keys import Key
    from knocktwice_worker.gateway.faces.pushwoosh.content import Message
    from knocktwice_worker.services import Services

#: Most messages in one request.
MESSAGES_LIMIT = 100
#: A field of one recipient: its place, its name, and what is inside.
_RECIPIENT = re.compile(r"recipients\[(\d+)\]\.(\w+)(.*)")
#: What the contract puts before a field of the content.
_CONTRACTS = re.compile(r"^content\.(?=(?:push|sms|template|default_locale)\b)")
_OF_RECIPIENTS = {"params": "dynamic_content_placeholders", "user": "users"}
_KNOWN = ("application", "applications_group", "notifications")


class _Ready(NamedTuple):
    """A message that can be sent: as drafts to people, or as a blast."""

    message: Message
    given: Mapping[str, Any]
    drafts: Sequence[Draft] = ()
    blast: Blast | None = None


async def create(request: Request) -> Response:
    """Send messages, all or none: a wrong one refuses the request before anything is sent."""
    key, body = await opened(request, Scope.NOTIFY)
    listed = _messages(body)
    ready = [await _ready(request, key, one, f"notifications[{place}]", place) for place, one in enumerate(listed)]
    codes, told = [], []
    for place, one in enumerate(ready):
        if one.blast is not None:
            sent = await sending.blast(request, one.blast, _in_words)
        else:
            repeat = _repeat(request, one.message, place)
            sent = await sending.notify(request, key, one.drafts, one.given, repeat)
        codes.append(sent.code)
        told.append(
            {
                "ids": [str(id_) for id_ in sent.ids],
                "ignored": one.message.ignored,
                "duplicate": sent.duplicate,
                **({"test": True} if key.test else {}),
            }
        )
    return answer({"Messages": codes, "knocktwice": told})


def _messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    wording.refuse_unknown(body, _KNOWN)
    listed = body.get("notifications")
    if isinstance(listed, dict):
        # What some clients send for a single one.
        listed = [listed]
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise InvalidMessage("notifications", "must be a list of messages")
    if not 1 <= len(listed) <= MESSAGES_LIMIT:
        raise InvalidMessage("notifications", f"has {len(listed)} items; 1 to {MESSAGES_LIMIT} are allowed")
    return listed


async def _ready(request: Request, key: Key, given: Mapping[str, Any], path: str, place: int) -> _Ready:
    try:
        message = await run_in_threadpool(_read, here(request), given)
        if message.audience.recipients is None:
            await let_in(request, key, Scope.BLASTS, in_tests=True)
            return _Ready(message, given, blast=_blast(request, key, message, place))
        drafts = _drafts(here(request), key, message)
        return _Ready(message, given, await sending.checked(request, drafts, lambda error: error))
    except InvalidMessage as error:
        told = _in_words(error)
        raise told.renamed(lambda field: f"{path}.{field}", lambda text: text) from None


def _read(services: Services, given: Mapping[str, Any]) -> Message:
    """Return a message. The names of its devices, and the owners of its numbers, are looked up."""
    rules = services.settings.phone_rules
    numbers = {}
    for name in audience.names(given):
        if audience.is_number(name):
            try:
                numbers[name] = canonical(name, rules)
            except UnusableNumber as error:
                raise InvalidMessage("devices", str(error)) from None
    named = audience.wanted(given, numbers)
    known = {}
    if named:
        with reading(services) as conn:
            known = hwids.find(conn, named)
    return content.read(given, audience.read(given, known, numbers), services.settings.pushwoosh_title)


def _drafts(services: Services, key: Key, message: Message) -> list[Draft]:
    people = message.audience.recipients or []
    return [
        wording.batch(
            {
                **of_project(key, dict(message.body)),
                "recipients": [{**person, "params": message.params} for person in people[first : first + BATCH_LIMIT]],
            },
            uuid7(),
            services.settings.phone_rules,
        )
        for first in range(0, len(people), BATCH_LIMIT)
    ]


def _blast(request: Request, key: Key, message: Message, place: int) -> Blast:
    body = {**of_project(key, dict(message.body)), **message.audience.group, "params": message.params}
    if message.throttle_per_min is not None:
        body["throttle_per_min"] = message.throttle_per_min
    # Without a key each call is a blast of its own, as it is a message of its own at Pushwoosh.
    return wording.blast({**body, "key": _repeat(request, message, place) or f"pushwoosh-{uuid7()}"})


def _repeat(request: Request, message: Message, place: int) -> str | None:
    if message.key is not None:
        return sending.repeated(request, message.key)
    key = sending.repeated(request)
    return key if key is None or place == 0 else f"{key}/{place}"


def _in_words(error: InvalidMessage) -> InvalidMessage:
    """Rename our fields in an error to what a message calls them."""

    def renamed(field: str) -> str:
        field = _CONTRACTS.sub("", field)
        if found := _RECIPIENT.fullmatch(field):
            name = _OF_RECIPIENTS.get(found[2], "devices")
            return f"{name}{found[3]}" if name == "dynamic_content_placeholders" else f"{name}[{found[1]}]"
        for ours, theirs in content.WORDS.items():
            if field == ours or field.startswith((f"{ours}.", f"{ours}[")):
                return theirs + field.removeprefix(ours)
        return field

    return error.renamed(renamed, lambda text: text)


async def delete(request: Request) -> Response:
    """Stop a message: what it has not sent yet is not sent."""
    key, body = await opened(request, Scope.NOTIFY)
    code = code_in(body)
    blast = message_codes.blast_of(code)
    if blast is not None:
        await let_in(request, key, Scope.BLASTS, in_tests=True)
        await run_in_threadpool(_abort, here(request), blast, key.project)
        return answer(None)
    ids = message_codes.notifications_of(code)
    if not ids:
        raise InvalidMessage("message", "is no code of a message")
    for places in sending.in_batches(len(ids)):
        stopped = of_project(key, {"ids": [str(id_) for id_ in ids[places.start : places.stop]]})
        await outbox(request).send(wording.cancellation(stopped))
    return answer(None)


def _abort(services: Services, id_: UUID, project: str | None) -> None:
    with writing(services) as conn:
        found = standing.find(conn, str(id_), project)
        if found is None:
            raise Problem("not-found", "message: there is none with this code")
        states.abort(conn, found.key, "deleted by deleteMessage", found.project)


def code_in(body: Mapping[str, Any]) -> str:
    """Return the code of the message that a request is about."""
    code = body.get("message", body.get("message_code"))
    if not isinstance(code, str):
        raise InvalidMessage("message", "is missing; give the code that createMessage answered")
    return code
