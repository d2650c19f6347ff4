"""What somebody would get: a template filled in, and what that costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import PUSH_BYTES_LIMIT
from knocktwice_worker import parts
from knocktwice_worker.content import push_bytes, render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_shared.messages import Push
    from knocktwice_worker.short_links import Tracker
    from knocktwice_worker.templates import Definition


@dataclass(frozen=True, slots=True)
class Preview:
    """A template filled in.

    Attributes:
        locale: whose contents were chosen.
        push: as the phone gets it.
        push_bytes: of the :data:`PUSH_BYTES_LIMIT` that a push may have.
        sms: its text.
        encoding, sms_parts: what it is written in, and how many parts are paid for.
    """

    locale: str
    push: Push
    push_bytes: int
    sms: str
    encoding: parts.Encoding
    sms_parts: int

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self) | {"push_bytes_limit": PUSH_BYTES_LIMIT}


def preview(
    definition: Definition, params: Mapping[str, Any], locale: str | None, links: Tracker | None = None
) -> Preview:
    """Fill a template in.

    Args:
        params: values by name; ``1`` is that of ``{1}``.
        locale: the recipient's.
        links: makes those of the SMS.

    Raises:
        InvalidMessage: a parameter is missing, nothing is in that language, or the result is too long.
    """
    chosen = definition.choose(locale)
    if chosen is None:
        wanted = f"there is nothing for {locale}" if locale else "is missing, as there is no default_locale"
        raise InvalidMessage("locale", f"{wanted}; there are contents for {', '.join(definition.contents)}")
    push, sms_text = definition.content(chosen)
    texts = render(push, sms_text, params, links)
    filled = type(push)(texts.title, texts.body, push.data, push.link, push.image)
    return Preview(
        locale=chosen,
        push=filled,
        push_bytes=push_bytes(push, texts),
        sms=texts.sms,
        encoding=parts.encoding(texts.sms),
        sms_parts=parts.count(texts.sms),
    )
