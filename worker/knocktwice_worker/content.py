"""Texts: ``{{ name }}`` placeholders filled from a recipient's params, strictly and within bounds."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from liquid import BoundTemplate, Environment, StrictDefaultUndefined
from liquid.exceptions import LiquidError

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import PUSH_BYTES_LIMIT, SMS_CHARS_LIMIT, Push

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Bounded(Environment):
    """Operators edit templates, so a template must not be able to eat the worker."""

    loop_iteration_limit = 1_000
    output_stream_limit = 20_000
    context_depth_limit = 10
    local_namespace_limit = 100_000


#: Only what makes little of little. ``join`` would write a range of a billion, ``replace`` multiplies texts.
_FILTERS = (
    "abs",
    "append",
    "at_least",
    "at_most",
    "capitalize",
    "ceil",
    "date",
    "default",
    "divided_by",
    "downcase",
    "escape",
    "first",
    "floor",
    "last",
    "lstrip",
    "minus",
    "modulo",
    "newline_to_br",
    "plus",
    "prepend",
    "remove",
    "round",
    "rstrip",
    "size",
    "slice",
    "strip",
    "strip_html",
    "strip_newlines",
    "times",
    "truncate",
    "truncatewords",
    "upcase",
    "url_encode",
)

_environment = _Bounded(undefined=StrictDefaultUndefined)
_environment.filters = {name: _environment.filters[name] for name in _FILTERS}


@dataclass(frozen=True, slots=True)
class Texts:
    """What one recipient gets to read."""

    title: str
    body: str
    sms: str


def render(push: Push, sms_text: str | None, params: Mapping[str, Any]) -> Texts:
    """Fill in the placeholders of all texts of a notification.

    Args:
        push: the shared push content.
        sms_text: the SMS's own text; ``None`` texts the push body.
        params: this recipient's values.

    Raises:
        InvalidMessage: a parameter is missing, a template is broken, or a result is too long; the field is named.
    """
    body = _fill("content.push.body", push.body, params)
    texts = Texts(
        title=_fill("content.push.title", push.title, params),
        body=body,
        sms=body if sms_text is None else _fill("content.sms.text", sms_text, params),
    )
    if len(texts.sms) > SMS_CHARS_LIMIT:
        raise InvalidMessage(
            "content.sms.text", f"is {len(texts.sms)} characters when filled in; {SMS_CHARS_LIMIT} at most"
        )
    if _push_bytes(push, texts) > PUSH_BYTES_LIMIT:
        raise InvalidMessage("content.push", f"is over {PUSH_BYTES_LIMIT} bytes when filled in (FCM's limit is 4 KB)")
    return texts


def fingerprint(text: str) -> bytes:
    """Return what makes two texts the same content: Unicode form, case and white space do not count."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(normal.encode(), digest_size=16).digest()


def _push_bytes(push: Push, texts: Texts) -> int:
    text = len(texts.title.encode()) + len(texts.body.encode())
    return text + _fixed_bytes(json.dumps(dict(push.data)), push.link, push.image)


def _fixed_bytes(data: str, link: str | None, image: str | None) -> int:
    return len(data.encode()) + len((link or "").encode()) + len((image or "").encode()) + 60


def _fill(field: str, text: str, params: Mapping[str, Any]) -> str:
    if "{{" not in text and "{%" not in text:
        return text
    try:
        return _compiled(text).render(dict(params))
    except LiquidError as error:
        # The message of a Liquid error names variables and positions, never values.
        raise InvalidMessage(field, str(error).splitlines()[0]) from None
    except (ValueError, TypeError, ArithmeticError) as error:
        # Some filters let these through; their texts quote values.
        raise InvalidMessage(field, f"cannot be filled in: {type(error).__name__}") from None


@lru_cache(maxsize=1_000)
def _compiled(text: str) -> BoundTemplate:
    return _environment.from_string(text)
