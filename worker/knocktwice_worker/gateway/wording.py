"""From what a request says to the contract's messages, and the contract's complaints back into the request's words.

Nothing is judged here but names: ``parse_*`` judges, and both sides of the broker run it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from knocktwice import drafts
from knocktwice.content import Sms
from knocktwice.drafts import Draft
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import (
    DeviceRegistered,
    TagsSet,
    parse_audience,
    parse_blast,
    parse_cancellation,
)
from knocktwice_shared.names import BATCH_LIMIT, VERSION, Task
from knocktwice_worker.gateway.intake.idempotency import notification_id
from knocktwice_worker.notation import time_zones
from knocktwice_worker.notation.phone_numbers import UnusableNumber, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from uuid import UUID

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.notation.phone_numbers import Rules

Json = dict[str, Any]

#: The fields that name a recipient.
RECIPIENT = ("user", "registrations", "phone", "params", "key", "locale", "tags")
#: Fields that all recipients of a request share, with the same name in the contract.
SHARED = ("category", "ttl_s", "valid_for_s", "reference", "send_at", "only", "plan")
#: Fields that all recipients of a request share, with another place in the contract.
CONTENT = ("push", "template", "sms")
#: The fields that only a blast has.
BLAST = ("key", "segment", "filter", "params", "throttle_per_min")

#: When an SMS is due if a request that asks for one does not say; the same as in the producer library.
_WHEN, _AFTER_S = Sms().when, Sms().after.total_seconds()
_CONTRACTS = re.compile(r"\bcontent\.(?=push|sms|template)")
_STEP = re.compile(r"\bplan\[0\]\.?")
_ALONE = re.compile(r"\b(?:recipients|changes)\[0\]\.?")


def batch(body: Mapping[str, Any], id_: UUID, numbers: Rules) -> Draft:
    """Return the message of a request to notify one person, or those in its ``recipients``.

    Args:
        id_: the message's id; the notifications' follow from it.
        numbers: which phone numbers are taken.

    Raises:
        InvalidMessage: a field is wrong; it is named as the request has it.
    """
    many = body.get("recipients") is not None
    known = {*SHARED, *CONTENT, "recipients", *(() if many else RECIPIENT)}
    refuse_unknown(body, known, dict.fromkeys(RECIPIENT, "stands beside recipients; put it into each of them"))
    people = body["recipients"] if many else [{name: body[name] for name in RECIPIENT if name in body}]
    if not isinstance(people, list):
        raise InvalidMessage("recipients", "must be a list")
    if not 1 <= len(people) <= BATCH_LIMIT:
        raise InvalidMessage("recipients", f"has {len(people)} items; 1 to {BATCH_LIMIT} are allowed")
    message: Json = {"v": VERSION, "id": str(id_), **_shared(body), "recipients": _identified(people, id_)}
    with in_requests_words(alone=not many, planned=body.get("plan") is not None):
        _respell(message["recipients"], "recipients", numbers)
        return drafts.batch(message)


def blast(body: Mapping[str, Any]) -> Blast:
    """Return the blast that a request asks for. Raises like :func:`batch`."""
    refuse_unknown(body, {*SHARED, *CONTENT, *BLAST})
    own = {name: body[name] for name in BLAST if body.get(name) is not None}
    with in_requests_words(alone=True, planned=body.get("plan") is not None):
        return parse_blast({"v": VERSION, **_shared(body), **own})


def cancellation(body: Mapping[str, Any]) -> Draft:
    """Return the message that stops notifications, by ``ids`` and ``keys``. Raises like :func:`batch`."""
    refuse_unknown(body, {"ids", "keys"})
    message = {"v": VERSION, **body}
    cancelled = parse_cancellation(message)
    return _draft(Task.CANCEL, message, f"{len(cancelled.ids) + len(cancelled.keys)} cancellations")


def changes(body: Mapping[str, Any], numbers: Rules) -> Draft:
    """Return the message about ``changes`` of an audience; without a time they are of now. Raises like :func:`batch`."""
    refuse_unknown(body, {"changes"})
    now = datetime.now(UTC).isoformat()
    given = body.get("changes")
    if isinstance(given, list):
        given = [{"at": now, **change} if isinstance(change, dict) else change for change in given]
        _respell(given, "changes", numbers)
    return _audience({"v": VERSION, "changes": given})


def change(
    kind: str,
    body: Mapping[str, Any],
    known: Iterable[str],
    *,
    renamed: Mapping[str, str] | None = None,
    **fields: object,
) -> Draft:
    """Return the message about one change of an audience. Raises like :func:`batch`.

    Args:
        kind: as the contract calls it.
        known: what the body may say.
        renamed: fields that the request calls otherwise than the contract.
        fields: what it does not say itself.
    """
    refuse_unknown(body, known)
    now = datetime.now(UTC).isoformat()
    message = {"v": VERSION, "changes": [{"at": now, **body, "change": kind, **fields}]}
    with in_requests_words(alone=True, names=renamed):
        return _audience(message)


def phone(value: object, path: str, numbers: Rules) -> str:
    """Return a number in its one spelling.

    Raises:
        InvalidMessage: it is none that is taken.
    """
    try:
        return canonical(value, numbers)
    except UnusableNumber as error:
        raise InvalidMessage(path, str(error)) from None


def _respell(items: list[Any], path: str, numbers: Rules) -> None:
    for place, item in enumerate(items):
        if isinstance(item, dict) and item.get("phone") is not None:
            # Any number may opt out, also one that would not be texted anyway.
            taken = numbers.of_anyone if item.get("change") in ("opt_out", "opt_in") else numbers
            item["phone"] = phone(item["phone"], f"{path}[{place}].phone", taken)


def refuse_unknown(body: Mapping[str, Any], known: Iterable[str], why: Mapping[str, str] | None = None) -> None:
    """Refuse names that a body does not have.

    Raises:
        InvalidMessage: the first one is named.
    """
    names = sorted(known)
    for name in body:
        if name not in names:
            told = f"is not a field of this request; known here: {', '.join(names)}"
            raise InvalidMessage(name, (why or {}).get(name, told))


def require(body: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a body that lacks one of these.

    Raises:
        InvalidMessage: the first one is named.
    """
    for name in names:
        if body.get(name) is None:
            raise InvalidMessage(name, "is missing")


@contextmanager
def in_requests_words(*, alone: bool, planned: bool = False, names: Mapping[str, str] | None = None) -> Iterator[None]:
    """Rename the contract's fields in an error to what the request calls them.

    Args:
        alone: the request is about one item and does not put it into a list.
        planned: the request has a plan; without one its only step is called ``sms``.
        names: fields that the request calls otherwise.
    """
    try:
        yield
    except InvalidMessage as error:
        field = _renamed(error.field, alone, planned) or "body"
        raise InvalidMessage((names or {}).get(field, field), _renamed(error.problem, alone, planned)) from None


def _renamed(told: str, alone: bool, planned: bool) -> str:
    told = _CONTRACTS.sub("", told)
    told = told if planned else _STEP.sub("sms.", told)
    return _ALONE.sub("", told) if alone else told


def _identified(people: list[Any], batch_id: UUID) -> list[Any]:
    for place, person in enumerate(people):
        if isinstance(person, dict) and "id" in person:
            raise InvalidMessage(f"recipients[{place}].id", "is made here; for repeats there is key")
    return [
        {**person, "id": str(notification_id(batch_id, place))} if isinstance(person, dict) else person
        for place, person in enumerate(people)
    ]


def _shared(body: Mapping[str, Any]) -> Json:
    """Return what all recipients share, as the contract has it."""
    message: Json = {name: body[name] for name in SHARED if body.get(name) is not None}
    message["content"] = {name: body[name] for name in ("push", "template") if body.get(name) is not None}
    if body.get("sms") is not None:
        _sms(body["sms"], message)
    return message


def _sms(sms: object, message: Json) -> None:
    """Put a request's ``sms`` where the contract has it: its text into the content, the rest into the plan."""
    if not isinstance(sms, dict):
        raise InvalidMessage("sms", f"must be an object, not {type(sms).__name__}")
    refuse_unknown({f"sms.{name}": None for name in sms}, ("sms.text", "sms.when", "sms.after_s"))
    said = {name: value for name, value in sms.items() if name != "text" and value is not None}
    if "plan" in message or "only" in message:
        for name in said:
            why = "the steps of plan say that" if "plan" in message else 'with only "sms" it goes at once'
            raise InvalidMessage(f"sms.{name}", f"must be left out: {why}")
    else:
        message["plan"] = [{"channel": "sms", "when": _WHEN, "after_s": _AFTER_S, **said}]
    if sms.get("text") is not None:
        message["content"]["sms"] = {"text": sms["text"]}


def _audience(message: Json) -> Draft:
    parsed = parse_audience(message)
    for place, change_ in enumerate(parsed):
        if isinstance(change_, DeviceRegistered | TagsSet) and change_.time_zone is not None:
            try:
                time_zones.canonical(change_.time_zone)
            except ValueError as error:
                raise InvalidMessage(f"changes[{place}].time_zone", str(error)) from None
    return _draft(Task.UPDATE_AUDIENCE, message, f"{len(parsed)} changes")


def _draft(task: Task, message: Json, summary: str) -> Draft:
    return Draft(uuid7(), task, message, summary, [], {})
