"""From what a request says to the contract's messages, and the contract's complaints back into the request's words.

Nothing is judged here but names: ``parse_*`` judges, and both sides of the broker run it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from knocktwice import drafts
from knocktwice.drafts import Draft
from knocktwice_shared.counted import many
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_audience, parse_blast, parse_cancellation
from knocktwice_shared.messages.problems import all_at_once, attempt, collected, fail
from knocktwice_shared.names import BATCH_LIMIT, VERSION, Task
from knocktwice_worker.gateway import short_forms
from knocktwice_worker.gateway.intake.idempotency import notification_id
from knocktwice_worker.gateway.short_forms import SHARED, Json
from knocktwice_worker.notation import time_zones
from knocktwice_worker.notation.phone_numbers import UnusableNumber, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from uuid import UUID

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.notation.phone_numbers import Rules

#: The fields that name a recipient.
RECIPIENT = ("user", "registrations", "phone", "params", "key", "locale", "tags")
#: The fields that only a blast has.
BLAST = ("key", "segment", "filter", "params", "throttle_per_min")

_CONTRACTS = re.compile(r"\bcontent\.(?=push|sms|template|default_locale)")
_ALONE = re.compile(r"\b(?:recipients|changes)\[0\]\.?")


@all_at_once
def batch(body: Mapping[str, Any], id_: UUID, numbers: Rules, places: Sequence[int] | None = None) -> Draft:
    """Return the message of a request to notify one person, or those in its ``recipients``.

    Args:
        id_: the message's id; the notifications' follow from it.
        numbers: which phone numbers are taken.
        places: which recipients of a request these are, where others are left out.

    Raises:
        InvalidMessage: fields are wrong; all are named as the request has them.
    """
    many = body.get("recipients") is not None
    known = {*SHARED, "recipients", *(() if many else RECIPIENT)}
    refuse_unknown(body, known, dict.fromkeys(RECIPIENT, "stands beside recipients; put it into each of them"))
    people = body["recipients"] if many else [{name: body[name] for name in RECIPIENT if name in body}]
    if not isinstance(people, list):
        raise InvalidMessage("recipients", "must be a list")
    if not 1 <= len(people) <= BATCH_LIMIT:
        raise InvalidMessage("recipients", f"has {len(people)} items; 1 to {BATCH_LIMIT} are allowed")
    spelled = short_forms.shared(body)
    with in_requests_words(alone=not many, words=spelled.words):
        draft = _batch(spelled.message, people, id_, numbers, places or range(len(people)))
    draft.places = places
    return draft


@all_at_once
def _batch(shared: Json, people: list[Any], id_: UUID, numbers: Rules, places: Sequence[int]) -> Draft:
    recipients = _identified(people, id_, places)
    _respell(recipients, "recipients", numbers)
    return drafts.batch({"v": VERSION, "id": str(id_), **shared, "recipients": recipients})


def repeated_keys(people: Sequence[Any]) -> list[InvalidMessage]:
    """Return the problem of each recipient whose key another recipient of the request has, too.

    Nobody knows which of them is meant, so neither may be taken while the other is refused for something else.
    """
    keys = {
        place: person["key"]
        for place, person in enumerate(people)
        if isinstance(person, dict) and isinstance(person.get("key"), str)
    }
    return collected(drafts.refuse_repeated, keys)[1]


@all_at_once
def blast(body: Mapping[str, Any]) -> Blast:
    """Return the blast that a request asks for. Raises like :func:`batch`."""
    refuse_unknown(body, {*SHARED, *BLAST})
    own = {name: body[name] for name in BLAST if body.get(name) is not None}
    if isinstance(own.get("segment"), dict) and "filter" not in own:
        own["filter"] = own.pop("segment")
    spelled = short_forms.shared(body)
    with in_requests_words(alone=True, words=spelled.words):
        return parse_blast({"v": VERSION, **spelled.message, **own})


@contextmanager
def words_of(body: Mapping[str, Any]) -> Iterator[None]:
    """Rename the contract's fields in an error about a valid request to what the request calls them."""
    try:
        yield
    except InvalidMessage as error:
        words = short_forms.shared(body).words
        with in_requests_words(alone=body.get("recipients") is None, words=words):
            raise error from None


@all_at_once
def cancellation(body: Mapping[str, Any]) -> Draft:
    """Return the message that stops notifications, by ``ids`` and ``keys``. Raises like :func:`batch`."""
    refuse_unknown(body, {"ids", "keys", "id", "key", "project"})
    given = {name: body[name] for name in ("ids", "keys", "project") if body.get(name) is not None}
    message: Json = {"v": VERSION, **given}
    words = {}
    for one in ("id", "key"):
        if body.get(one) is None:
            continue
        if f"{one}s" in message:
            fail(one, f"stands beside {one}s; put it into the list", None)
        message[f"{one}s"] = [body[one]]
        words[f"{one}s[0]"] = one
    with in_requests_words(alone=True, words=words):
        cancelled = parse_cancellation(message)
    return _draft(Task.CANCEL, message, many(len(cancelled.ids) + len(cancelled.keys), "cancellation"))


@all_at_once
def changes(body: Mapping[str, Any], numbers: Rules, now: datetime, places: Sequence[int] | None = None) -> Draft:
    """Return the message about ``changes`` of an audience; without a time they are of now. Raises like :func:`batch`.

    Args:
        places: which changes of a request these are, where others are left out.
    """
    refuse_unknown(body, {"changes"})
    given = body.get("changes")
    if isinstance(given, list):
        # Each is a little later than the one before it: of two about the same device the last one counts.
        times = ((now + timedelta(microseconds=place)).isoformat() for place in places or range(len(given)))
        given = [{"at": at, **one} if isinstance(one, dict) else one for at, one in zip(times, given, strict=True)]
        _respell(given, "changes", numbers)
    return _audience({"v": VERSION, "changes": given})


@all_at_once
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
    with in_requests_words(alone=True, words=renamed):
        return _audience(message)


def phone(value: object, path: str, numbers: Rules) -> str:
    """Return a number in its one spelling.

    Raises:
        InvalidMessage: it is none that is taken.
    """
    try:
        return canonical(value, numbers)
    except UnusableNumber as error:
        return fail(path, str(error), "")


def _respell(items: list[Any], path: str, numbers: Rules) -> None:
    for place, item in enumerate(items):
        if isinstance(item, dict) and item.get("phone") is not None:
            # Any number may opt out, also one that would not be texted anyway.
            taken = numbers.of_anyone if item.get("change") in ("opt_out", "opt_in") else numbers
            item["phone"] = phone(item["phone"], f"{path}[{place}].phone", taken)


@all_at_once
def refuse_unfit(body: Mapping[str, Any], known: Iterable[str], required: Iterable[str]) -> None:
    """Refuse names that a body does not have, and a body that lacks one of those that it must have.

    Raises:
        InvalidMessage: all of them are named.
    """
    refuse_unknown(body, known)
    require(body, required)


def refuse_unknown(body: Mapping[str, Any], known: Iterable[str], why: Mapping[str, str] | None = None) -> None:
    """Refuse names that a body does not have.

    Raises:
        InvalidMessage: the first one is named.
    """
    names = sorted(known)
    for name in body:
        if name not in names:
            told = f"is not a field of this request; known here: {', '.join(names)}"
            fail(name, (why or {}).get(name, told), None)


def require(body: Mapping[str, Any], names: Iterable[str]) -> None:
    """Refuse a body that lacks one of these.

    Raises:
        InvalidMessage: the first one is named.
    """
    for name in names:
        if body.get(name) is None:
            fail(name, "is missing", None)


@contextmanager
def in_requests_words(*, alone: bool, words: Mapping[str, str] | None = None) -> Iterator[None]:
    """Rename the contract's fields in an error to what the request calls them.

    Args:
        alone: the request is about one item and does not put it into a list.
        words: what the contract calls a field → what the request calls it.
    """
    try:
        yield
    except InvalidMessage as error:
        # A path before its beginning.
        known = sorted((words or {}).items(), key=lambda pair: -len(pair[0]))

        def renamed(told: str) -> str:
            told = _ALONE.sub("", told) if alone else told
            for contracts, own in known:
                told = re.sub(rf"\b{re.escape(contracts)}(?!\w)", own, told)
            return _CONTRACTS.sub("", told)

        raise error.renamed(lambda field: renamed(field) or "body", renamed) from None


def _identified(people: list[Any], batch_id: UUID, places: Sequence[int]) -> list[Any]:
    for place, person in enumerate(people):
        if isinstance(person, dict) and "id" in person:
            fail(f"recipients[{place}].id", "is made here; for repeats there is key", None)
    named = map(short_forms.recipient, people)
    return [
        {**person, "id": str(notification_id(batch_id, place))} if isinstance(person, dict) else person
        for place, person in zip(places, named, strict=True)
    ]


@all_at_once
def _audience(message: Json) -> Draft:
    parsed = attempt(parse_audience, (), message)
    listed = message["changes"]
    for place, change_ in enumerate(listed if isinstance(listed, list) else ()):
        zone = change_.get("time_zone") if isinstance(change_, dict) else None
        if isinstance(zone, str):
            try:
                time_zones.canonical(zone)
            except ValueError as error:
                fail(f"changes[{place}].time_zone", str(error), None)
    return _draft(Task.UPDATE_AUDIENCE, message, many(len(parsed), "change"))


def _draft(task: Task, message: Json, summary: str) -> Draft:
    return Draft(uuid7(), task, message, summary, [], {})
