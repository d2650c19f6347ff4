"""The checks of single fields. Each returns the value or raises InvalidMessage with the path of the field."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from knocktwice_shared.errors import InvalidMessage, UnsupportedVersion
from knocktwice_shared.messages import phone_text
from knocktwice_shared.messages.problems import collected, collecting, fail
from knocktwice_shared.names import VERSION
from knocktwice_shared.test_side import is_test, real_side, side_of_tests

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


#: One recipient's ``params``, a batch's ``reference``, and the tags of one change, as JSON.
JSON_BYTES_LIMIT = 4_096


#: The limits of :func:`_plainly_storable`: types, number of values, and size of a number.
_PLAIN, _FEW, _PLAIN_INT = frozenset({str, int, bool, type(None)}), 20, 2**63


#: NUL (PostgreSQL refuses it) and lone surrogates (UTF-8 cannot carry them).
_UNCARRIABLE = re.compile("[\x00\ud800-\udfff]")


#: The same NUL after ``json.dumps``: an even number of backslashes before it, so that the text ``\\u0000`` passes.
_ENCODED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


#: Celery's JSON decoder turns an object with this name into something else, or fails on it.
KOMBU_MARKER = "__type__"


#: A language tag (RFC 5646), roughly; phones also write it with underscores.
#: Also as Java writes it, "zh_CN_#Hans", and iOS and POSIX: "en_US@calendar=buddhist", "de_AT.UTF-8".
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:[-_]{1,2}#?[A-Za-z0-9]{1,8})*(?:[.@][A-Za-z0-9=;.-]+)?")


_IN_E164 = f"E.164, like {phone_text.EXAMPLE}"


#: A registration, in characters. Real ones have 22 (FIDs) or about 150.
REGISTRATION_LIMIT, _REGISTRATION_LEAST = 4_096, 2


#: What programs write where a token is missing, in lower case and without brackets and quotes.
_NOTHING = frozenset(
    {
        "", "undefined", "null", "nil", "none", "nan", "infinity", "-infinity", "true", "false", "void", "empty",
        "object object", "object promise", "promise", "unknown", "n/a", "na", "blacklisted", "token", "fcm_token",
        "your_token", "your-token", "registration", "registration_token", "device_token", "0", "-1", "string", "object",
        "todo", "simulator", "undefinedundefined", "nullnull", "timeout",
    }
)  # fmt: skip
#: What an SDK answers in place of a token (``SERVICE_NOT_AVAILABLE``); no token has only capitals.
_ERROR = re.compile(r"[A-Z]+(?:_[A-Z]+)+")
#: What the tokens of other systems, and texts that nobody filled in, look like → what they are.
_FOREIGN = (
    (re.compile(r"Expo(?:nent)?PushToken\["), "is a token of Expo's push service"),
    (re.compile(r"Optional\("), "is a Swift optional that nobody unwrapped"),
    (re.compile(r"(?:undefined|null|nil)[:.,;]"), "begins with what an app without a token writes"),
    (re.compile(r".*(?:\$\{|\{\{|<%)"), "holds a placeholder that nobody filled in"),
    (re.compile(r"%[s@d]$"), "is a placeholder that nobody filled in"),
    (re.compile(r"[0-]+$"), "is all zeros"),
)


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


_T = TypeVar("_T")


_E = TypeVar("_E", bound=StrEnum)


def normalise_phone(value: object, path: str = "phone") -> str:
    """Return a number in E.164 without decoration: ``"+1 (650) 555-0100"`` becomes ``"+16505550100"``.

    Only its form is checked; the worker and the gateway also know the number plans of all countries.

    Raises:
        InvalidMessage: it is not one number with its country code. It says what is wrong and does not quote the value,
            so that it stays out of logs.
    """
    try:
        number = phone_text.read(value).international
    except ValueError as error:
        return fail(path, f"{error} ({_IN_E164})", "")
    if number is not None and phone_text.E164.fullmatch(number):
        return number
    return fail(path, f"has no country code: write + and the country code before it ({_IN_E164})", "")


def each(parse: Callable[[object], _T], items: Sequence[object], path: str) -> tuple[_T, ...]:
    """Validate the items of a list. Their errors name fields of an item; only here they get its place.

    There are many, and most are right: making a path for each field of each took half of the time.
    """
    if collecting():
        for i, item in enumerate(items):
            _note_problems(parse, item, f"{path}[{i}]")
        return ()
    parsed: list[_T] = []
    for i, item in enumerate(items):
        try:
            parsed.append(parse(item))
        except InvalidMessage as error:
            raise error.renamed(partial(_within, f"{path}[{i}]")) from None
    return tuple(parsed)


def _note_problems(parse: Callable[[object], object], item: object, place: str) -> None:
    for problem in collected(parse, item)[1]:
        fail(_within(place, problem.field), problem.problem, None)


def _within(place: str, field: str) -> str:
    return f"{place}.{field}" if field else place


def json_object(value: object, path: str) -> dict[str, Any]:
    """Check an object whose fields are the application's own: small, and storable as ``jsonb``."""
    raw = object_of(value, path, None)
    require_storable(raw, path)
    return raw


def _plainly_storable(raw: object) -> bool:
    """Whether a look is enough: a few short texts and numbers by name, as nearly all params are."""
    if type(raw) is not dict or len(raw) > _FEW:
        return False
    text = ""
    for name, value in raw.items():
        if type(name) is not str or type(value) not in _PLAIN or (type(value) is int and abs(value) > _PLAIN_INT):
            return False
        text += f"{name} {value} "
    # A character takes six bytes at most.
    return 6 * len(text) <= JSON_BYTES_LIMIT and not _UNCARRIABLE.search(text) and KOMBU_MARKER not in text


def require_storable(raw: object, path: str) -> None:
    if not raw or _plainly_storable(raw):
        return None
    try:
        encoded = json.dumps(raw, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return fail(path, "holds half a surrogate pair, which UTF-8 cannot carry", None)
    except (TypeError, ValueError, RecursionError):
        return fail(path, "holds something JSON cannot carry; use text, numbers, lists and objects", None)
    if len(encoded) > JSON_BYTES_LIMIT:
        problem = f"is {len(encoded)} bytes; {JSON_BYTES_LIMIT} at most. Keep an id here, the rest in your own database"
        fail(path, problem, None)
    if _ENCODED_NUL.search(encoded):
        fail(path, "holds a NUL, which PostgreSQL cannot store", None)
    if f'"{KOMBU_MARKER}"'.encode() in encoded:
        fail(path, f"uses the name {KOMBU_MARKER}, which Celery keeps for itself; choose another", None)
    return None


def versioned(wire: object, known: set[str]) -> dict[str, Any]:
    if not isinstance(wire, dict):
        raise InvalidMessage("message", f"must be a JSON object, not {type(wire).__name__}")
    version = wire.get("v")
    if type(version) is not int:
        raise InvalidMessage("v", "is missing" if version is None else "must be the contract's version as a number")
    if version != VERSION:
        shown = str(version) if abs(version) < 1_000_000 else "no version there ever was"
        raise UnsupportedVersion("v", f"is {shown}; this side speaks version {VERSION}. Upgrade the older side")
    return object_of(wire, "message", known)


def object_of(value: object, path: str, known: set[str] | None) -> dict[str, Any]:
    """Check an object's names. In an object of ours ``null`` is the same as leaving the field out."""
    if not isinstance(value, dict):
        return fail(path, "is missing" if value is None else f"must be an object, not {type(value).__name__}", {})
    for name in value:
        if not isinstance(name, str):
            return fail(path, "must have text as names", {})
        if known is not None and name not in known:
            inside = name if path in ("message", "") else f"{path}.{name}"
            fail(inside, f"is not a field of the contract; known here: {', '.join(sorted(known))}", None)
    if known is None:
        return value
    given = {name: item for name, item in value.items() if item is not None}
    # Only while problems are collected there are others left.
    return given if given.keys() <= known else {name: item for name, item in given.items() if name in known}


def list_of(value: object, path: str, least: int, most: int) -> list[Any]:
    if not isinstance(value, list):
        return fail(path, "is missing" if value is None else f"must be a list, not {type(value).__name__}", [])
    if not least <= len(value) <= most:
        return fail(path, f"has {len(value)} items; {least} to {most} are allowed", [])
    return value


#: The names of projects: they stand in options, addresses and files.
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


def project(value: object, path: str = "project") -> str:
    """Return the name of a project.

    Raises:
        InvalidMessage: it is none.
    """
    if isinstance(value, str) and _PROJECT.fullmatch(value):
        return value
    raise InvalidMessage(path, "must be 1 to 40 characters of a-z, 0-9, - and _, with a letter or digit first")


def side(value: object, path: str = "project") -> str:
    """Return the name of a project or of its test side, ``shop~test``; ``~test`` is that of what belongs to no project.

    Raises:
        InvalidMessage: it is none.
    """
    if not isinstance(value, str) or not is_test(value):
        return project(value, path)
    named = real_side(value)
    return value if named is None else side_of_tests(project(named, path))


def text(value: object, path: str, limit: int, *, empty: bool = False) -> str:
    if not isinstance(value, str):
        return fail(path, "is missing" if value is None else f"must be text, not {type(value).__name__}", "")
    if not value.strip() and not empty:
        return fail(path, "is empty", "")
    if len(value) > limit:
        return fail(path, f"is {len(value)} characters; {limit} at most", "")
    if _UNCARRIABLE.search(value):
        return fail(path, "holds a NUL or half a surrogate pair, which no provider can carry", "")
    return value


def registration(value: object, path: str) -> str:
    """Check a registration token or FID: what an app writes that has none is refused by name.

    Raises:
        InvalidMessage: it cannot be one.
    """
    token = text(value, path, REGISTRATION_LIMIT)
    if token and (problem := _no_registration(token)):
        return fail(path, f"{problem}; give the FCM registration token or FID that the app got from its SDK", "")
    return token


def _no_registration(token: str) -> str | None:
    """Return why a text cannot be a registration; ``None``: it can."""
    if token.strip("()<>[]{}\"'` ").lower() in _NOTHING:
        return f"is {token.strip()[:20]!r}, what an app without a token writes"
    if any(not c.isprintable() or c.isspace() for c in token):
        return "holds blanks or control characters"
    if len(token) < _REGISTRATION_LEAST:
        return f"is {len(token)} character; too short"
    if token[0] in "{[<\"'" or token.startswith("[object"):
        return "looks like JSON, a placeholder or a quoted text, not like a token"
    if "://" in token:
        return "is an address, not a token"
    if _ERROR.fullmatch(token):
        return f"is {token[:40]!r}, an error of an SDK"
    return next((what for form, what in _FOREIGN if form.match(token)), None)


def _called(value: object) -> str:
    """Return what people call the type of a value."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def boolean(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        return fail(path, "is missing" if value is None else "must be true or false", False)
    return value


def url(value: object, path: str) -> str | None:
    if value is None:
        return None
    address = text(value, path, 2_000)
    if not address.startswith(("https://", "http://")) or _CONTROL.search(address):
        return fail(path, "must be an http or https address", None)
    return address


def locale(value: object, path: str) -> str:
    tag = text(value, path, 64)
    if not _LOCALE.fullmatch(tag):
        return fail(path, "must be a language tag, like de-AT", "")
    return tag


def choice(enum: type[_E], value: object, path: str) -> _E:
    try:
        return enum(cast("str", value))
    except ValueError:
        return fail(path, f"must be one of {', '.join(enum)}", next(iter(enum)))


def seconds(value: object, path: str, limit: timedelta) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return fail(path, "is missing" if value is None else "must be a number of seconds", timedelta())
    if not 0 <= value <= limit.total_seconds():
        problem = f"must be between 0 and {limit.total_seconds():.0f} seconds ({limit.days} days)"
        return fail(path, problem, timedelta())
    return timedelta(seconds=value)


def uuid(value: object, path: str) -> UUID:
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    return fail(path, "is missing" if value is None else "must be a UUID as text", UUID(int=0))


def parse_moment(value: object, path: str) -> datetime:
    """Check a time: ISO 8601 with an offset.

    Raises:
        InvalidMessage: it is something else.
    """
    return time(value, path)


def time(value: object, path: str) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):  # overflow: the year 1 with an offset lies before the calendar begins
        pass
    problem = "must be an ISO 8601 time with an offset, like 2026-11-21T09:30:00+00:00"
    return fail(path, problem, datetime.fromtimestamp(0, UTC))
