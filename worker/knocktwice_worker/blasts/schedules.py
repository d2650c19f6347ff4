"""Recurring blasts: declared in a file, started by beat. Each time starts once, whatever the number of beats.

A time that nobody was there for is made up for within ``grace``, and only the latest of several; an older one is
skipped, and ``knocktwice blast list`` says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, field_validator
from sqlalchemy import Connection, text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Category, parse_blast
from knocktwice_worker.blasts import request
from knocktwice_worker.notation import crontab, durations, time_zones

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine, Row

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.config import Settings

log = structlog.get_logger(__name__)

#: Longest time for which a missed start may be made up for.
_GRACE_LIMIT = timedelta(days=7)
#: When a stored definition that is not understood any more is looked at again.
_RETRY = timedelta(days=1)
#: The number of next times that a declaration shows.
_SHOWN = 3


def _grace(value: object) -> timedelta:
    return durations.parse(value, _GRACE_LIMIT)


class Definition(BaseModel):
    """A recurring blast.

    Attributes:
        segment, template, params, category, throttle_per_min: as of ``Client.blast``.
        schedule: minute, hour, day of the month, month and day of the week, as in a crontab; or ``@daily`` and its
            like.
        time_zone: whose clock that is.
        grace: how late it may start.
        enabled: ``false`` keeps it without starting it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    segment: str
    template: str
    schedule: str
    time_zone: str = "UTC"
    params: dict[str, Any] | list[Any] = Field(default_factory=dict)
    category: Category | None = None
    throttle_per_min: int | None = None
    grace: Annotated[timedelta, BeforeValidator(_grace), PlainSerializer(durations.written)] = timedelta(hours=1)
    enabled: bool = True

    @field_validator("schedule")
    @classmethod
    def _is_a_crontab(cls, value: str) -> str:
        return crontab.parse(value).spelt

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        return time_zones.canonical(value)

    def after(self, moment: datetime) -> datetime:
        """Return the first time after ``moment``, which is aware."""
        return next(self.times(moment))

    def times(self, after: datetime) -> Iterator[datetime]:
        """Yield the times after ``after``, which is aware; they are in UTC."""
        return crontab.parse(self.schedule).times(after, ZoneInfo(self.time_zone))

    def blast(self, name: str, at: datetime) -> Blast:
        """Return the blast of one time. Its key is made of the name and the time, so it starts once."""
        message: dict[str, Any] = {
            "v": 1,
            "key": f"{name} {at:%Y-%m-%dT%H:%MZ}",
            "segment": self.segment,
            "content": {"template": self.template},
            "params": self.params,
            "category": self.category,
            "throttle_per_min": self.throttle_per_min,
        }
        return parse_blast({field: value for field, value in message.items() if value is not None})


@dataclass(frozen=True, slots=True)
class Recurring:
    """A recurring blast as it stands.

    Attributes:
        definition: as :func:`as_json` returns it.
        next_at: when the next one is due.
        last_at: when the last one was due; ``None``: there was none.
        outcome: what became of the last one, for people.
    """

    name: str
    definition: dict[str, Any]
    next_at: datetime | None
    last_at: datetime | None
    outcome: str | None


def check(name: object, value: object) -> Definition:
    """Return a definition from plain data.

    Raises:
        InvalidMessage: fields are wrong; the path of each begins with the name.
    """
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.strip()) <= 100:
        raise InvalidMessage(str(name), "a name has 1 to 100 printable characters")
    try:
        made = Definition.model_validate(value)
        made.blast(name, datetime(2026, 1, 1, tzinfo=UTC))
    except ValidationError as error:
        raise InvalidMessage.of([_told(name, each) for each in error.errors(include_url=False)]) from None
    except InvalidMessage as error:
        raise error.renamed(lambda field: f"{name}.{field.removeprefix('content.')}") from None
    return made


def _told(name: str, error: Any) -> InvalidMessage:
    problem = {"missing": "is missing", "extra_forbidden": "is not a field of a recurring blast"}
    if error["loc"][0] == "params":
        return InvalidMessage(f"{name}.params", "must be an object or a list")
    path = ".".join([name, *map(str, error["loc"])])
    return InvalidMessage(path, problem.get(error["type"], error["msg"].removeprefix("Value error, ")))


def stored(conn: Connection) -> dict[str, dict[str, Any]]:
    """Return all definitions as they are stored, by name."""
    return {row.name: row.definition for row in conn.execute(text("SELECT name, definition FROM blast_schedules"))}


def as_json(made: Definition) -> dict[str, Any]:
    """Return a definition as it is stored and shown."""
    return made.model_dump(mode="json", exclude_defaults=True) | {"time_zone": made.time_zone}


_PUT = text("""
INSERT INTO blast_schedules (
  name,
  definition,
  next_at
) VALUES (
  :name,
  CAST(:definition AS jsonb),
  :next
)
ON CONFLICT (name) DO UPDATE SET
  definition = excluded.definition,
  next_at = excluded.next_at,
  updated_at = knocktwice_now()
""")


def put(conn: Connection, name: str, made: Definition) -> None:
    """Store a recurring blast, new or changed. It counts from now on."""
    now = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    conn.execute(_PUT, {"name": name, "definition": json.dumps(as_json(made)), "next": made.after(now)})


def next_times(conn: Connection, made: Definition) -> list[str]:
    """Return the next times as RFC 9557 writes them, with the offset and the zone; none of one that is not enabled."""
    if not made.enabled:
        return []
    now = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    zone = ZoneInfo(made.time_zone)
    return [f"{time.astimezone(zone).isoformat()}[{zone.key}]" for time in islice(made.times(now), _SHOWN)]


def delete(conn: Connection, name: str) -> bool:
    """Forget a recurring blast and return whether there was one. What it has started goes on."""
    return bool(conn.execute(text("DELETE FROM blast_schedules WHERE name = :name"), {"name": name}).rowcount)


_LIST = text("""
SELECT
  name,
  definition,
  next_at,
  last_at,
  outcome
FROM blast_schedules
ORDER BY name
""")


def listed(conn: Connection) -> Sequence[Recurring]:
    """Return all recurring blasts, by name."""
    return [Recurring(**row._mapping) for row in conn.execute(_LIST)]


# Each due one is locked by one beat; the others pass it over.
_DUE = text("""
SELECT
  name,
  definition,
  next_at,
  knocktwice_now() AS now
FROM blast_schedules
WHERE next_at <= knocktwice_now()
FOR UPDATE SKIP LOCKED
""")

_DONE = text("""
UPDATE blast_schedules SET
  next_at = :next,
  last_at = :at,
  outcome = :outcome
WHERE name = :name
""")


def start_due(engine: Engine, settings: Settings) -> None:
    """Start the blasts whose time has come."""
    with engine.begin() as conn:
        for row in conn.execute(_DUE).all():
            try:
                outcome = _start(conn, row, check(row.name, row.definition), settings)
            except InvalidMessage as error:
                # Stored by another release, with other rules. The others start all the same.
                outcome = f"failed: {error}"
                conn.execute(_DONE, {"name": row.name, "next": row.now + _RETRY, "at": row.next_at, "outcome": outcome})
            log.info("recurring blast", name=row.name, outcome=outcome)


def _start(conn: Connection, row: Row[Any], made: Definition, settings: Settings) -> str:
    at = max(takewhile(lambda time: time <= row.now, made.times(row.next_at)), default=row.next_at)
    following = made.after(at)
    if not made.enabled:
        outcome = "skipped: it is not enabled"
    elif row.now - at > made.grace:
        outcome = f"skipped: nobody was there to start it within {durations.written(made.grace)}"
    else:
        outcome = _try(conn, row.name, made, at, settings)
    conn.execute(_DONE, {"name": row.name, "next": following, "at": at, "outcome": outcome})
    return outcome


def _try(conn: Connection, name: str, made: Definition, at: datetime, settings: Settings) -> str:
    try:
        blast = made.blast(name, at)
        with conn.begin_nested():
            request.start(conn, blast, schedule=name, settings=settings)
    except InvalidMessage as error:
        return f"failed: {error}"
    return f"started as {blast.key!r}"
