"""The braces of placeholders: the one mistake in a template that is seen without knowing the language."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from knocktwice_shared.messages.placeholders import sms_texts

if TYPE_CHECKING:
    from knocktwice_shared.messages.notifications import Batch

_CLOSING = {"{{": "}}", "{%": "%}"}
_OPENING = re.compile(r"\{\{|\{%")


def unclosed(text: str) -> str | None:
    """Return which braces of a text are never closed, as a sentence; ``None``: all are."""
    place = 0
    while opening := _OPENING.search(text, place):
        end = text.find(_CLOSING[opening[0]], opening.end())
        if end < 0:
            return f"'{opening[0]}' is never closed by '{_CLOSING[opening[0]]}'"
        place = end + 2
    return None


def templates(batch: Batch) -> list[tuple[str, str]]:
    """Return the texts with placeholders that a batch brings itself, with their fields."""
    found = [(f"content.push.{place}", text) for place, text in (batch.push.texts() if batch.push else ())]
    found += sms_texts(batch.sms_text).items()
    found += [(f"plan[{n}].{place}", text) for n, step in enumerate(batch.plan or ()) for place, text in step.filled()]
    return [(field, text) for field, text in found if "{{" in text or "{%" in text]
