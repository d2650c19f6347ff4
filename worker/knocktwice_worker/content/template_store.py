"""The stored templates."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection, text

from knocktwice_worker.content import templates

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class Stored(NamedTuple):
    """A template as it is now. ``version`` counts its changes, from 1."""

    name: str
    definition: templates.Definition
    version: int
    updated_at: datetime


class Listed(NamedTuple):
    """A line of the list of templates."""

    name: str
    version: int
    locales: list[str]
    updated_at: datetime


def get(conn: Connection, name: str) -> Stored | None:
    """Return a template, or ``None`` if there is none of that name.

    Raises:
        InvalidDefinition: it was stored under other rules and must be applied anew.
    """
    found = find(conn, [name]).get(name)
    if isinstance(found, templates.InvalidDefinition):
        raise found
    return found


def find(conn: Connection, wanted: Sequence[str]) -> dict[str, Stored | templates.InvalidDefinition]:
    """Return the templates that there are of these names, or why one cannot be used."""
    query = text("SELECT * FROM templates WHERE name = ANY(:names)")
    found: dict[str, Stored | templates.InvalidDefinition] = {}
    for row in conn.execute(query, {"names": list(wanted)}):
        try:
            found[row.name] = Stored(row.name, templates.check(row.name, row.definition), row.version, row.updated_at)
        except templates.InvalidDefinition as error:
            found[row.name] = error
    return found


_PUT = text("""
INSERT INTO templates (
  name,
  definition,
  version
) VALUES (
  :name,
  CAST(:definition AS jsonb),
  1
)
ON CONFLICT (name) DO UPDATE SET
  definition = excluded.definition,
  version = templates.version + 1,
  updated_at = knocktwice_now()
""")


def put(conn: Connection, name: str, definition: templates.Definition) -> None:
    """Store a template, new or changed."""
    conn.execute(_PUT, {"name": name, "definition": json.dumps(definition.as_json())})


def delete(conn: Connection, name: str) -> bool:
    """Forget a template and return whether there was one. What was accepted with it goes on."""
    return bool(conn.execute(text("DELETE FROM templates WHERE name = :name"), {"name": name}).rowcount)


def definitions(conn: Connection) -> dict[str, dict[str, Any]]:
    """Return all definitions as they are stored, by name."""
    return {row.name: row.definition for row in conn.execute(text("SELECT name, definition FROM templates"))}


def names(conn: Connection) -> list[Listed]:
    """Return all templates, by name."""
    rows = conn.execute(text("SELECT * FROM templates ORDER BY name"))
    return [Listed(row.name, row.version, sorted(row.definition["contents"]), row.updated_at) for row in rows]
