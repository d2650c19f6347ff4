"""The content of a push: its fields, the addresses in it, and how much it weighs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from knocktwice_shared.channels.step_content import MEDIA
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks, languages, platforms
from knocktwice_shared.messages.problems import settle
from knocktwice_shared.messages.values import PUSH_BYTES_LIMIT, PUSH_FIELDS, Priority, Push, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

#: ``link``, ``image`` and ``media``, in characters, also when filled in.
ADDRESS_LIMIT = 2_000

#: Sounds, channels and icons: names of things in the app.
NAME_LIMIT = 200

#: Names in ``data`` that FCM, Celery or knocktwice keep for themselves, and the beginnings of others.
RESERVED = frozenset(
    {"from", "message_type", "knocktwice_id", "knocktwice_receipt", "knocktwice_withdraw", checks.KOMBU_MARKER}
)
RESERVED_PREFIXES = ("google.", "gcm.")

#: https://www.rfc-editor.org/rfc/rfc3986#section-3.1
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SCHEME_BEGINS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(:.*)?", re.DOTALL)
_WEB = re.compile(r"https?://[^/?#]", re.IGNORECASE)
#: White space and control characters, which no address has.
_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")
#: Addresses that carry what they do, or lead to the phone's own files.
_UNSAFE = frozenset({"javascript", "data", "vbscript", "file", "blob", "about"})
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_MARKUP = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_PLAIN = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_BADGE_LIMIT = 2**31 - 1
_PLATFORMS = ("android", "apns", "webpush")


def parse_push(value: object, path: str) -> Push:
    """Validate the content of a push.

    Args:
        value: an object.
        path: what an error calls it.

    Raises:
        InvalidMessage: a field is wrong; the first one is named.
    """
    raw = checks.object_of(value, path, set(PUSH_FIELDS))
    push = Push(
        title=languages.text(raw.get("title"), f"{path}.title", PUSH_BYTES_LIMIT),
        body=languages.text(raw.get("body"), f"{path}.body", PUSH_BYTES_LIMIT),
        data=checked_data(raw.get("data", {}), f"{path}.data"),
    )
    if len(raw) > 2 + ("data" in raw):
        push = _complete(push, raw, path)
    settle()
    # Last, because only now is everything inside known to be text.
    locales = languages.of_push(push, path)
    settle()
    size = max((push_size(push.spoken(tag).fields()) for tag in locales), default=0) or push_size(raw)
    if size > PUSH_BYTES_LIMIT:
        raise InvalidMessage(path, f"is {size} bytes; a push carries {PUSH_BYTES_LIMIT} at most (FCM's limit is 4 KB)")
    return push


def push_size(fields: Mapping[str, Any]) -> int:
    """Return the bytes of a push as compact JSON: what all platforms get, and the largest of what only one gets."""
    common = {name: value for name, value in fields.items() if name not in _PLATFORMS}
    own = [_bytes(fields[name]) for name in _PLATFORMS if fields.get(name)]
    return _bytes(common) + max(own, default=0)


def address_problem(name: str, address: str) -> str | None:
    """Return what is wrong with a ``link``, an ``image`` or ``media`` without placeholders; ``None``: nothing is."""
    if len(address) > ADDRESS_LIMIT:
        return f"is {len(address)} characters; {ADDRESS_LIMIT} at most"
    if _BLANK.search(address):
        return "holds white space or a control character; escape it, like %20"
    if name == MEDIA:
        return _media_problem(address)
    if name == "image":
        return None if _WEB.match(address) else "must be an http or https address"
    scheme = _SCHEME.match(address)
    if scheme is None or scheme.end() == len(address):
        return "must be an address, like https://shop.example/orders or myapp://orders"
    word = scheme[0][:-1].lower()
    if word in _UNSAFE:
        return f"must not be a {word}: address; give one of the web or of your app"
    if word in ("http", "https") and not _WEB.match(address):
        return "names no host; write it like https://shop.example/orders"
    return None


def _media_problem(address: str) -> str | None:
    """Return what is wrong with the address of a file that a provider is to fetch."""
    if not address.lower().startswith("https://"):
        return "must be an https address, like https://shop.example/parcels/4711.png"
    if not address.isascii():
        return "holds characters outside ASCII; escape them, like %C3%A9"
    try:
        parts = urlsplit(address)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:
        host = None
    return None if host and "\\" not in address else "names no host; write it like https://shop.example/4711.png"


def filled_problem(name: str, text: str, values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an address once it is filled in, as far as that can be known without Liquid."""
    if _MARKUP.sub("", _PLAIN.sub("", text)) != _PLAIN.sub("", text):
        return None

    def value(found: re.Match[str]) -> str:
        given = str(values.get(found[1], ""))
        return given if found.start() == 0 else quote(given, safe="")

    if not all(isinstance(values.get(name_), str | int) for name_ in _PLAIN.findall(text)):
        return None
    return address_problem(name, _PLAIN.sub(value, text))


def checked_data(value: object, path: str) -> dict[str, str]:
    """Check texts that are handed to the app.

    Raises:
        InvalidMessage: one is no text, or has a name that is kept.
    """
    data = checks.object_of(value, path, None)
    for key, item in data.items():
        checks.text(key, f"{path}.{key}", PUSH_BYTES_LIMIT)
        checks.text(item, f"{path}.{key}", PUSH_BYTES_LIMIT, empty=True)
        if key in RESERVED or key.startswith(RESERVED_PREFIXES):
            raise InvalidMessage(
                f"{path}.{key}", "is a name FCM, Celery or knocktwice keeps for itself; choose another"
            )
    return data


def _complete(push: Push, raw: Mapping[str, Any], path: str) -> Push:
    """Check and add the fields that most pushes do not have."""

    def text(name: str, limit: int = NAME_LIMIT) -> str | None:
        return checks.text(raw[name], f"{path}.{name}", limit) if name in raw else None

    color = text("color")
    if color is not None and not _is_template(color) and not _COLOR.fullmatch(color):
        raise InvalidMessage(f"{path}.color", "must be a color like #00aa55")
    return Push(
        push.title,
        push.body,
        push.data,
        link=_address(raw, "link", path),
        image=_address(raw, "image", path),
        subtitle=languages.text(raw["subtitle"], f"{path}.subtitle", PUSH_BYTES_LIMIT) if "subtitle" in raw else None,
        sound=text("sound"),
        badge=_badge(raw["badge"], f"{path}.badge") if "badge" in raw else None,
        channel_id=text("channel_id"),
        priority=checks.choice(Priority, raw["priority"], f"{path}.priority") if "priority" in raw else None,
        icon=text("icon"),
        color=color,
        **{
            name: platforms.checked(name, raw[name], f"{path}.{name}", checked_data)
            for name in _PLATFORMS
            if name in raw
        },
    )


def _address(raw: Mapping[str, Any], name: str, path: str) -> Text | None:
    if name not in raw:
        return None
    if isinstance(raw[name], dict):
        return languages.texts(raw[name], f"{path}.{name}", lambda value, place: checked_address(value, name, place))
    return checked_address(raw[name], name, f"{path}.{name}")


def checked_address(value: object, name: str, path: str) -> str:
    """Check an address, which may have placeholders.

    Args:
        value: a text.
        name: ``link``, ``image`` or ``media``.
        path: what an error calls it.

    Raises:
        InvalidMessage: it is none.
    """
    address = checks.text(value, path, ADDRESS_LIMIT)
    problem = _unfilled_problem(name, address) if _is_template(address) else address_problem(name, address)
    if problem:
        raise InvalidMessage(path, problem)
    return address


def _unfilled_problem(name: str, text: str) -> str | None:
    """Return what is wrong with an address whatever its placeholders are."""
    head, literal = text[: _first_markup(text)], _MARKUP.sub("", text)
    if _BLANK.search(literal):
        return "holds white space or a control character; escape it, like %20"
    if head and not _SCHEME_BEGINS.fullmatch(head):
        return "must be an address, like https://shop.example/orders/{{ id }} or myapp://orders/{{ id }}"
    if scheme := _SCHEME.match(head):
        return address_problem(name, head + "x") if len(head) > scheme.end() else None
    return None


def _first_markup(text: str) -> int:
    return min(place for place in (text.find("{{"), text.find("{%")) if place >= 0)


def _is_template(text: str) -> bool:
    return "{{" in text or "{%" in text


def _badge(value: object, path: str) -> int | str:
    if isinstance(value, str) and _is_template(value):
        return checks.text(value, path, NAME_LIMIT)
    return whole_badge(value, path)


def whole_badge(value: object, path: str) -> int:
    """Check the number on an app's icon.

    Raises:
        InvalidMessage: it is none.
    """
    if type(value) is not int or not 0 <= value <= _BADGE_LIMIT:
        raise InvalidMessage(path, "must be a whole number, 0 or more")
    return value


def _bytes(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
