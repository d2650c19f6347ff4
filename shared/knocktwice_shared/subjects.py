"""The subjects of an accepted message, by which a worker finds all pending messages about a person.

Receipts, cancellations and changes of a person wait in a queue of their own while a notification is decided. The script
that accepts such a message also notes its subjects in the broker. Before a decision a worker looks for the subjects of
its notification, and carries out the messages that it finds.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice_shared.names import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHARED_DIGITS = 8
_CANONICAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def notification(id_: object) -> str:
    """Return the subject of a notification, in whatever of its spellings a UUID is given."""
    text = str(id_)
    return f"n:{text if _CANONICAL.fullmatch(text) else UUID(text)}"


def user(id_: str) -> str:
    """Return the subject of a person."""
    return f"u:{_line(id_)}"


def device(registration: str) -> str:
    """Return the subject of a device."""
    return f"d:{_line(registration)}"


def key(key_: str) -> str:
    """Return the subject of an idempotency key."""
    return f"k:{_line(key_)}"


def blast(key_: str) -> str:
    """Return the subject of a blast."""
    return f"b:{_line(key_)}"


def _line(name: object) -> str:
    """Return a name without line breaks: in the broker a line break ends the subject.

    While all problems of a request are collected, a name may be of a wrong type; the request is refused afterwards.
    """
    text = str(name)
    return text.replace("\n", "\\n") if "\n" in text else text


def phone(number: object) -> str:
    """Return the subject of a number: its last digits, which all spellings of a number share.

    Two numbers may share them, too; then a decision waits for a message about the other one.
    """
    digits = [str(unicodedata.decimal(char)) for char in str(number) if char.isdecimal()]
    return f"p:{''.join(digits[-_SHARED_DIGITS:])}"


def of(task: Task, message: Mapping[str, Any]) -> list[str]:
    """Return the subjects of a message that the contract's validator accepts; none for one that no decision waits for.

    Tags do not count: no decision reads them, and an import of a million of them must hold up nobody.
    """
    match task:
        case Task.RECORD_EVENTS:
            found: Iterable[str] = (notification(receipt["notification"]) for receipt in message["receipts"])
        case Task.CANCEL:
            found = (
                *map(notification, message.get("ids") or ()),
                *map(key, message.get("keys") or ()),
                *map(blast, message.get("blasts") or ()),
            )
        case Task.UPDATE_AUDIENCE:
            found = (subject for change in message["changes"] for subject in _of_change(change))
        case _:
            found = ()
    return list(dict.fromkeys(found))


def _of_change(change: Mapping[str, Any]) -> Iterable[str]:
    if change["change"] == "set_tags" and change.get("locale") is None and change.get("time_zone") is None:
        return
    if change.get("user") is not None:
        yield user(change["user"])
    if change.get("registration") is not None:
        yield device(change["registration"])
    if change["change"] in ("opt_out", "opt_in"):
        yield phone(change["phone"])
