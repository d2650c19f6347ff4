"""Idempotency keys: what a key was first used for, and what a caller is told of a key that was used before."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What a notification says, and how: if one of these changes, another notification was meant.
_SAID = ("content", "plan", "category", "only")


class NotificationId(UUID):
    """The id of a notification: an ordinary UUID that also says whether its ``key`` was used before.

    Attributes:
        duplicate: the key was used before; the id is the first notification's, and nobody is notified twice.
        differs: that notification says something else, or is for somebody else: the key was probably reused by mistake.

    Both are known where the broker remembers keys: for 7 days, on Redis and Valkey. Elsewhere both are ``False``, and
    the notification ends in the state ``duplicate``.
    """

    duplicate: bool
    differs: bool

    def __init__(self, id_: UUID, *, duplicate: bool = False, differs: bool = False) -> None:
        super().__init__(int=id_.int)
        # A UUID refuses to be changed; these belong to its making.
        object.__setattr__(self, "duplicate", duplicate)
        object.__setattr__(self, "differs", differs)

    def __reduce__(self) -> tuple[object, ...]:
        return _remade, (self.hex, self.duplicate, self.differs)


def _remade(text: str, duplicate: bool, differs: bool) -> NotificationId:
    return NotificationId(UUID(text), duplicate=duplicate, differs=differs)


@dataclass(frozen=True, slots=True)
class Use:
    """A use of a key.

    Attributes:
        id: the notification that it is used for.
        said: a digest of what that says, and to whom; empty: not known.
    """

    id: UUID
    said: str = ""

    def __str__(self) -> str:
        return f"{self.id} {self.said}"

    @classmethod
    def read(cls, text: str) -> Use:
        """Return the use that was written down by ``str``."""
        id_, _, said = text.partition(" ")
        return cls(UUID(id_), said)

    def differs(self, other: Use) -> bool:
        """Return whether two uses of a key are known to say different things."""
        return bool(self.said and other.said) and self.said != other.said


def digests(message: Mapping[str, Any]) -> dict[int, str]:
    """Return place → digest for the recipients of a ``send_push`` message that have a key."""
    keyed = {place: r for place, r in enumerate(message["recipients"]) if r.get("key") is not None}
    if not keyed:
        return {}
    shared = hashlib.blake2b(_canonical({name: message.get(name) for name in _SAID}), digest_size=8)
    found = {}
    for place, recipient in keyed.items():
        whole = shared.copy()
        whole.update(_canonical({name: value for name, value in recipient.items() if name not in ("id", "key")}))
        found[place] = whole.hexdigest()
    return found


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
