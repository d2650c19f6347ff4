"""Statements that PostgreSQL parses and plans once for each session, instead of each time they come again.

A run sends the same hundred statements over and over, and to plan one costs more than to run it on the few rows of a run. What a
statement does, which locks it takes and what it returns is the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg2

if TYPE_CHECKING:
    from psycopg2.extensions import connection

_PLACE = re.compile(r"%\((\w+)\)s")
_PLANNED = ("SELECT", "WITH", "INSERT", "UPDATE", "DELETE")
#: A number with a fraction is not passed where PostgreSQL has inferred one of these: it would be rounded.
_WHOLE = frozenset({"smallint", "integer", "bigint"})


class Prepared:
    """What is known of the statements of all sessions.

    Args:
        watch: a session of the simulation's own, in which each statement is tried first.
    """

    def __init__(self, watch: connection) -> None:
        self._watch = watch
        self._known: dict[str, _Statement | None] = {}
        self._sessions: dict[int, set[str]] = {}

    def said(self, session: int, statement: str, params: Any) -> str:
        """Return what to send for a statement.

        Args:
            session: PostgreSQL's process of it.
            statement: for psycopg2, with its parameters by name.
            params: their values.
        """
        if statement not in self._known:
            self._known[statement] = self._tried(statement)
        found = self._known[statement]
        if found is None or not isinstance(params, dict) or found.rounds(params):
            return statement
        names = self._sessions.setdefault(session, set())
        if found.name in names:
            return found.execute
        names.add(found.name)
        return f"{found.prepare}; {found.execute}"

    def forget(self, session: int) -> None:
        """Forget what a session knows: it is new, or knows nothing any more."""
        self._sessions.pop(session, None)

    def _tried(self, statement: str) -> _Statement | None:
        if not statement.lstrip().upper().startswith(_PLANNED):
            return None
        places: dict[str, int] = {}
        asked = _PLACE.sub(lambda found: f"${places.setdefault(found[1], len(places) + 1)}", statement)
        name = f"s{len(self._known)}"
        with self._watch.cursor() as cursor:
            try:
                cursor.execute(f"PREPARE {name} AS {asked.replace('%%', '%')}")
            except psycopg2.Error:
                # A parameter whose type only its value says. It is sent as it is.
                return None
            cursor.execute(
                "SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = %(name)s", {"name": name}
            )
            types: list[str] = cursor.fetchall()[0][0]
            cursor.execute(f"DEALLOCATE {name}")
        values = ", ".join(f"%({place})s" for place in places)
        whole = tuple(place for place, kind in zip(places, types, strict=True) if kind in _WHOLE)
        return _Statement(name, f"PREPARE {name} AS {asked}", f"EXECUTE {name}{f'({values})' if values else ''}", whole)


class _Statement:
    """A statement that can be prepared.

    Args:
        name: under which a session knows it.
        prepare, execute: what to send.
        whole: the parameters that PostgreSQL takes for whole numbers.
    """

    def __init__(self, name: str, prepare: str, execute: str, whole: tuple[str, ...]) -> None:
        self.name, self.prepare, self.execute, self._whole = name, prepare, execute, whole

    def rounds(self, params: dict[str, Any]) -> bool:
        """Whether a number would be rounded."""
        return any(isinstance(params[place], float) for place in self._whole)
