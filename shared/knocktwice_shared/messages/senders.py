"""Senders of messages: a number, a short code, a name, or a provider's own id of a service."""

from __future__ import annotations

import re

from knocktwice_shared.messages import phone_text

#: The id of a Messaging Service.
_SERVICE = re.compile(r"MG[0-9a-zA-Z]{32}")
_SHORT_CODE = re.compile(r"[0-9]{3,8}")
_NUMBER_LIKE = re.compile(r"[\s+()./0-9\-\u2010-\u2015]+")
_NAME = re.compile(r"[A-Za-z0-9 +&_-]+")
#: What mobile networks take of a name.
NAME_LIMIT = 11
#: An id that a provider gave, like a UUID, is longer than a name and has digits in it.
_ID = re.compile(r"(?=[^0-9]*[0-9])[A-Za-z0-9_:.-]{16,64}")


def sender(value: str, *, ids: bool = False) -> str:
    """Return a sender as providers take it: a number comes out in E.164.

    Args:
        ids: take a provider's own ids, too.

    Raises:
        ValueError: no network would carry it. The message says what to write.
    """
    text = value.strip()
    if _SERVICE.fullmatch(text) or _SHORT_CODE.fullmatch(text):
        return text
    if _NUMBER_LIKE.fullmatch(text) and any(map(str.isdigit, text)):
        return _number(text)
    if ids and _ID.fullmatch(text):
        return text
    if not any(map(str.isalpha, text)):
        raise ValueError(f"is no sender: {_WANTED}")
    if strange := re.sub(_NAME, "", text):
        raise ValueError(f"is a name with the character {strange[0]!r}, which networks do not take; {_WANTED}")
    if len(text) > NAME_LIMIT:
        raise ValueError(f"is a name of {len(text)} characters, and networks take {NAME_LIMIT}; shorten it")
    return text


_WANTED = (
    "write a number in E.164, like +16505550100, a short code, a name of at most "
    f"{NAME_LIMIT} letters A to Z, digits and blanks with a letter in it, or a Messaging Service (MG…)"
)


def _number(text: str) -> str:
    try:
        number = phone_text.read(text).international
    except ValueError as error:
        raise ValueError(f"{error}; {_WANTED}") from None
    if number is None or not phone_text.E164.fullmatch(number):
        raise ValueError("is a number without its country code: write + and the country code before it")
    return number
