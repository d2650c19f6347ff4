"""From a template's name to contents: decided once, when a batch is accepted, and stored with it.

A later change of the template or of a person's language changes nothing that is under way.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, text

from knocktwice_shared import subjects
from knocktwice_shared.messages import AT_ONCE, Batch, Category, Push, Recipient, Step
from knocktwice_worker.content import rendering as content
from knocktwice_worker.content import template_store
from knocktwice_worker.content.templates import Definition, InvalidDefinition

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The locale that the application has set for the person has priority over the locale of the person's last used device. A
# device that the application named itself comes before the last used one.
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
    """

    batch: Batch
    content: Mapping[str, Any]
    locales: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def own(self, id_: str) -> tuple[Push | None, str | None]:
        """Return push and SMS text of a notification."""
        if self.batch.template is None:
            return self.batch.push, self.batch.sms_text
        return content.of(self.content, self.locales.get(id_))

    def name(self, id_: str) -> str:
        """Return how an error about a notification's content begins: with the template's name, if there is one."""
        return f"template {self.batch.template} ({self.locales[id_]}): " if self.batch.template else ""


def resolve(engine: Engine, batches: Sequence[Batch]) -> list[Resolution]:
    """Look up templates, and choose each recipient's language. Costs two queries, or none without a template."""
    names = sorted({batch.template for batch in batches if batch.template is not None})
    found: dict[str, template_store.Stored | InvalidDefinition] = {}
    known: dict[str, str] = {}
    if names:
        with engine.begin() as conn:
            found = template_store.find(conn, names)
            known = _known_locales(conn, [batch for batch in batches if batch.template in found])
    return [_resolve(batch, found, known) for batch in batches]


def _resolve(
    batch: Batch, found: Mapping[str, template_store.Stored | InvalidDefinition], known: Mapping[str, str]
) -> Resolution:
    if batch.template is None:
        return Resolution(batch, content.stored(batch.push, batch.sms_text))
    match found.get(batch.template):
        case None:
            return _unusable(batch, f"template: there is none called {batch.template}")
        case InvalidDefinition() as error:
            # Stored by another release, with other rules.
            return _unusable(batch, f"template: {error}")
        case template:
            if batch.sms_only and template.definition.fallback == "never":
                return _unusable(batch, f"template: the fallback of {batch.template} is never, which forbids an SMS")
            return _resolved(batch, template.definition, template.version, known)


def _resolved(batch: Batch, definition: Definition, version: int, known: Mapping[str, str]) -> Resolution:
    locales: dict[str, str] = {}
    problems: dict[str, str] = {}
    for recipient in batch.recipients:
        wanted = recipient.locale or next((known[s] for s in _subjects(recipient) if known.get(s)), None)
        if locale := definition.choose(wanted):
            locales[str(recipient.id)] = locale
        else:
            there = f"template {batch.template} has {', '.join(definition.contents)} and no default_locale"
            problems[str(recipient.id)] = f"locale: {f'nothing for {wanted}' if wanted else 'is not known'}; {there}"
    contents = {
        locale: content.stored(*said(definition, locale, sms_only=batch.sms_only))
        for locale in sorted(set(locales.values()))
    }
    decided = replace(
        batch,
        plan=plan(batch, definition),
        category=batch.category or definition.category,
        valid_for=batch.valid_for or definition.valid_for,
    )
    chosen = {"template": batch.template, "version": version, "locales": contents}
    if definition.sender is not None:
        chosen["sender"] = definition.sender
    return Resolution(decided, chosen, locales, problems)


def said(definition: Definition, locale: str, *, sms_only: bool) -> tuple[Push | None, str | None]:
    """Return push and SMS text that a template has in a language; without the push if only the SMS is wanted."""
    push, sms_text = definition.content(locale)
    return (None, push.body if sms_text is None else sms_text) if sms_only else (push, sms_text)


def plan(batch: Batch, definition: Definition) -> tuple[Step, ...]:
    """Return what follows a template's push, or is there without it."""
    if batch.sms_only:
        return (AT_ONCE,)
    return tuple(definition.plan) if batch.plan is None or definition.fallback == "never" else tuple(batch.plan)


def _unusable(batch: Batch, problem: str) -> Resolution:
    decided = replace(batch, plan=batch.plan or (), category=batch.category or Category.TRANSACTIONAL)
    return Resolution(
        decided, {"template": batch.template, "locales": {}}, problems={str(r.id): problem for r in batch.recipients}
    )


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
