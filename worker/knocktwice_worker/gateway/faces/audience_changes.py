"""Changes of an audience that a face asks for, with the complaints in the words of the other product."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.gateway import wording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from knocktwice.drafts import Draft
    from knocktwice_worker.notation.phone_numbers import Rules

_PLACE = re.compile(r"^changes\[\d+\]\.?")


def draft(listed: Sequence[Mapping[str, Any]], numbers: Rules, words: Mapping[str, str]) -> Draft:
    """Return the message about these changes, of now.

    Args:
        numbers: which phone numbers are taken.
        words: what the contract calls a field of a change → what the product calls it.

    Raises:
        InvalidMessage: fields are wrong; all are named as the product calls them.
    """

    def own(field: str) -> str:
        first, dot, rest = _PLACE.sub("", field).partition(".")
        return words.get(first, first) + dot + rest or "body"

    try:
        return wording.changes({"changes": list(listed)}, numbers, datetime.now(UTC))
    except InvalidMessage as error:
        raise error.renamed(own) from None
