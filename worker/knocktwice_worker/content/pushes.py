"""Pushes: every text filled in for one person, checked, and measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import PUSH_BYTES_LIMIT, Push, address_problem, one_text, push_size, whole_badge
from knocktwice_shared.records import record
from knocktwice_worker.content import addresses, rendering
from knocktwice_worker.content.liquid import is_template

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How errors call the push's content.
_PATH = "content.push"
#: Fields that are addresses.
_ADDRESSES = ("link", "image")


@record
class FilledPush:
    """A push as one person gets it.

    Attributes:
        title, body: its texts.
        push: everything else; its own title and body are not filled in.
        size: in bytes, of the :data:`PUSH_BYTES_LIMIT` that a push may have.
    """

    title: str
    body: str
    push: Push
    size: int

    def whole(self) -> Push:
        """Return the push with its title and body filled in, too."""
        return replace(self.push, title=self.title, body=self.body)


class PushForm:
    """A push whose texts are to be filled in for one person after the other.

    Placeholders beside title and body are rare, so it is looked once for them and not for each person.
    """

    def __init__(self, push: Push) -> None:
        self._push, self._title, self._body = push, one_text(push.title), one_text(push.body)
        self._varies = any(is_template(text) for place, text in push.texts() if place not in ("title", "body"))
        self._common_size = 0 if self._varies else _size_but_for_texts(push)

    def fill(self, params: Mapping[str, Any]) -> FilledPush:
        """Return the push for a person.

        Raises:
            InvalidMessage: a parameter is missing, a template is broken, an address is none when it is filled in, there
                is nothing to show, or it is too big; the field is named.
        """
        title = rendering.fill_in(f"{_PATH}.title", self._title, params)
        body = rendering.fill_in(f"{_PATH}.body", self._body, params)
        push = _filled(self._push, params) if self._varies else self._push
        if not (title.strip() or body.strip()):
            raise InvalidMessage(_PATH, rendering.SAYS_NOTHING)
        common = _size_but_for_texts(push) if self._varies else self._common_size
        size = common + len(title.encode()) + len(body.encode())
        if size > PUSH_BYTES_LIMIT:
            problem = f"is {size} bytes when filled in; {PUSH_BYTES_LIMIT} at most (FCM's limit is 4 KB)"
            raise InvalidMessage(_PATH, problem)
        return FilledPush(title, body, push, size)


def _filled(push: Push, params: Mapping[str, Any]) -> Push:
    """Fill in everything but title and body."""

    def fill(place: str, text: str) -> str:
        if place in ("title", "body") or not is_template(text):
            return text
        address = place in _ADDRESSES or addresses.is_address(text)
        return rendering.fill_in(f"{_PATH}.{place}", text, params, address=address)

    filled = push.with_texts(fill)
    for name in _ADDRESSES:
        address = getattr(filled, name)
        # An address that fills in to nothing is left out, as one that is not given.
        if address and address != getattr(push, name) and (problem := address_problem(name, address)):
            raise InvalidMessage(f"{_PATH}.{name}", f"{problem}, when filled in")
    if isinstance(filled.badge, str):
        filled = replace(filled, badge=_number(filled.badge))
    return filled


def _number(badge: str) -> int | None:
    text = badge.strip()
    return whole_badge(int(text) if text.isascii() and text.isdigit() else text, f"{_PATH}.badge") if text else None


def _size_but_for_texts(push: Push) -> int:
    return push_size(push.fields() | {"title": "", "body": ""})
