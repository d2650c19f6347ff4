"""The preview of a template: filled in for one person, step by step, with the cost of its messages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import PUSH_BYTES_LIMIT
from knocktwice_shared.messages.values import PERSON
from knocktwice_worker.content import personal, plans
from knocktwice_worker.content import sms_parts as parts
from knocktwice_worker.content.pushes import PushForm
from knocktwice_worker.content.rendering import render_sms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Push, Step
    from knocktwice_worker.content.links.short_links import Tracker
    from knocktwice_worker.content.templates import Definition
    from knocktwice_worker.content.wording import Wording


@dataclass(frozen=True, slots=True)
class StepPreview:
    """A step of the template's plan.

    Attributes:
        step: its number, from 1; the push is 0.
        channel: its channel.
        when, after_s: its condition, and how long the step before it gets.
        sender: who sends it; ``None`` is the setting's.
        content: what it says, field by field, as its channel's wording shows it.
    """

    step: int
    channel: str
    when: str | None
    after_s: float
    sender: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, in one level."""
        told = asdict(self)
        content = told.pop("content")
        return {name: v for name, v in (told | content).items() if v is not None}


@dataclass(frozen=True, slots=True)
class Preview:
    """A template filled in.

    Attributes:
        locale: whose contents were chosen.
        push: as the phone gets it; ``None``: there is none.
        push_bytes: of the :data:`PUSH_BYTES_LIMIT` that a push may have.
        sms: the text of the usual SMS, which a step without words of its own says.
        encoding, sms_parts: what it is written in, and how many parts are paid for.
        steps: what follows the push; nothing if whoever sends it says what does.
        fallback: whether anything may follow.
    """

    locale: str
    push: Push | None
    push_bytes: int
    sms: str
    encoding: parts.Encoding
    sms_parts: int
    steps: tuple[StepPreview, ...]
    fallback: bool

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        told = asdict(self) | {"push": self.push and self.push.fields(), "push_bytes_limit": PUSH_BYTES_LIMIT}
        told["steps"] = [step.as_json() for step in self.steps]
        return told


def preview(
    definition: Definition,
    params: Mapping[str, Any],
    locale: str | None,
    links: Tracker | None = None,
    *,
    wording_of: Callable[[str], Wording],
) -> Preview:
    """Fill a template in.

    Args:
        params: values by name; ``1`` is that of ``{1}``.
        locale: the recipient's.
        links: makes those of the steps.
        wording_of: returns the wording of a channel.

    Raises:
        InvalidMessage: a parameter is missing, nothing is in that language, or the result is too long.
    """
    chosen = definition.choose(locale)
    if chosen is None:
        wanted = f"there is nothing for {locale}" if locale else "is missing, as there is no default_locale"
        raise InvalidMessage("locale", f"{wanted}; there are contents for {', '.join(definition.contents)}")
    push, sms_text = definition.content(chosen)
    filled = None if push is None else PushForm(push).fill(params)

    def said(place: int, step: Step) -> StepPreview:
        path = f"fallback.{place}" if isinstance(definition.fallback, list) else "fallback"
        wording = wording_of(step.channel)
        words = plans.words(plans.written(step), push, sms_text, chosen, params, path, links, wording=wording)
        return StepPreview(
            place + 1,
            step.channel,
            when=step.when and str(step.when),
            after_s=step.after.total_seconds(),
            sender=words.sender or (definition.sender if step.speaks else None),
            content=wording.shown(words.text),
        )

    steps = tuple(said(place, step) for place, step in enumerate(definition.plan))
    # Where no step says it, whoever sends the template may still add one that does; or nobody, and then it may be too
    # long.
    sms = "" if definition.fallback == "never" else _usual_sms(push, sms_text, params, links)
    return Preview(
        locale=chosen,
        push=filled.whole() if filled else None,
        push_bytes=filled.size if filled else 0,
        sms=sms,
        encoding=parts.encoding(sms),
        sms_parts=parts.count(sms),
        steps=steps,
        fallback=definition.fallback != "never",
    )


def for_user(
    conn: Connection, definition: Definition, user: str, params: Mapping[str, Any], locale: str | None
) -> tuple[dict[str, Any], str | None]:
    """Return the values and the locale for a preview for a user.

    Args:
        user: the application's id of a person.
        params: the other values; a ``user`` among them counts instead.
        locale: counts instead of the person's own.
    """
    contents = [definition.content(each) for each in definition.contents]
    used = personal.used(personal.texts_of(contents, definition.plan)) or personal.Used(frozenset(), frozenset())
    person = personal.of_user(conn, user, used)
    return {PERSON: used.of(person), **params}, locale or person.get("locale")


def _usual_sms(push: Push | None, sms_text: str | None, params: Mapping[str, Any], links: Tracker | None) -> str:
    """Return the text of the usual SMS; nothing where it cannot be written, which its step would have said."""
    try:
        return render_sms(push, sms_text, params, links=links)
    except InvalidMessage:
        return ""
