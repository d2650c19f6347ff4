"""The content of a blast in each language, with its later steps; checked before any notification is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import SMS_CHARS_LIMIT, Category, blast_batch, parse_batch
from knocktwice_shared.messages.values import PERSON
from knocktwice_worker.channels.registry import CHANNELS, wording_of
from knocktwice_worker.content import locales, personal, plans, resolution, template_store
from knocktwice_worker.content.pushes import PushForm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Batch, Blast, Push, Step
    from knocktwice_worker.content.links.short_links import Tracker
    from knocktwice_worker.content.templates import Definition

#: A text with as many parts as any can have.
_LONGEST_TEXT = "\u0436" * SMS_CHARS_LIMIT
#: A notification that is none.
_NOBODY = str(UUID(int=0))


@dataclass(frozen=True, slots=True)
class BlastContent:
    """The content for all people of a blast.

    Attributes:
        plan: what follows the push, or what there is without one.
        category: of the notifications.
        contents: language → push and SMS, as Liquid; what is the same for everybody is there once, for ``""``.
        params: values by name.
        default: the language of people of any other or an unknown one; ``None``: there is nothing for them.
    """

    plan: tuple[Step, ...]
    category: Category
    contents: Mapping[str, tuple[Push | None, str | None]]
    params: Mapping[str, Any]
    default: str | None = None

    @property
    def person(self) -> personal.Used | None:
        """The values of each person that the texts use; ``None``: none, or the blast says it for all."""
        return None if PERSON in self.params else self._spoken.person

    @property
    def _spoken(self) -> resolution.Spoken:
        return resolution.Spoken(
            {locale or None: one for locale, one in self.contents.items()}, self.plan, self.default
        )

    @property
    def pushes(self) -> bool:
        """Whether it begins with a push."""
        return any(push for push, _ in self.contents.values())

    def choose(self, wanted: str | None) -> str | None:
        """Return the language whose content a person gets; ``None`` if no language has content for the person."""
        return "" if "" in self.contents else locales.choose(wanted, frozenset(self.contents), self.default)

    def check(self, links: Tracker | None) -> None:
        """Fill in everything once: what is missing is missing for all.

        Args:
            links: makes those of all texts.

        Raises:
            InvalidMessage: a parameter is missing, or a text is too long; the field is named.
        """
        person = self.person
        for locale, (push, sms_text) in self.contents.items():
            try:
                if person is not None:
                    personal.check(self._spoken.fields(locale or None), self.params, person)
                    continue
                if push is not None:
                    PushForm(push).fill(self.params)
                broken = plans.problems(
                    self.plan, push, sms_text, locale or None, self.params, lambda _: links, wording_of=wording_of
                )
                if broken:
                    raise broken[min(broken)]
            except InvalidMessage as error:
                if not locale:
                    raise
                raise InvalidMessage(f"({locale}): {error.field}", error.problem) from None

    def shown(self, locale: str, values: Mapping[str, Any], links: Tracker | None) -> dict[str, Any]:
        """Return what one person would get, field by field.

        Args:
            locale: whose content; one of :attr:`contents`.
            values: all values, the person's among them.

        Raises:
            InvalidMessage: a parameter is missing, or a text is too long.
        """
        push, sms_text = self.contents[locale]
        told: dict[str, Any] = {"locale": locale or None, "push": None, "steps": []}
        if push is not None:
            told["push"] = PushForm(push).fill(values).whole().fields()
        for step in self.plan:
            wording = wording_of(step.channel)
            said = plans.words(
                plans.written(step), push, sms_text, locale or None, values, links=links, wording=wording
            )
            when = {"when": step.when and str(step.when), "after_s": step.after.total_seconds()}
            told["steps"].append({"channel": step.channel, **when, **wording.shown(said.text)})
        return told

    def sizes(self, channel: str, links: Tracker | None, person: Mapping[str, Any] | None = None) -> dict[str, int]:
        """Return language → how much one person may get over a channel: parts, or messages where it has no parts.

        Args:
            channel: its name.
            links: makes links as long as real ones.
            person: the longest values of what the texts use of a person.
        """
        own = [step for step in self.plan if step.channel == channel]
        params = {**(person or {}), **self.params}
        return {locale: sum(self._size(step, locale, links, params) for step in own) for locale in self.contents}

    def _size(self, step: Step, locale: str, links: Tracker | None, params: Mapping[str, Any]) -> int:
        entry = CHANNELS[step.channel]
        if entry.parts is None:
            return 1
        content, wording = self.contents[locale], entry.wording
        try:
            said = plans.words(plans.written(step), *content, locale or None, params, links=links, wording=wording)
        except InvalidMessage:
            if self.person is None:
                raise
            # The longest value makes a text that is too long to be sent; somebody may have one that just fits.
            return entry.size(_LONGEST_TEXT)
        return entry.size(said.text)


def of(conn: Connection, blast: Blast) -> BlastContent:
    """Return what a blast says.

    Raises:
        InvalidMessage: there is no such template, or it forbids what the blast wants.
    """
    batch = parse_batch(blast_batch(blast.message, blast.params, _NOBODY, {_NOBODY: "somebody"}))
    if blast.template is None:
        return _of(resolution.spoken(batch, None), batch.category or Category.TRANSACTIONAL, blast)
    found = template_store.get(conn, blast.template)
    if found is None:
        problem = f"there is none called {blast.template}; 'knocktwice template list' lists them"
        raise InvalidMessage("template", problem)
    return _of_template(batch, blast, found.definition)


def values(params: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """Return params by name; those of a list are named ``1``, ``2``, …"""
    if isinstance(params, list | tuple):
        return {str(place): value for place, value in enumerate(params, 1)}
    return dict(params)


def _of_template(batch: Batch, blast: Blast, definition: Definition) -> BlastContent:
    if batch.sms_only and definition.fallback == "never":
        raise InvalidMessage("template", f"the fallback of {blast.template} is never, which forbids an SMS")
    if not definition.pushes and batch.plan == () and not batch.sms_only:
        raise InvalidMessage("template", resolution.NOTHING.format(blast.template))
    return _of(resolution.spoken(batch, definition), batch.category or definition.category, blast)


def _of(said: resolution.Spoken, category: Category, blast: Blast) -> BlastContent:
    contents = {locale or "": one for locale, one in said.contents.items()}
    return BlastContent(said.plan, category, contents, values(blast.params), said.default)
