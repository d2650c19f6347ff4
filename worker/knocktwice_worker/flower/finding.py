"""Finding what an operator types: an id, a key, a provider's id, a number, a blast or a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.names import Queue
from knocktwice_worker.notation import durations, phone_numbers
from knocktwice_worker.notation.masking import mask
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.reporting import history, story

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

#: Entries of a page.
_LIMIT = 50
#: The longest time ago that can be asked for.
_LONGEST = timedelta(days=36_500)


@dataclass(frozen=True, slots=True)
class Found:
    """The thing that was found.

    Attributes:
        one: the id of the one notification that the word stands for; ``None``: it stands for several, or none.
        what: what the word was taken for, in words; numbers are masked.
        messages: the newest notifications of it.
        next: the id before which the next page begins; ``None``: this is the last.
    """

    one: str | None
    what: str
    messages: Sequence[history.Entry] = ()
    next: UUID | None = None


_ONE = text("""
SELECT id FROM notifications WHERE id = CAST(:id AS uuid)
UNION ALL
SELECT id FROM notifications WHERE key = :word AND key IS NOT NULL
LIMIT 1
""")
_BLAST = text("SELECT true FROM blasts WHERE key = :word")


def find(conn: Connection, word: str, before: str, rules: phone_numbers.Rules) -> Found:
    """Return what a word stands for.

    Args:
        before: the last id of the page before; empty: the first page.
        rules: how numbers without a country code are read.
    """
    word = word.replace("\0", "")
    last = _uuid(before)
    if not word:
        return _page(conn, "everybody", history.Wanted(before=last, limit=_LIMIT))
    one = conn.execute(_ONE, {"id": str(id_) if (id_ := _uuid(word)) else None, "word": word}).scalar()
    one = one or story.by_provider_id(conn, word)
    if one is not None:
        return Found(str(one), f"notification {one}")
    if conn.execute(_BLAST, {"word": word}).first():
        return _page(conn, f"blast {word}", history.Wanted(blast=word, before=last, limit=_LIMIT))
    if number := _number(word, rules):
        return _page(conn, f"the number {mask(number)}", history.Wanted(phone=number, before=last, limit=_LIMIT))
    return _page(conn, f"user {word}", history.Wanted(user=word, before=last, limit=_LIMIT))


def parked(given: Mapping[str, str]) -> tuple[dead_letters.Wanted, int]:
    """Return which parked messages are searched for, and the number behind which the page begins.

    Args:
        given: ``task``, ``queue``, ``error``, ``user``, ``since``, ``until`` and ``after`` as they were typed; empty:
            it does not matter.

    Raises:
        InvalidMessage: a time is none, or there is no such queue.
    """
    said = {name: word.replace("\0", "") for name, word in given.items()}
    since, until = (_moment(said[name], name) if said[name] else None for name in ("since", "until"))
    task, error, user = (said[name] or None for name in ("task", "error", "user"))
    after = int(said["after"]) if said["after"].isdecimal() and len(said["after"]) < 19 else 0
    queue = _queue(said["queue"]) if said["queue"] else None
    return dead_letters.Wanted(task=task, queue=queue, error=error, user=user, since=since, until=until), after


def _queue(name: str) -> Queue:
    try:
        return Queue(name)
    except ValueError:
        raise InvalidMessage("queue", f"must be one of {', '.join(Queue)}") from None


def _moment(word: str, name: str) -> datetime:
    """Return a moment that is given as a time, in UTC without an offset as on the pages, or as how long ago it was."""
    try:
        at = datetime.fromisoformat(word)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    except ValueError:
        pass
    try:
        return datetime.now(UTC) - durations.parse(word, _LONGEST)
    except ValueError:
        raise InvalidMessage(name, "must be a time like 2h, 7d or 2026-11-21T09:30") from None


def _page(conn: Connection, what: str, wanted: history.Wanted) -> Found:
    page = history.page(conn, wanted)
    return Found(None, what, page.messages, page.next)


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None


def _number(word: str, rules: phone_numbers.Rules) -> str | None:
    if not any(c.isdigit() for c in word) or any(c.isalpha() for c in word):
        return None
    try:
        return phone_numbers.canonical(word, rules.of_anyone)
    except phone_numbers.UnusableNumber:
        return None
