"""Texts that people write back: kept for the application, and read for who wants to be left alone or no longer does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import phonenumbers
from sqlalchemy import Connection, text

from knocktwice_shared.channels import SMS
from knocktwice_shared.ids import uuid7
from knocktwice_worker.audience import opt_outs
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.notation.masking import mask

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from uuid import UUID

#: A text is known for so long at least, so that a repeat is known as one, and a late "has opted out" does not undo a
#: START.
_NEEDED = timedelta(days=7)
#: Most characters of a text that are kept; providers join the parts of a long SMS up to 1,600.
_MOST_CHARS = 4_000
#: Most texts of a page.
PAGE_LIMIT = 500


@dataclass(frozen=True, slots=True)
class InboundText:
    """A text that a person wrote to one of our senders.

    Attributes:
        provider_id: the provider's id, by which a repeat is known.
        number: who wrote, in E.164; a short code or a name as the provider tells it.
        wish: what about; ``None``: nothing that concerns us.
        words: the text; ``None``: they are not to be kept.
        provider: who brought it.
        channel: how it came.
        sender: our sender to which it was written.
        project: the project that alone has this sender.
    """

    provider_id: str
    number: str
    wish: Wish | None
    words: str | None = None
    provider: str | None = None
    channel: str | None = None
    sender: str | None = None
    project: str | None = None


def country(number: str) -> str | None:
    """Return the country whose words count for a number: its own country, else the main one of its calling code."""
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    return phonenumbers.region_code_for_number(parsed) or phonenumbers.region_code_for_country_code(
        parsed.country_code or 0
    )


_KEEP = text("""
INSERT INTO inbound_texts (
  provider_id,
  id,
  number,
  wish,
  words,
  characters,
  provider,
  channel,
  sender,
  project
) VALUES (
  :provider_id,
  :id,
  :number,
  :wish,
  :words,
  :characters,
  :provider,
  :channel,
  :sender,
  :project
)
ON CONFLICT DO NOTHING
RETURNING received_at
""")
_LIFTED = text("UPDATE inbound_texts SET wish = 'START' WHERE provider_id = :provider_id")


@dataclass(frozen=True, slots=True)
class Fresh:
    """A text that was kept just now.

    Attributes:
        id: its id.
        text: the text.
        received_at: when it was written down.
        is_wish: it says something about texts as such, like STOP, so it answers nothing.
    """

    id: str
    text: InboundText
    received_at: datetime
    is_wish: bool


def receive(conn: Connection, texts: Sequence[InboundText], secret: bytes) -> list[Fresh]:
    """Keep texts, and note who wants to be left alone and who no longer does. A repeat changes nothing.

    Args:
        secret: the installation's key, with which numbers of erased people were hashed.

    Returns:
        The texts that were new.
    """
    fresh: list[Fresh] = []
    # Sorted by number: two transactions with the same texts or numbers wait for each other instead of deadlocking. The
    # sort is stable, so what one person wrote stays in the order in which it came.
    for one in sorted(texts, key=lambda t: t.number):
        id_ = str(uuid7())
        received_at = conn.execute(_KEEP, _row(one, id_)).scalar()
        if received_at is None:
            continue
        lifted = False
        if one.wish is Wish.STOP:
            opt_outs.add(conn, [one.number], "sms", inbound=id_)
        elif one.wish is Wish.START:
            opt_outs.remove(conn, [one.number], secret, "sms", inbound=id_, channel=one.channel or SMS)
        elif one.wish is Wish.YES and opt_outs.lift_stop(conn, one.number, id_):
            lifted = True
            conn.execute(_LIFTED, {"provider_id": one.provider_id})
        fresh.append(Fresh(id_, one, received_at, is_wish=lifted or one.wish not in (None, Wish.YES)))
    return fresh


_ANSWERS = text(f"""
UPDATE inbound_texts i SET answers = r.notification_id
FROM {rows("r", id="uuid", notification_id="uuid")}
WHERE i.id = r.id
""")


def note_answers(conn: Connection, answers: Mapping[str, str]) -> None:
    """Note which notifications texts answer.

    Args:
        answers: id of the text → id of the notification.
    """
    if answers:
        conn.execute(_ANSWERS, {"id": list(answers), "notification_id": list(answers.values())})


def _row(one: InboundText, id_: str) -> dict[str, object]:
    # PostgreSQL takes neither NUL nor half a surrogate pair; a text with one of them must not be refused for ever.
    words = None if one.words is None else one.words.replace("\0", "\ufffd").encode(errors="replace").decode()
    return {
        "provider_id": one.provider_id,
        "id": id_,
        "number": one.number,
        # An ordinary word, unless it lifts a STOP.
        "wish": None if one.wish is Wish.YES else one.wish,
        "words": words and words[:_MOST_CHARS],
        "characters": None if words is None else len(words),
        "provider": one.provider,
        "channel": one.channel,
        "sender": one.sender,
        "project": one.project,
    }


@dataclass(frozen=True, slots=True)
class Wanted:
    """A choice among the texts.

    Attributes:
        number: of this number, in E.164.
        user: of the number that this person has.
        keyword: ``STOP``, ``START`` or ``HELP``; ``none``: texts that are none of these.
        since: received then or later.
        before: the last id of the page before.
        limit: texts of a page.
        project: only texts to this project's own senders.
    """

    number: str | None = None
    user: str | None = None
    keyword: str | None = None
    since: datetime | None = None
    before: UUID | None = None
    limit: int = 100
    project: str | None = None


@dataclass(frozen=True, slots=True)
class KeptText:
    """A text as it is kept.

    Attributes:
        id: the text's id, by which webhooks name it, too.
        provider_id: the provider's id.
        number: who wrote; empty: they were erased.
        users: the people who have the number now.
        keyword: what it asks for, if that concerns us.
        words: the text; ``None``: not kept, or no longer.
        characters: its length.
        project: the project to whose own sender it was written.
        answers: the notification that it answers; ``None``: none that is known.
    """

    id: str
    provider_id: str
    provider: str | None
    channel: str | None
    number: str
    sender: str | None
    users: Sequence[str]
    keyword: str | None
    words: str | None
    characters: int | None
    received_at: datetime
    project: str | None
    answers: str | None

    def shown(self, *, reveal: bool) -> dict[str, object]:
        """Return the text field by field.

        Args:
            reveal: whether number and words are shown; otherwise the number is masked and the words are left out.
        """
        return {
            "id": self.id,
            "received_at": self.received_at,
            "number": self.number if reveal else mask(self.number),
            "users": list(self.users),
            "keyword": self.keyword,
            "text": self.words if reveal else None,
            "characters": self.characters,
            "to": self.sender,
            "project": self.project,
            "channel": self.channel,
            "provider": self.provider,
            "provider_id": self.provider_id,
            "answers": self.answers,
        }


# The optional conditions are constants of this file.
_PAGE = """
SELECT
  i.id,
  i.provider_id,
  i.provider,
  i.channel,
  i.number,
  i.sender,
  (
    SELECT coalesce(array_agg(p.user_id ORDER BY p.user_id), '{{}}')
    FROM phones p
    WHERE p.number = i.number AND i.number <> ''
  ) AS users,
  i.wish AS keyword,
  i.words,
  i.characters,
  i.received_at,
  i.project,
  i.answers
FROM inbound_texts i
WHERE i.id < coalesce(CAST(:before AS uuid), 'ffffffff-ffff-ffff-ffff-ffffffffffff') {conditions}
ORDER BY i.id DESC
LIMIT :limit
"""
_CONDITIONS = {
    "number": "AND i.number = :number",
    "user": "AND i.number = (SELECT number FROM phones WHERE user_id = :user)",
    "keyword": "AND i.wish IS NOT DISTINCT FROM nullif(:keyword, 'none')",
    "since": "AND i.received_at >= :since",
    "project": "AND i.project = :project",
}


def page(conn: Connection, wanted: Wanted) -> list[KeptText]:
    """Return texts, newest first; one more than ``limit`` if there is another page."""
    given: dict[str, Any] = {name: getattr(wanted, name) for name in _CONDITIONS if getattr(wanted, name) is not None}
    if wanted.since is not None:
        given["since"] = _in_utc(wanted.since)
    query = text(_PAGE.format(conditions=" ".join(_CONDITIONS[name] for name in given)))
    before = None if wanted.before is None else str(wanted.before)
    found = conn.execute(query, {**given, "before": before, "limit": wanted.limit + 1})
    return [
        KeptText(**{**row._mapping, "id": str(row.id), "answers": row.answers and str(row.answers)}) for row in found
    ]


_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _in_utc(moment: datetime) -> datetime:
    """Return the same moment in a zone that PostgreSQL takes; some offsets it does not."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _FIRST if moment.year == _FIRST.year else _LAST


_FORGET_WORDS = text("""
UPDATE inbound_texts SET
  words = NULL
WHERE received_at < knocktwice_now() - :keep AND words IS NOT NULL
""")
_FORGET = text("DELETE FROM inbound_texts WHERE received_at < knocktwice_now() - :keep")


def forget(conn: Connection, keep: timedelta) -> int:
    """Delete old texts, and return how many. That somebody wrote is known for a week at least.

    Args:
        keep: how long their words are kept.
    """
    if keep < _NEEDED:
        conn.execute(_FORGET_WORDS, {"keep": keep})
    return conn.execute(_FORGET, {"keep": max(_NEEDED, keep)}).rowcount


_FORGET_NUMBERS = text("UPDATE inbound_texts SET number = '', words = NULL WHERE number = ANY(:numbers)")


def forget_numbers(conn: Connection, numbers: Collection[str]) -> None:
    """Delete the numbers and words of these people's texts. The texts' ids stay, so that a repeat is recognised."""
    if numbers:
        conn.execute(_FORGET_NUMBERS, {"numbers": sorted(numbers)})
