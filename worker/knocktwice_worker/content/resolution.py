"""From a template's name, or from texts by language, to contents: decided once, when a batch is accepted, and stored.

A later change of the template or of a person's language changes nothing that is under way.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, text

from knocktwice_shared import subjects
from knocktwice_shared.channels import MEDIA, SMS
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import AT_ONCE, Batch, Category, Push, Recipient, Step, one_text
from knocktwice_shared.messages.languages import place_of
from knocktwice_shared.messages.values import PERSON
from knocktwice_worker.content import locales as languages
from knocktwice_worker.content import personal, template_store
from knocktwice_worker.content import rendering as content
from knocktwice_worker.content.templates import Definition, InvalidDefinition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Why nothing of a template can be sent whose steps are left out.
NOTHING = "{} has no push, and the message leaves out its steps"

# The locale that the application has set for the person has priority over the locale of the person's last used device.
# A device that the application named itself comes before the last used one.
_LOCALES = text("""
SELECT
  asked.user_id,
  asked.registration,
  coalesce(u.locale, asked.locale, d.locale) AS locale
FROM (
  SELECT unnest(CAST(:users AS text[])) AS user_id, NULL AS registration, NULL AS locale
  UNION ALL
  SELECT user_id, registration, locale FROM devices WHERE registration = ANY(:registrations)
) asked
JOIN users u ON u.id = asked.user_id
LEFT JOIN LATERAL (
  SELECT locale FROM devices WHERE user_id = u.id AND locale IS NOT NULL ORDER BY last_seen_at DESC LIMIT 1
) d ON true
""")


@dataclass(frozen=True, slots=True)
class Resolution:
    """A batch whose content is known.

    Attributes:
        batch: with its plan and category decided.
        content: as ``batches.content`` keeps it.
        locales: notification id → which part of the content is its own; empty where one content is for all.
        problems: notification id → why there is none for it.
        person: what the texts use of a person; ``None``: nothing.
    """

    batch: Batch
    content: Mapping[str, Any]
    locales: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    person: personal.Used | None = None

    def own(self, id_: str) -> tuple[Push | None, str | None]:
        """Return push and SMS text of a notification."""
        return content.of(self.content, self.locales.get(id_))

    def name(self, id_: str) -> str:
        """Return how an error about a notification's content begins: with the template's name, if there is one."""
        of_template = f"template {self.batch.template} " if self.batch.template else ""
        return f"{of_template}({self.locales[id_]}): " if id_ in self.locales else ""


@dataclass(frozen=True, slots=True)
class Spoken:
    """The texts of a batch in each language.

    Attributes:
        contents: canonical locale → push and SMS text; ``None`` → those that are for everybody.
        plan: what follows, its texts by canonical locale.
        default: the locale of people of any other or an unknown language; ``None`` refuses them.
    """

    contents: Mapping[str | None, tuple[Push | None, str | None]]
    plan: tuple[Step, ...]
    default: str | None = None

    @property
    def locales(self) -> frozenset[str]:
        """The languages; none where one content is for everybody."""
        return frozenset(locale for locale in self.contents if locale is not None)

    @property
    def person(self) -> personal.Used | None:
        """The values of a person that its texts use; ``None``: none."""
        return personal.used(personal.texts_of(self.contents.values(), self.plan))

    def fields(self, locale: str | None) -> list[tuple[str, str]]:
        """Return where the texts of a language stand that are filled in, and the texts."""
        push, sms_text = self.contents[locale]
        found = [(f"content.push.{place}", text) for place, text in (push.texts() if push else ())]
        if sms_text is not None:
            found.append(("content.sms.text", sms_text))
        for place, step in enumerate(self.plan):
            own = step if locale is None else step.spoken(locale)
            found += [(f"plan[{place}].{name}", text) for name, text in own.filled()]
        return found

    def choose(self, wanted: str | None) -> str | None:
        """Return the locale whose content a person gets, or ``None`` if no locale has content for the person."""
        return languages.choose(wanted, self.locales, self.default)


def spoken(batch: Batch, definition: Definition | None) -> Spoken:
    """Return what a batch says in each language.

    Args:
        definition: the batch's template; ``None`` if it has its texts itself.

    Raises:
        InvalidMessage: one of its languages is none.
    """
    if definition is not None:
        contents: dict[str | None, tuple[Push | None, str | None]] = {
            locale: said(definition, locale, sms_only=batch.sms_only) for locale in definition.contents
        }
        return Spoken(contents, plan(batch, definition), definition.default_locale)
    if not batch.locales:
        text = None if batch.sms_text is None else one_text(batch.sms_text)
        return Spoken({None: (batch.push, text)}, tuple(batch.plan or ()))
    tags = _canonical(batch)
    return Spoken(
        {tags[tag]: batch.spoken(tag) for tag in batch.locales},
        tuple(step.respelled(tags) for step in batch.plan or ()),
        batch.default_locale and tags[batch.default_locale],
    )


def _canonical(batch: Batch) -> dict[str, str]:
    """Return the locales of a batch in their one spelling, by the batch's own."""
    tags: dict[str, str] = {}
    for tag in batch.locales:
        try:
            locale = languages.canonical(tag)
        except ValueError as error:
            raise InvalidMessage(place_of(batch, tag), str(error)) from None
        if locale in tags.values():
            raise InvalidMessage(place_of(batch, tag), f"is the same language as another; it is {locale}")
        tags[tag] = locale
    return tags


def resolve(engine: Engine, batches: Sequence[Batch]) -> list[Resolution]:
    """Look up templates, and choose each recipient's language.

    Costs two queries, or none where no batch has a template or texts by language, and one more where texts use a
    person.
    """
    names = sorted({batch.template for batch in batches if batch.template is not None})
    found: dict[str, template_store.Stored | InvalidDefinition] = {}
    known: dict[str, str] = {}
    if names or any(batch.locales for batch in batches):
        with engine.begin() as conn:
            found = template_store.find(conn, names) if names else {}
            known = _known_locales(conn, [batch for batch in batches if batch.template in found or batch.locales])
    return _with_people(engine, [_resolve(batch, found, known) for batch in batches])


def _with_people(engine: Engine, resolved: list[Resolution]) -> list[Resolution]:
    """Add what the texts use of a person to each recipient's values. One query, or none where no text uses anything."""
    wanted = {place: one.person for place, one in enumerate(resolved) if one.person is not None}
    if not wanted:
        return resolved
    asked = [r for place in wanted for r in resolved[place].batch.recipients if PERSON not in r.values]
    with engine.begin() as conn:
        known = personal.find(conn, asked, personal.union(wanted.values()))
    for place, used in wanted.items():
        batch = resolved[place].batch
        recipients = tuple(
            replace(r, params={**r.values, PERSON: used.of(known[str(r.id)])}) if str(r.id) in known else r
            for r in batch.recipients
        )
        resolved[place] = replace(resolved[place], batch=replace(batch, recipients=recipients))
    return resolved


def _resolve(
    batch: Batch, found: Mapping[str, template_store.Stored | InvalidDefinition], known: Mapping[str, str]
) -> Resolution:
    if batch.template is None:
        return _inline(batch, known)
    match found.get(batch.template):
        case None:
            return _unusable(batch, f"template: there is none called {batch.template}")
        case InvalidDefinition() as error:
            # Stored by another release, with other rules.
            return _unusable(batch, f"template: {error}")
        case template:
            if batch.sms_only and template.definition.fallback == "never":
                return _unusable(batch, f"template: the fallback of {batch.template} is never, which forbids an SMS")
            if not template.definition.pushes and batch.plan == () and not batch.sms_only:
                return _unusable(batch, f"template: {NOTHING.format(batch.template)}")
            return _resolved(batch, template.definition, template.version, known)


def _inline(batch: Batch, known: Mapping[str, str]) -> Resolution:
    """Return the content of a batch that has its texts itself."""
    try:
        all_said = spoken(batch, None)
    except InvalidMessage as error:
        return _unusable(batch, str(error))
    if not batch.locales:
        return Resolution(batch, content.stored(*all_said.contents[None]), person=all_said.person)
    locales, problems = _chosen(batch, all_said, known)
    decided = replace(batch, plan=all_said.plan)
    return Resolution(decided, _by_locale(all_said, locales), locales, problems, all_said.person)


def _resolved(batch: Batch, definition: Definition, version: int, known: Mapping[str, str]) -> Resolution:
    all_said = spoken(batch, definition)
    locales, problems = _chosen(batch, all_said, known)
    decided = replace(
        batch,
        plan=all_said.plan,
        sms_only=batch.sms_only or not definition.pushes,
        category=batch.category or definition.category,
        valid_for=batch.valid_for or definition.valid_for,
    )
    chosen: dict[str, Any] = {"template": batch.template, "version": version, **_by_locale(all_said, locales)}
    if definition.sender is not None:
        chosen["sender"] = definition.sender
    return Resolution(decided, chosen, locales, problems, all_said.person)


def _by_locale(all_said: Spoken, locales: Mapping[str, str]) -> dict[str, Any]:
    """Return the contents that somebody gets, as ``batches.content`` keeps them."""
    return {"locales": {locale: content.stored(*all_said.contents[locale]) for locale in sorted(set(locales.values()))}}


def _chosen(batch: Batch, all_said: Spoken, known: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return each recipient's locale, and why there is none for the others."""
    locales: dict[str, str] = {}
    problems: dict[str, str] = {}
    for recipient in batch.recipients:
        wanted = recipient.locale or next((known[s] for s in _subjects(recipient) if known.get(s)), None)
        if locale := all_said.choose(wanted):
            locales[str(recipient.id)] = locale
        else:
            there = f"template {batch.template} has {', '.join(sorted(all_said.locales))} and no default_locale"
            problems[str(recipient.id)] = f"locale: {f'nothing for {wanted}' if wanted else 'is not known'}; {there}"
    return locales, problems


def said(definition: Definition, locale: str, *, sms_only: bool) -> tuple[Push | None, str | None]:
    """Return push and SMS text that a template has in a language; without the push if only the SMS is wanted."""
    push, sms_text = definition.content(locale)
    if not sms_only:
        return push, sms_text
    # Without any text the SMS says nothing, which is refused when it is filled in.
    return None, sms_text or (one_text(push.body) if push else "")


def plan(batch: Batch, definition: Definition) -> tuple[Step, ...]:
    """Return what follows a template's push, or is there without it."""
    if batch.sms_only:
        return (_only_sms(definition),)
    steps = tuple(definition.plan) if batch.plan is None or definition.fallback == "never" else tuple(batch.plan)
    if definition.pushes or not steps:
        return steps
    # Nothing comes before the first one that it could wait for.
    return (replace(steps[0], when=None, after=timedelta()), *steps[1:])


def _only_sms(definition: Definition) -> Step:
    """Return the step that says what the content says, at once, with the media of the template's step that says it."""
    usual = next((step for step in definition.plan if step.channel == SMS and step.text is None), AT_ONCE)
    return replace(AT_ONCE, content={MEDIA: usual.content[MEDIA]}) if MEDIA in usual.content else AT_ONCE


def _unusable(batch: Batch, problem: str) -> Resolution:
    decided = replace(batch, plan=batch.plan or (), category=batch.category or Category.TRANSACTIONAL)
    kept = {"template": batch.template} if batch.template is not None else {}
    return Resolution(decided, {**kept, "locales": {}}, problems={str(r.id): problem for r in batch.recipients})


def _subjects(recipient: Recipient) -> list[str]:
    """Return who a recipient may be, so that the first one whose language is known decides."""
    if recipient.user is not None:
        return [subjects.user(recipient.user)]
    return list(map(subjects.device, recipient.registrations))


def _known_locales(conn: Connection, batches: Sequence[Batch]) -> dict[str, str]:
    """Return the locales of people and of registered devices, by their subjects."""
    asked = [r for batch in batches for r in batch.recipients if not r.locale]
    users = sorted({r.user for r in asked if r.user})
    registrations = sorted({registration for r in asked for registration in r.registrations})
    if not users and not registrations:
        return {}
    found = conn.execute(_LOCALES, {"users": users, "registrations": registrations}).all()
    return {
        subjects.device(row.registration) if row.registration else subjects.user(row.user_id): row.locale
        for row in found
    }
