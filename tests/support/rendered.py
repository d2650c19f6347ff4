"""A push and its SMS, filled in for one person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knocktwice_shared.messages import one_text
from knocktwice_worker.content.liquid import tracks
from knocktwice_worker.content.pushes import PushForm
from knocktwice_worker.content.rendering import render_sms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_shared.messages import Push
    from knocktwice_worker.content.links.short_links import Tracker


@dataclass(frozen=True)
class Texts:
    """What one person reads."""

    title: str
    body: str
    sms: str


def render(push: Push, sms_text: str | None, params: Mapping[str, Any], links: Tracker | None = None) -> Texts:
    """Fill in a push and the SMS behind it."""
    filled = PushForm(push).fill(params)
    same = sms_text is None and not tracks(one_text(push.body))
    return Texts(filled.title, filled.body, filled.body if same else render_sms(push, sms_text, params, links=links))
