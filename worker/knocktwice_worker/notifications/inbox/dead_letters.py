"""Parked messages that no worker could process, with the reasons; and the removal of erased people from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

from knocktwice_shared.names import ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import Connection, Engine

    from knocktwice_shared.names import Queue

#: The alarm that an accepted message was parked.
PARKED = "message.parked"
#: The most parked messages read at once; each may contain 500 people.
_PAGE = 100

#: Fields with the application's own objects. Their content belongs to the person whom the surrounding object names.
_OWN = {"params", "data", "tags", "reference"}


@dataclass(frozen=True, slots=True)
class _Person:
    """The person to erase.

    Attributes:
        user: the application's id of the person.
        numbers: the person's numbers in E.164.
        registrations: the registrations of the person's devices.
    """

    user: str
    numbers: frozenset[str]
    registrations: frozenset[str]

    def patterns(self) -> list[str]:
        """Return LIKE patterns for payloads that may name the person; digits may have any characters between."""
        texts = [_literal(form) for value in (self.user, *self.registrations) for form in _written(value)]
        return [f"%{text_}%" for text_ in (*texts, *("%".join(number) for number in self.numbers))]

    def stands_for(self, value: object) -> bool:
        """Return whether a value is the person's id, number or registration."""
        if not isinstance(value, str):
            return False
        digits = "".join(c for c in value if c.isdigit() or c == "+")
        return value == self.user or value in self.registrations or digits in self.numbers

    def is_named_by(self, item: dict[str, Any]) -> bool:
        """Return whether an object is about the person."""
        values = (value for name, value in item.items() if name not in _OWN)
        return any(self.stands_for(v) or (isinstance(v, list) and any(map(self.stands_for, v))) for v in values)


# PostgreSQL's text cannot contain NUL or half a surrogate pair, but a broken message may. Such characters are replaced.
# The caller was told that the message is accepted, so the end of it is an alarm, which webhooks tell. What follows the
# reason's first colon may quote the message, and stays here.
_PARK = text("""
WITH parked AS (
  INSERT INTO dead_letters (message_id, task, reason, payload) VALUES (:message_id, :task, :reason, :payload)
  RETURNING id
)
INSERT INTO alarms (type, subject, data)
SELECT
  :type,
  CAST(md5(:type || ' ' || id) AS uuid),
  jsonb_build_object(
    'number', id,
    'message', CAST(:message_id AS text),
    'task', CAST(:task AS text),
    'reason', split_part(CAST(:reason AS text), ':', 1),
    'notifications', CAST(:notifications AS jsonb)
  )
FROM parked
""")


def park(conn: Connection, *, message_id: str | None, task: str | None, reason: str, payload: str) -> None:
    """Write a message that cannot be processed to the dead-letter table, with the reason, and raise an alarm."""
    texts = {"message_id": message_id, "task": task, "reason": reason, "payload": payload}
    clean = {k: v and v.replace("\x00", "\ufffd").encode(errors="replace").decode() for k, v in texts.items()}
    conn.execute(_PARK, {**clean, "type": PARKED, "notifications": json.dumps(_notifications(payload))})


_IS_PARKED = text("SELECT EXISTS (SELECT FROM dead_letters WHERE message_id = :message_id)")


def is_parked(conn: Connection, message_id: str) -> bool:
    """Return whether a message was parked. One that was replayed or dropped since is not."""
    return bool(conn.execute(_IS_PARKED, {"message_id": message_id}).scalar())


def _notifications(payload: str) -> list[str]:
    """Return the ids of the notifications that a message asks for, as far as it can be read."""
    try:
        decoded = json.loads(payload)
        recipients = decoded["recipients"] if isinstance(decoded, dict) else ()
        return [str(UUID(one["id"])) for one in recipients]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked message.

    Attributes:
        id: its number.
        at: when it was parked.
        message_id: its id in the queue; ``None``: it had none.
        task: the task that it was for; ``None``: it named none.
        reason: why it could not be processed; behind the colon it may quote the message.
        payload: the message as it came, without people who were erased since.
    """

    id: int
    at: datetime
    message_id: str | None
    task: str | None
    reason: str
    payload: str

    @property
    def kind(self) -> str:
        """The reason without what it may quote."""
        return self.reason.partition(":")[0]

    @property
    def why(self) -> str:
        """The same for people: a message that cannot be read names its field alone, such as ``recipients[3].phone``."""
        named = ":" in self.reason and " " not in self.kind
        return f"the field {self.kind} is wrong" if named else self.kind

    def message(self) -> object:
        """Return the message, which may stand in the body of a Celery message.

        Raises:
            ValueError: it is not JSON.
        """
        decoded = json.loads(self.payload)
        match decoded:
            case [[message], dict(), _]:
                return message
            case _:
                return decoded


@dataclass(frozen=True, slots=True)
class Wanted:
    """A choice among the parked messages; a field that is ``None`` does not matter.

    Attributes:
        task: those of this task.
        queue: those of the tasks that travel on this queue.
        error: those whose reason holds this text, in any case.
        user: those that name this user.
        since, until: those that were parked then.
    """

    task: str | None = None
    queue: Queue | None = None
    error: str | None = None
    user: str | None = None
    since: datetime | None = None
    until: datetime | None = None


#: All of them.
EVERY = Wanted()

# A look at all of them: they are few, because each is an alarm.
_LIST = text("""
SELECT id, at, message_id, task, reason, payload
FROM dead_letters
WHERE id > :after
  AND (CAST(:task AS text) IS NULL OR task = :task)
  AND (CAST(:tasks AS text[]) IS NULL OR task = ANY(:tasks))
  AND (CAST(:error AS text) IS NULL OR reason ILIKE :error)
  AND (CAST(:user AS text[]) IS NULL OR payload LIKE ANY(:user))
  AND (CAST(:since AS timestamptz) IS NULL OR at >= :since)
  AND (CAST(:until AS timestamptz) IS NULL OR at < :until)
ORDER BY id
LIMIT :limit
""")
_GET = text("SELECT id, at, message_id, task, reason, payload FROM dead_letters WHERE id = :id")
_DROP = text("DELETE FROM dead_letters WHERE id = :id")


def page(conn: Connection, wanted: Wanted = EVERY, *, after: int = 0, limit: int = 50) -> list[Parked]:
    """Return parked messages, the oldest first.

    Args:
        wanted: only these.
        after: only those with a larger number, for the next page.
    """
    given = {
        "after": after,
        "limit": limit,
        "task": wanted.task,
        "tasks": wanted.queue and [task for task, queue in ROUTES.items() if queue is wanted.queue],
        "error": wanted.error and f"%{_literal(wanted.error)}%",
        "user": wanted.user and [f'%"{_literal(form)}"%' for form in _written(wanted.user)],
        "since": wanted.since,
        "until": wanted.until,
    }
    return [Parked(*row) for row in conn.execute(_LIST, given)]


def get(conn: Connection, id_: int) -> Parked | None:
    """Return a parked message; ``None``: there is none of that number."""
    row = conn.execute(_GET, {"id": id_}).first()
    return None if row is None else Parked(*row)


def drop(conn: Connection, id_: int) -> bool:
    """Forget a parked message, and return whether it was there."""
    return conn.execute(_DROP, {"id": id_}).rowcount > 0


# FOR UPDATE, because two people of one message may be erased at once. Without the lock the second write would bring the
# first person back.
_READ = text("""
SELECT id, payload FROM dead_letters
WHERE id > :after AND payload LIKE ANY(:patterns)
ORDER BY id LIMIT :page FOR UPDATE
""")

# The first word of a reason is ours; the text after the colon may quote the message.
_WRITE = text("UPDATE dead_letters SET payload = :payload, reason = split_part(reason, ':', 1) WHERE id = :id")


def erase(engine: Engine, user: str, numbers: Iterable[str], registrations: Iterable[str]) -> int:
    """Remove a person from parked messages; return how many messages were changed.

    In a readable message only the parts about the person are removed. An unreadable message is emptied.
    """
    person = _Person(user, frozenset(numbers), frozenset(registrations))
    after, changed = 0, 0
    while True:
        with engine.begin() as conn:
            rows = conn.execute(_READ, {"after": after, "patterns": person.patterns(), "page": _PAGE}).all()
            if not rows:
                return changed
            after = rows[-1].id
            for row in rows:
                left = _without(row.payload, person)
                if left != row.payload:
                    conn.execute(_WRITE, {"id": row.id, "payload": left})
                    changed += 1


def _without(payload: str, person: _Person) -> str:
    try:
        decoded = json.loads(payload)
    except (ValueError, RecursionError):
        return ""
    left = _pruned(decoded, person)
    return payload if left == decoded else json.dumps(left)


def _pruned(value: Any, person: _Person) -> Any:
    """Return a value without the objects that name the person."""
    if isinstance(value, list):
        return [_pruned(i, person) for i in value if not (isinstance(i, dict) and person.is_named_by(i))]
    if isinstance(value, dict):
        if person.is_named_by(value):
            return {}
        return {name: item if name in _OWN else _pruned(item, person) for name, item in value.items()}
    return "" if person.stands_for(value) else value


def _written(value: str) -> set[str]:
    """Return the forms of a text in JSON, with and without escapes."""
    return {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}


def _literal(text_: str) -> str:
    return text_.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
