"""Settings that operators change without a restart: kept as rows, and applied by every worker within two seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError
from sqlalchemy import Connection, text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.config import Settings, problem
from knocktwice_worker.switches import audit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from knocktwice_worker.switches.audit import By

#: The settings that can be changed so: budgets, limits, countries, quiet hours, trials, and the paces of all channels.
CHANGEABLE = tuple(
    name
    for name in Settings.model_fields
    if name.startswith("sms_budget")
    or name in ("sms_per_day", "sms_countries", "quiet_hours", "trial")
    or (name.endswith("_per_s") and not name.startswith("gateway"))
)
_PREFIX = "KNOCKTWICE_"


@dataclass(frozen=True, slots=True)
class Override:
    """A changed setting.

    Attributes:
        name: its environment variable.
        value: its value, as the variable would have it.
        since: when it was set.
    """

    name: str
    value: str
    since: datetime


_LIST = text("SELECT name, value, since FROM overrides ORDER BY name")


def list_all(conn: Connection) -> list[Override]:
    """Return the changed settings."""
    return [Override(*row) for row in conn.execute(_LIST)]


def in_force(conn: Connection, settings: Settings) -> Settings:
    """Return settings of the environment with the changed ones in place, as workers have them.

    Raises:
        InvalidMessage: a changed value does not fit the environment.
    """
    return applied(settings, {one.name: one.value for one in list_all(conn)})


def applied(settings: Settings, changed: Mapping[str, str]) -> Settings:
    """Return settings with the changed ones in place.

    Args:
        changed: environment variable → value, as the variable would have it.

    Raises:
        InvalidMessage: a value is wrong, alone or together with the others.
    """
    if not changed:
        return settings
    values = {_field(name): _parsed(name, value) for name, value in changed.items()}
    try:
        # Checked like any other settings. An explicit value counts more than the environment.
        own = {name: getattr(settings, name) for name in type(settings).model_fields}
        return Settings(**{**own, **values})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = str(first["loc"][0]) if first["loc"] else _field(next(iter(changed)))
        raise InvalidMessage(_PREFIX + field.upper(), problem(first)) from None


_SET = text("""
INSERT INTO overrides (name, value)
VALUES (:name, :value)
ON CONFLICT (name) DO UPDATE SET
  value = excluded.value,
  since = knocktwice_now()
""")
_UNSET = text("DELETE FROM overrides WHERE name = :name RETURNING value")


def change(conn: Connection, settings: Settings, name: str, value: str, by: By) -> Override:
    """Change a setting on every worker.

    Args:
        settings: those of the environment, with which it must fit together.
        name: its environment variable, or that without the prefix, in any case.
        value: as the variable would have it.

    Raises:
        InvalidMessage: it is not one of :data:`CHANGEABLE`, or its value is wrong.
    """
    variable = _variable(name)
    if not value.isprintable():
        raise InvalidMessage(variable, "must be one line without control characters")
    known = {one.name: one.value for one in list_all(conn)}
    applied(settings, {**known, variable: value})
    conn.execute(_SET, {"name": variable, "value": value})
    audit.note(conn, by, "set", {"name": variable, "value": value, "was": known.get(variable)})
    return next(one for one in list_all(conn) if one.name == variable)


def restore(conn: Connection, settings: Settings, name: str, by: By) -> str:
    """Let a setting be again as the workers' environment says; return its environment variable.

    Raises:
        InvalidMessage: it is not changed, or the rest does not fit together without it.
    """
    variable = _variable(name)
    was = conn.execute(_UNSET, {"name": variable}).scalar()
    if was is None:
        raise InvalidMessage(variable, "is not changed; 'knocktwice switches' lists those that are")
    applied(settings, {one.name: one.value for one in list_all(conn)})
    audit.note(conn, by, "unset", {"name": variable, "was": was})
    return variable


def _variable(name: str) -> str:
    field = _field(name.upper())
    if field not in CHANGEABLE:
        names = ", ".join(_PREFIX + one.upper() for one in CHANGEABLE)
        raise InvalidMessage(name, f"cannot be changed without a restart; these can: {names}")
    return _PREFIX + field.upper()


def _field(variable: str) -> str:
    return variable.removeprefix(_PREFIX).lower()


def _parsed(variable: str, value: str) -> object:
    """Return a value as the environment's would be read: a list is JSON, anything else is text."""
    if not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        like = 'object, like {"sms_per_day": 5}' if value.lstrip().startswith("{") else 'list, like ["DE", "AT"]'
        raise InvalidMessage(variable, f"must be a JSON {like}") from None
