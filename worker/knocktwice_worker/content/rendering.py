"""Texts: ``{{ name }}`` placeholders filled from a recipient's params, strictly and within bounds."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from liquid.exceptions import LiquidError

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import PUSH_BYTES_LIMIT, SMS_CHARS_LIMIT, Push
from knocktwice_worker.content.liquid import SLIPS, BrokenTemplate, fill, tracks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.content.links.short_links import Tracker

#: The path of an SMS's text, as errors name it.
_SMS = "content.sms.text"
_SAYS_NOTHING = "says nothing when filled in; nothing empty is sent"


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts for one recipient."""

    title: str
    body: str
    sms: str


def render(push: Push | None, sms_text: str | None, params: Mapping[str, Any], links: Tracker | None = None) -> Texts:
    """Fill in the placeholders of all texts of a notification.

    Args:
        push: the shared push content; ``None`` where an SMS is all there is.
        sms_text: the SMS's own text; ``None`` texts the push body.
        params: this recipient's values.
        links: makes those of the SMS. A push has none: its app reports the click, and a tap opens the ``link`` it came
            with.

    Raises:
        InvalidMessage: a parameter is missing, a template is broken, or a result is too long; the field is named.
    """
    body = fill_in("content.push.body", push.body, params) if push else ""
    texts = Texts(
        title=fill_in("content.push.title", push.title, params) if push else "",
        body=body,
        sms=_bounded(body)
        if sms_text is None and (push is None or links is None or not tracks(push.body))
        else render_sms(push, sms_text, params, links=links),
    )
    if push and not (texts.title.strip() or texts.body.strip()):
        raise InvalidMessage("content.push", _SAYS_NOTHING)
    if push and push_bytes(push, texts) > PUSH_BYTES_LIMIT:
        raise InvalidMessage("content.push", f"is over {PUSH_BYTES_LIMIT} bytes when filled in (FCM's limit is 4 KB)")
    return texts


def render_sms(
    push: Push | None,
    sms_text: str | None,
    params: Mapping[str, Any],
    field: str = _SMS,
    links: Tracker | None = None,
) -> str:
    """Fill in the SMS alone, which an error calls ``field``; other arguments and errors as for :func:`render`."""
    if sms_text is None:
        return _sms(fill_in("content.push.body", push.body if push else "", params, links))
    return _sms(fill_in(field, sms_text, params, links), field)


def _sms(text: str, field: str = _SMS) -> str:
    if not text.strip():
        raise InvalidMessage(field, _SAYS_NOTHING)
    return _bounded(text, field)


def _bounded(text: str, field: str = _SMS) -> str:
    if len(text) > SMS_CHARS_LIMIT:
        raise InvalidMessage(field, f"is {len(text)} characters when filled in; {SMS_CHARS_LIMIT} at most")
    return text


def stored(push: Push | None, sms_text: str | None) -> dict[str, Any]:
    """Return a content as ``batches.content`` keeps it. A template's are ``{"locales": {locale: such a content}}``."""
    fields = push and {
        "title": push.title,
        "body": push.body,
        "data": dict(push.data),
        "link": push.link,
        "image": push.image,
    }
    return {"push": fields, "sms": sms_text}


def of(content: Mapping[str, Any], locale: str | None) -> tuple[Push | None, str | None]:
    """Return push and SMS text from ``batches.content``.

    Args:
        content: the batch's.
        locale: the notification's; ``None`` where one content is for all.
    """
    own = content if locale is None else content["locales"][locale]
    return own["push"] and Push(**own["push"]), own["sms"]


def fingerprint(text: str) -> bytes:
    """Return what makes two texts the same content: Unicode form, case and white space do not count."""
    normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.blake2b(normal.encode(), digest_size=16).digest()


def push_bytes(push: Push, texts: Texts) -> int:
    """Return what counts against :data:`PUSH_BYTES_LIMIT` when the placeholders are filled in."""
    text = len(texts.title.encode()) + len(texts.body.encode())
    return text + _fixed_bytes(json.dumps(dict(push.data)) if push.data else "{}", push.link, push.image)


def _fixed_bytes(data: str, link: str | None, image: str | None) -> int:
    return len(data.encode()) + len((link or "").encode()) + len((image or "").encode()) + 60


def fill_in(field: str, text: str, params: Mapping[str, Any], links: Tracker | None = None) -> str:
    """Fill in one text, which an error calls ``field``. Raises like :func:`render`."""
    try:
        return fill(text, params, links)
    except BrokenTemplate as error:
        raise InvalidMessage(field, str(error)) from None
    except LiquidError as error:
        # The message of a Liquid error names variables and positions, never values.
        raise InvalidMessage(field, str(error).splitlines()[0]) from None
    except SLIPS as error:
        raise InvalidMessage(field, f"cannot be filled in: {type(error).__name__}") from None
