"""Texts: ``{{ name }}`` placeholders filled from a recipient's params, strictly and within bounds."""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING, Any

from liquid.exceptions import LiquidError

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import SMS_CHARS_LIMIT, Push, one_text
from knocktwice_worker.content import media
from knocktwice_worker.content.liquid import SLIPS, BrokenTemplate, fill

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.content.links.short_links import Tracker

#: The path of an SMS's text, as errors name it.
_SMS = "content.sms.text"
#: Why a text that fills in to nothing is refused.
SAYS_NOTHING = "says nothing when filled in; nothing empty is sent"


def render_sms(
    push: Push | None,
    sms_text: str | None,
    params: Mapping[str, Any],
    field: str = _SMS,
    links: Tracker | None = None,
) -> str:
    """Fill in an SMS.

    Args:
        push: the shared push content; ``None`` where an SMS is all there is.
        sms_text: the SMS's own text; ``None`` texts the push body.
        params: this recipient's values.
        field: what an error calls the text.
        links: makes those of the SMS. A push has none: its app reports the click, and a tap opens the ``link`` it came
            with.

    Raises:
        InvalidMessage: a parameter is missing, a template is broken, or the result is too long; the field is named.
    """
    if sms_text is None:
        return check_sms(fill_in("content.push.body", one_text(push.body) if push else "", params, links))
    return check_sms(fill_in(field, sms_text, params, links), field)


def check_sms(text: str, field: str = _SMS) -> str:
    """Return what an SMS says.

    Raises:
        InvalidMessage: it is nothing, or too long.
    """
    if not text.strip():
        raise InvalidMessage(field, SAYS_NOTHING)
    if len(text) > SMS_CHARS_LIMIT:
        raise InvalidMessage(field, f"is {len(text)} characters when filled in; {SMS_CHARS_LIMIT} at most")
    return text


def stored(push: Push | None, sms_text: str | None) -> dict[str, Any]:
    """Return a content as ``batches.content`` keeps it. By language it is ``{"locales": {locale: such a content}}``."""
    return {"push": push and push.fields(), "sms": sms_text}


def of(content: Mapping[str, Any], locale: str | None) -> tuple[Push | None, str | None]:
    """Return push and SMS text from ``batches.content``.

    Args:
        content: the batch's.
        locale: the notification's; ``None`` where one content is for all.
    """
    own = content if locale is None else content["locales"][locale]
    return own["push"] and Push(**own["push"]), own["sms"]


def fingerprint(text: str) -> bytes:
    """Return what makes two texts the same content, media included: Unicode form, case and white space do not count."""
    said, addresses = media.parted(text)
    # Addresses are compared as they are: two pictures may differ in a capital letter.
    normal = "\0".join([" ".join(unicodedata.normalize("NFKC", said).casefold().split()), *addresses])
    return hashlib.blake2b(normal.encode(), digest_size=16).digest()


def fill_in(
    field: str, text: str, params: Mapping[str, Any], links: Tracker | None = None, *, address: bool = False
) -> str:
    """Fill in one text, which an error calls ``field``; ``address``: it is one. Raises like :func:`render_sms`."""
    try:
        return fill(text, params, links, address=address)
    except BrokenTemplate as error:
        raise InvalidMessage(field, str(error)) from None
    except LiquidError as error:
        # The message of a Liquid error names variables and positions, never values.
        raise InvalidMessage(field, str(error).splitlines()[0]) from None
    except SLIPS as error:
        raise InvalidMessage(field, f"cannot be filled in: {type(error).__name__}") from None
