"""Operators' files: what they declare, and the difference that it makes (``knocktwice apply``).

A file is taken whole or not at all, in one transaction. What it does not name stays as it is: nothing is deleted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, text

from knocktwice_shared.errors import InvalidMessage, KnocktwiceError
from knocktwice_shared.messages.problems import attempt, collected, fail
from knocktwice_worker.audience import segment_filter, segments
from knocktwice_worker.blasts import schedules
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.notation import declared_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Json = dict[str, Any]


class InvalidFile(KnocktwiceError):
    """A file cannot be applied, and nothing of it was: mend the named fields."""


class Verb(StrEnum):
    """The change to a declared thing."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that changes; ``None`` is a field that is not there."""

    field: str
    old: object
    new: object


@dataclass(frozen=True, slots=True)
class Change:
    """The change that a file makes to one thing.

    Attributes:
        next: the next times of one that has a schedule.
    """

    kind: str
    name: str
    verb: Verb
    fields: Sequence[Difference]
    next: Sequence[str] = ()


class Kind(Protocol):
    """Something that can be declared: what a file calls it, how it is checked, where it is kept."""

    #: One of it, and the file's key for all of them.
    word: str
    key: str
    table: str

    def check(self, name: object, value: object) -> Json:
        """Return the declaration in its one spelling, or raise InvalidMessage with a path that begins with the name."""
        ...

    def stored(self, conn: Connection) -> Mapping[str, Json]:
        """Return what there is, by name."""
        ...

    def put(self, conn: Connection, name: str, value: Json) -> None:
        """Store it, new or changed."""
        ...


class _Templates:
    word, key, table = "template", "templates", "templates"

    def check(self, name: object, value: object) -> Json:
        return templates.check(name, value).as_json()

    def stored(self, conn: Connection) -> Mapping[str, Json]:
        return template_store.definitions(conn)

    def put(self, conn: Connection, name: str, value: Json) -> None:
        template_store.put(conn, name, templates.check(name, value))


class _Segments:
    word, key, table = "segment", "segments", "segments"

    def check(self, name: object, value: object) -> Json:
        if not isinstance(name, str):
            raise InvalidMessage(str(name), "must be text; put quotes around it")
        if not isinstance(value, dict):
            raise InvalidMessage(name, "must have a filter, and may have a description")
        filter_, found = collected(self._filter, name, value)
        if filter_ is None or found:
            raise InvalidMessage.of(found)
        return {"filter": segment_filter.dump(filter_), "description": value.get("description", "")}

    def _filter(self, name: str, value: Mapping[str, Any]) -> segment_filter.Filter:
        for field in value:
            if field not in ("filter", "description"):
                fail(
                    f"{name}.{field}", "is not a field of a segment; it has a filter, and may have a description", None
                )
        description = value.get("description", "")
        if isinstance(description, str):
            attempt(self._named, None, name, description)
        else:
            fail(f"{name}.description", "must be text", None)
        if "filter" not in value:
            raise InvalidMessage(f"{name}.filter", "is missing")
        return segment_filter.parse(value["filter"], f"{name}.filter")

    def _named(self, name: str, description: str) -> None:
        try:
            segments.check(name, description)
        except InvalidMessage as error:
            raise InvalidMessage(f"{name}.{error.field}", error.problem) from None

    def stored(self, conn: Connection) -> Mapping[str, Json]:
        return {
            segment.name: {"filter": segment_filter.dump(segment.filter), "description": segment.description}
            for segment in segments.list_all(conn)
        }

    def put(self, conn: Connection, name: str, value: Json) -> None:
        segments.put(conn, name, segment_filter.parse(value["filter"], f"{name}.filter"), value["description"])


class _Blasts:
    word, key, table = "recurring blast", "blasts", "blast_schedules"

    def check(self, name: object, value: object) -> Json:
        return schedules.as_json(schedules.check(name, value))

    def stored(self, conn: Connection) -> Mapping[str, Json]:
        return schedules.stored(conn)

    def put(self, conn: Connection, name: str, value: Json) -> None:
        schedules.put(conn, name, schedules.check(name, value))

    def next_times(self, conn: Connection, name: str, value: Json) -> Sequence[str]:
        return schedules.next_times(conn, schedules.check(name, value))


KINDS: tuple[Kind, ...] = (_Templates(), _Segments(), _Blasts())


def read(path: str) -> dict[str, dict[str, Json]]:
    """Return what a file declares: key → name → declaration.

    Args:
        path: the file's; ``-`` is the standard input.

    Raises:
        InvalidFile: it cannot be read, or declares something wrong. All of its mistakes are named, one a line.
    """
    try:
        document = declared_yaml.read(path)
    except declared_yaml.Unreadable as error:
        raise InvalidFile(str(error)) from None
    content = document.value
    known = {kind.key: kind for kind in KINDS}
    if not isinstance(content, dict) or not content:
        raise InvalidFile(f"{document.place()}: must have {' or '.join(known)}")
    mistakes = [
        f"{document.place(str(key))}: {key}: is not known; there is {', '.join(known)}"
        for key in content
        if key not in known
    ]
    declared: dict[str, dict[str, Json]] = {}
    for key in (key for key in known if key in content):
        if not isinstance(content[key], dict):
            mistakes.append(f"{document.place(key)}: {key}: must have a name for each {known[key].word}")
            continue
        declared[key] = {}
        for name, value in content[key].items():
            try:
                declared[key][name] = known[key].check(name, value)
            except InvalidMessage as error:
                mistakes += [
                    f"{document.place_of(f'{key}.{one.field}')}: {key}.{one.field}: {one.problem}"
                    for one in error.problems
                ]
    if mistakes:
        raise InvalidFile("\n".join(mistakes))
    return declared


def apply(conn: Connection, declared: Mapping[str, Mapping[str, Json]]) -> list[Change]:
    """Store the declared things in an open transaction, and return the changes. For a dry run, roll it back."""
    changes: list[Change] = []
    for kind in KINDS:
        if kind.key not in declared:
            continue
        # Two at a time would each miss what the other does. Readers are not held up.
        conn.execute(text(f"LOCK TABLE {kind.table} IN SHARE ROW EXCLUSIVE MODE"))
        stored = kind.stored(conn)
        for name, value in declared[kind.key].items():
            change = _compare(kind.word, name, stored.get(name), value)
            if change.verb is not Verb.UNCHANGED:
                kind.put(conn, name, value)
            if isinstance(kind, _Blasts):
                change = replace(change, next=kind.next_times(conn, name, value))
            changes.append(change)
    return changes


def _compare(word: str, name: str, old: Json | None, new: Json) -> Change:
    if old is None:
        return Change(word, name, Verb.CREATED, [])
    before, after = dict(_leaves(old)), dict(_leaves(new))
    fields = [
        Difference(field, before.get(field), after.get(field))
        for field in sorted(before.keys() | after.keys())
        if (field in before, before.get(field)) != (field in after, after.get(field))
    ]
    return Change(word, name, Verb.UPDATED if fields else Verb.UNCHANGED, fields)


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield each field that holds no others, with its path."""
    parts: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not parts or not value:
        yield path, value
        return
    for step, part in parts:
        yield from _leaves(part, f"{path}.{step}" if path else str(step))
