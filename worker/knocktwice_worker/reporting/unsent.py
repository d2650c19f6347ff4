"""The messages that a test would have sent, as the providers would have got them, for the person who made the test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience.profile import ending
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.content import rendering
from knocktwice_worker.content.pushes import PushForm
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import Row


@dataclass(frozen=True, slots=True)
class Unsent:
    """A message that a provider would have got.

    Attributes:
        step: 0 is the push.
        channel: how it would have gone.
        to: the number, masked, or the ending of the registration.
        sender: from whom; ``None``: the channel's own, or a push.
        content: what it says, field by field; empty once it was deleted.
        parts: the SMS parts that it would have been paid by; ``None``: it has none.
        price: what these cost by the price table; ``None``: no price is known, or it is free.
    """

    step: int
    channel: str
    to: str
    sender: str | None
    content: Mapping[str, str]
    parts: int | None
    price: str | None


def unsent(found: Row[Any], rows: Mapping[str, Sequence[Row[Any]]]) -> tuple[Unsent, ...]:
    """Return what would have gone out of a test, step by step.

    Args:
        found: the notification with its batch's content.
        rows: table → its rows of the notification.
    """
    return (*_pushes(found, rows["attempts"]), *_messages(rows["deliveries"], rows["decisions"]))


def _pushes(found: Row[Any], attempts: Sequence[Row[Any]]) -> Iterator[Unsent]:
    taken = [one for one in attempts if one.provider_id == STAND_IN]
    content = _push(found) if taken else {}
    for one in taken:
        yield Unsent(0, "push", ending(one.registration), None, content, None, None)


def _push(found: Row[Any]) -> dict[str, str]:
    push, _ = rendering.of(found.content or {}, found.locale)
    if push is None:
        return {}
    try:
        filled = PushForm(push).fill(found.params)
    except InvalidMessage:
        # Its values were deleted since.
        return {}
    return {"title": filled.title, "body": filled.body}


def _messages(deliveries: Sequence[Row[Any]], decisions: Sequence[Row[Any]]) -> Iterator[Unsent]:
    noted = {one.step: one.inputs or {} for one in decisions if one.verdict == Note.WOULD_HAVE_SENT}
    for one in deliveries:
        if one.step == 0 or one.step not in noted:
            continue
        facts = noted[one.step]
        shown = {} if one.text is None or one.channel not in CHANNELS else CHANNELS[one.channel].shown(one.text)
        content = {name: value if isinstance(value, str) else json.dumps(value) for name, value in shown.items()}
        to = str(facts.get("to", ""))
        yield Unsent(one.step, one.channel, to, facts.get("from"), content, facts.get("parts"), facts.get("price"))
