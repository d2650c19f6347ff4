"""The record of what operators did: who, when, what and why."""

from __future__ import annotations

import getpass
import json
import socket
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

#: Longest reason, in characters.
REASON_LIMIT = 500


@dataclass(frozen=True, slots=True)
class By:
    """The author of a change, and the reason.

    Attributes:
        actor: who: an account on a machine, a key of the gateway, or who logged in to Flower.
        reason: why, in the operator's words; names no person.
    """

    actor: str
    reason: str

    def __post_init__(self) -> None:
        if not self.reason.strip() or len(self.reason) > REASON_LIMIT:
            raise InvalidMessage("reason", f"say why, in 1 to {REASON_LIMIT} characters")
        if not self.reason.isprintable():
            # In a terminal a control character could hide or forge lines of the audit.
            raise InvalidMessage("reason", "must be one line without control characters")


def of_this_account(reason: str) -> By:
    """Return whoever runs this process, with the reason that they gave."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in some containers
        account = "somebody"
    return By(f"{account}@{socket.gethostname()}", reason)


_NOTE = text("""
INSERT INTO audit (
  actor,
  action,
  subject,
  reason
)
VALUES (
  :actor,
  :action,
  CAST(:subject AS jsonb),
  :reason
)
""")


def note(conn: Connection, by: By, action: str, subject: Mapping[str, Any]) -> None:
    """Write a line, in the transaction of the change itself.

    Args:
        action: what was done, like ``pause``.
        subject: to what; no personal data.
    """
    given = {"actor": by.actor, "action": action, "subject": json.dumps(subject, default=str), "reason": by.reason}
    conn.execute(_NOTE, given)


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        id: its number; later lines have larger ones.
        at: when it was done.
        actor: who did it.
        action: what was done.
        subject: to what.
        reason: why.
    """

    id: int
    at: datetime
    actor: str
    action: str
    subject: Mapping[str, Any]
    reason: str

    @property
    def about(self) -> str:
        """To what it was done, in words behind the action: ``1, channel sms, for 1h``."""
        said = sorted(self.subject.items(), key=lambda one: (one[0] not in _FIRST, one[0]))
        # A setting is known by its name, and "pause 1" needs no second "pause".
        known = ("name", self.action.rpartition(" ")[2])
        return ", ".join(
            _said("" if name in known else name, value) for name, value in said if value not in (None, False, "")
        )


#: PostgreSQL keeps no order of an object's fields; what an action is about comes first.
_FIRST = {"name", "pause", "blast", "notification", "dead_letter", "endpoint"}


def _said(name: str, value: object) -> str:
    if name.endswith("_s") and isinstance(value, int | float):
        name, value = name.removesuffix("_s"), durations.written(timedelta(seconds=value))
    words = name.replace("_", " ")
    return words if value is True else f"{words} {value}".strip()


_LINES = text("""
SELECT id, at, actor, action, subject, reason
FROM audit
WHERE CAST(:before AS bigint) IS NULL OR id < :before
ORDER BY id DESC
LIMIT :limit
""")


def lines(conn: Connection, *, limit: int = 50, before: int | None = None) -> list[Line]:
    """Return the latest lines, the newest first.

    Args:
        before: only those with a smaller number, for the next page.
    """
    return [Line(*row) for row in conn.execute(_LINES, {"limit": limit, "before": before})]
