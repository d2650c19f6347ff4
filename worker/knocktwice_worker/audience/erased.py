"""Erased people: a message about a person counts only if it was made after the person's erasure.

A message may wait in a queue while its person is erased. So an erasure leaves a keyed hash of the user's id with its
time, and older messages about this user are void. Workers keep these hashes in memory, so that sending needs no query
for them.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The longest time until a worker knows a new erasure.
REFRESH = timedelta(seconds=5)
#: An erasure is committed a little after its time was taken, so what was noted shortly before the last look is read
#: again.
_OVERLAP = timedelta(minutes=5)


# A repeat of the same erasure keeps the time of the first note: other workers have known since then.
_NOTE = text("""
INSERT INTO erasures AS e (person, erased_at)
VALUES (:person, least(CAST(:at AS timestamptz), knocktwice_now()))
ON CONFLICT (person) DO UPDATE SET
  erased_at = greatest(e.erased_at, excluded.erased_at),
  noted_at = CASE WHEN excluded.erased_at > e.erased_at THEN knocktwice_now() ELSE e.noted_at END
RETURNING
  erased_at,
  noted_at <= knocktwice_now() - CAST(:settled AS interval) AS settled
""")

_FIND = text("SELECT person, erased_at FROM erasures WHERE person = ANY(CAST(:people AS bytea[]))")

_LATELY = text("SELECT person, erased_at FROM erasures WHERE noted_at > knocktwice_now() - CAST(:within AS interval)")
_LEARN = text("SELECT person, erased_at, noted_at FROM erasures WHERE noted_at > :since")


class Erased:
    """The erasures of an installation, as one process knows them."""

    def __init__(self, engine: Engine, secret: bytes) -> None:
        self._engine = engine
        self._secret = secret
        self._lock = threading.Lock()
        self._known: dict[bytes, datetime] = {}
        self._newest = datetime.fromtimestamp(0, UTC)
        self._next_look = 0.0

    def person(self, user: str) -> bytes:
        """Return what stands for a user where the id must not."""
        return hmac.new(self._secret, b"person:" + user.encode(), hashlib.sha256).digest()

    def note(self, conn: Connection, user: str, at: datetime, settled: timedelta) -> tuple[datetime, bool]:
        """Note that a user is erased.

        Returns:
            Until when what was said is void, and whether that was noted ``settled`` ago or earlier.
        """
        row = conn.execute(_NOTE, {"person": self.person(user), "at": at, "settled": settled}).one()
        return row.erased_at, row.settled

    def find(self, conn: Connection, users: Iterable[str]) -> dict[str, datetime]:
        """Return user → until when what was said is void, of those who were erased. Asks the database."""
        people = {self.person(user): user for user in users}
        if not people:
            return {}
        rows = conn.execute(_FIND, {"people": list(people)})
        return {people[bytes(row.person)]: row.erased_at for row in rows}

    def lately(self, conn: Connection) -> dict[bytes, datetime]:
        """Return :meth:`person` → until when what was said is void, of those erased in the last minutes. Asks the database."""
        rows = conn.execute(_LATELY, {"within": _OVERLAP})
        return {bytes(row.person): row.erased_at for row in rows}

    def recall(self, users: Iterable[str]) -> dict[str, datetime]:
        """Return the same from memory, which may be :data:`REFRESH` old."""
        self._refresh()
        if not self._known:
            return {}
        found = ((user, self._known.get(self.person(user))) for user in users)
        return {user: until for user, until in found if until is not None}

    def _refresh(self) -> None:
        if time.monotonic() < self._next_look:
            return
        with self._lock:
            if time.monotonic() < self._next_look:
                return
            with self._engine.begin() as conn:
                rows = conn.execute(_LEARN, {"since": self._newest - _OVERLAP}).all()
            # Another dictionary, because others read this one meanwhile.
            self._known = {**self._known, **{bytes(row.person): row.erased_at for row in rows}}
            self._newest = max([self._newest, *(row.noted_at for row in rows)])
            self._next_look = time.monotonic() + REFRESH.total_seconds()
