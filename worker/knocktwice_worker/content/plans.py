"""Steps: how a batch keeps those that are more than the usual SMS, and what each of them says to one person."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Channel, Step
from knocktwice_worker.content import rendering

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from knocktwice_shared.messages import Push
    from knocktwice_worker.content.links.short_links import Tracker

#: Twilio's limit for the variables of a content template, in characters of their JSON.
VARIABLES_LIMIT = 1_600


class Words(NamedTuple):
    """What a step says to one person.

    Attributes:
        text: an SMS's text; a WhatsApp message's content template with its variables, as :func:`template_of` reads them.
        sender: ``None`` is the setting's.
    """

    text: str
    sender: str | None = None


def stored_plan(plan: Sequence[Step]) -> str | None:
    """Return a plan as ``batches.plan`` keeps it; ``None`` if it is at most one SMS that says what the content says."""
    if len(plan) < 2 and all(step.plain for step in plan):
        return None
    return json.dumps([written(step) for step in plan])


def words(
    step: Mapping[str, Any] | None,
    push: Push | None,
    sms_text: str | None,
    locale: str | None,
    params: Mapping[str, Any],
    path: str = "plan",
    links: Tracker | None = None,
) -> Words:
    """Fill in what a step says.

    Args:
        step: the step as ``batches.plan`` keeps it; ``None`` for the usual SMS.
        push, sms_text: the recipient's content.
        locale: which of a template's contents the recipient has.
        params: the recipient's values.
        path: what an error calls the step.
        links: makes its short links.

    Raises:
        InvalidMessage: a parameter is missing, a text is broken, or the result is too long; the field is named.
    """
    if step is None:
        return Words(rendering.render_sms(push, sms_text, params, links=links))
    if step["channel"] == Channel.SMS:
        own = _own(step.get("text"), locale)
        if own is None:
            return Words(rendering.render_sms(push, sms_text, params, links=links), step.get("sender"))
        return Words(rendering.render_sms(None, own, params, f"{path}.text", links), step.get("sender"))
    given = (step.get("variables") or {}).items()
    variables = {name: rendering.fill_in(f"{path}.variables.{name}", value, params, links) for name, value in given}
    filled = json.dumps([_own(step["content_sid"], locale), variables], ensure_ascii=False, separators=(",", ":"))
    if len(filled) > VARIABLES_LIMIT:
        raise InvalidMessage(f"{path}.variables", f"are over {VARIABLES_LIMIT} characters when filled in")
    return Words(filled, step.get("sender"))


def check(
    plan: Sequence[Step],
    push: Push | None,
    sms_text: str | None,
    locale: str | None,
    params: Mapping[str, Any],
    links: Callable[[int], Tracker | None] = lambda _: None,
) -> None:
    """Raise like :func:`words` if a step cannot be filled in for somebody; the usual SMS is checked with the push.

    Args:
        links: returns what makes the links of a step, by its number.
    """
    for place, step in enumerate(plan):
        if not step.plain or push is None:
            words(written(step), push, sms_text, locale, params, f"plan[{place}]", links(place + 1))


def check_delays(plan: Sequence[Step], *, least_s: float, most_s: float) -> None:
    """Compare the delays with what operators allow.

    Args:
        least_s: the shortest delay, in seconds.
        most_s: the longest.

    Raises:
        InvalidMessage: one is shorter or longer; its field is named.
    """
    for place, step in enumerate(plan):
        if step.when and not least_s <= step.after.total_seconds() <= most_s:
            raise InvalidMessage(
                f"plan[{place}].after_s",
                f"must be between KNOCKTWICE_MIN_AFTER_S ({least_s:.0f}) "
                f"and KNOCKTWICE_MAX_AFTER_S ({most_s:.0f}) here",
            )


def template_of(text: str) -> tuple[str, dict[str, str]]:
    """Return content template and variables from what :func:`words` wrote."""
    sid, variables = json.loads(text)
    return sid, variables


def written(step: Step) -> dict[str, Any]:
    """Return a step as ``batches.plan`` keeps it."""
    fields = {
        "channel": str(step.channel),
        "when": step.when and str(step.when),
        "after_s": step.after.total_seconds(),
        "text": step.text,
        "sender": step.sender,
        "content_sid": step.content_sid,
        "variables": dict(step.variables) or None,
    }
    return {name: dict(v) if isinstance(v, dict) else v for name, v in fields.items() if v is not None}


def _own(value: str | Mapping[str, str] | None, locale: str | None) -> str | None:
    """Return what is for everybody, or for this locale."""
    return value if value is None or isinstance(value, str) else value[str(locale)]
