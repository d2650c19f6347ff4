"""Invented people, and a second opinion on who belongs to a segment:
the language's meaning in plain Python, without SQL.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from knocktwice_shared.messages import TagItem

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

#: What is awkward in some way: empty, looks like another type or like SQL, differs in case or only beyond ASCII.
TEXTS = ["gold", "Gold", "", "10", "9", "true", "null", "é", "z", "~", "😀", "\\", '"', "%s", ":x", "%(x)s", "'; DROP"]
#: Equal ones in different spellings, and such as binary fractions and 64 bits cannot hold.
NUMBERS: list[int | float] = [0, -0.0, 1, 1.0, -1, 0.1, 0.5, 9, 10, 1e23, 10**23, 10**40, 1e-300, 2**63]
ITEMS: list[TagItem] = [*TEXTS, *NUMBERS, True, False]
TAGS = ["plan", "orders", "likes", "a.b", "ünï", "q'; --", "%s"]
LOCALES = ["de", "de-AT", "de_AT", "zh-Hant-TW", "en-US", "EN-gb", "sr-Latn-RS", "pt-BR", "x", "de-1996", "c"]
#: Each with its country; the last is nobody's.
NUMBERS_OF = {"+43660": "AT", "+1650555": "US", "+1416555": "CA", "+800123": None}
PLATFORMS = ["android", "ios", "web"]


@dataclass(frozen=True)
class Device:
    """A registration."""

    platform: str | None
    enabled: bool
    locale: str | None
    last_seen: datetime


@dataclass(frozen=True)
class Person:
    """All that a filter can ask about."""

    id: str
    tags: Mapping[str, Any] = field(default_factory=dict)
    locale: str | None = None
    devices: Sequence[Device] = ()
    phone: str | None = None
    region: str | None = None
    opted_out: bool = False
    consent: bool = False


def belongs(person: Person, wanted: Mapping[str, Any]) -> bool:
    """Return whether a filter, as JSON, is true of a person at :data:`NOW`."""
    match wanted:
        case {"everyone": _}:
            return True
        case {"and": parts}:
            return all(belongs(person, part) for part in parts)
        case {"or": parts}:
            return any(belongs(person, part) for part in parts)
        case {"not": part}:
            return not belongs(person, part)
    name, op, value = wanted["field"], wanted["op"], wanted.get("value", True)
    if op == "!=":
        return not belongs(person, {"field": name, "op": "=", "value": value})
    held = _held(person, name)
    if op == "exists":
        return bool(held) is value
    if op == "contains":
        return any(isinstance(h, list) and any(_same(item, value) for item in h) for h in held)
    if op in "<>":
        return any(_ordered(h, op, _moment(value) if name == "last_seen" else value) for h in held)
    values = value if op == "in" else [value]
    return any(_same(h, _normal(name, v)) for h in held for v in values)


def _held(person: Person, name: str) -> list[Any]:
    """Return what a person has in a field: nothing, one value, or several."""
    if name.startswith("tags."):
        tag = person.tags.get(name.removeprefix("tags."))
        return [] if tag is None else [tag]
    locale = _locale(person)
    parts = re.split("[-_]", locale) if locale else []
    match name:
        case "locale":
            return [_normal(name, locale)] if locale else []
        case "language":
            return [p.lower() for p in parts[:1] if re.fullmatch("[A-Za-z]{2,8}", p)]
        case "country":
            if person.region:
                return [person.region]
            return [p.upper() for p in parts[1:] if re.fullmatch("[A-Za-z]{2}", p)][:1]
        case "platform":
            return [d.platform for d in person.devices if d.platform]
        case "last_seen":
            return [max(d.last_seen for d in person.devices)] if person.devices else []
    return [
        {
            "has_device": bool(person.devices),
            "notifications_enabled": any(d.enabled for d in person.devices),
            "has_phone": person.phone is not None,
            "can_receive_sms": person.phone is not None and not person.opted_out,
            "consent": person.consent,
        }[name]
    ]


def _locale(person: Person) -> str | None:
    if person.locale is not None:
        return person.locale
    latest = sorted((d for d in person.devices if d.locale), key=lambda d: d.last_seen)
    return latest[-1].locale if latest else None


def _normal(name: str, value: Any) -> Any:
    match name:
        case "locale":
            return value.replace("_", "-").lower()
        case "language":
            return value.lower()
        case "country":
            return value.upper()
    return value


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return Decimal(json.dumps(a)) == Decimal(json.dumps(b))
    return isinstance(a, str) and isinstance(b, str) and a == b


def _ordered(a: Any, op: str, b: Any) -> bool:
    if isinstance(a, bool | list):
        return False
    if isinstance(a, int | float) and isinstance(b, int | float):
        a, b = Decimal(json.dumps(a)), Decimal(json.dumps(b))
    elif type(a) is not type(b):
        return False
    return bool(a < b if op == "<" else a > b)


def _moment(value: str) -> datetime:
    if value.endswith(" ago"):
        count, unit, _ = value.split()
        return NOW - timedelta(**{unit.rstrip("s") + "s": int(count)})
    return datetime.fromisoformat(value)


def invent(count: int, seed: int = 7) -> list[Person]:
    """Return people of all sorts; the same ones for the same seed."""
    dice = random.Random(seed)
    return [_person(dice, n) for n in range(count)]


def _person(dice: random.Random, n: int) -> Person:
    prefix, region = dice.choice([(None, None), *NUMBERS_OF.items()])
    tags: dict[str, Any] = {}
    for name in dice.sample(TAGS, dice.randrange(len(TAGS))):
        tags[name] = dice.choice(ITEMS) if dice.random() < 0.75 else dice.sample(ITEMS, dice.randrange(4))
    return Person(
        # Not in the order in which they are made, and where "10" sorts before "9".
        id=f"{dice.choice(['u', 'U', 'ü', '_'])}-{n}",
        tags=tags,
        locale=dice.choice([None, None, *LOCALES]),
        # Never two at one time: which locale is the later one would be a matter of taste.
        devices=[
            Device(
                dice.choice([None, *PLATFORMS]),
                dice.random() < 0.5,
                dice.choice([None, *LOCALES]),
                NOW - days * DAY,
            )
            for days in dice.sample(range(0, 60, 5), dice.choice([0, 0, 1, 1, 2, 3]))
        ],
        phone=f"{prefix}{n:06}" if prefix else None,
        region=region,
        opted_out=bool(prefix) and dice.random() < 0.3,
        consent=dice.random() < 0.3,
    )


def insert(conn: sa.Connection, people: Iterable[Person]) -> None:
    """Write people into an empty database whose clock stands at :data:`NOW`."""
    conn.execute(
        sa.text(
            "CREATE OR REPLACE FUNCTION knocktwice_now() RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE "
            f"AS 'SELECT timestamptz ''{NOW.isoformat()}'''"
        )
    )
    for person in people:
        conn.execute(
            sa.text("INSERT INTO users (id, tags, locale) VALUES (:id, CAST(:tags AS jsonb), :locale)"),
            {"id": person.id, "tags": json.dumps(dict(person.tags)), "locale": person.locale},
        )
        for i, device in enumerate(person.devices):
            conn.execute(
                sa.text(
                    "INSERT INTO devices (registration, user_id, platform, notifications_enabled, locale, last_seen_at) "
                    "VALUES (:registration, :user, :platform, :enabled, :locale, :last_seen)"
                ),
                {"registration": f"{person.id}-{i}", "user": person.id, **vars(device)},
            )
        conn.execute(
            sa.text(
                "INSERT INTO phones (user_id, number, region, consented_at) "
                "SELECT :user, :number, :region, CASE WHEN :consent THEN now() END WHERE :number IS NOT NULL OR :consent"
            ),
            {"user": person.id, "number": person.phone, "region": person.region, "consent": person.consent},
        )
        if person.opted_out:
            conn.execute(
                sa.text("INSERT INTO opt_outs (number, source) VALUES (:number, 'test')"), {"number": person.phone}
            )
