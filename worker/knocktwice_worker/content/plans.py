"""Steps: how a batch keeps those that are more than the usual SMS, and what each of them says to one person."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from knocktwice_shared.channels.step_content import TEXT
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import one_text
from knocktwice_worker.content import rendering
from knocktwice_worker.content.liquid import tracks
from knocktwice_worker.content.wording import PLAIN_TEXT, Filling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from knocktwice_shared.messages import Push, Step
    from knocktwice_worker.content.links.short_links import Tracker
    from knocktwice_worker.content.wording import Wording

#: The step that follows a push whose batch keeps no plan: it says what the content says.
USUAL: Mapping[str, Any] = {}


class Words(NamedTuple):
    """The words of a step for one person.

    Attributes:
        text: as the channel's wording wrote it.
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
    *,
    wording: Wording = PLAIN_TEXT,
) -> Words:
    """Fill in what a step says.

    Args:
        step: the step as ``batches.plan`` keeps it; ``None`` for the usual SMS.
        push, sms_text: the recipient's content.
        locale: which of a template's contents the recipient has.
        params: the recipient's values.
        path: what an error calls the step.
        links: makes its short links.
        wording: that of the step's channel.

    Raises:
        InvalidMessage: a parameter is missing, a text is broken, or the result is too long; the field is named.
    """
    said = USUAL if step is None else step
    filling = Filling(push, sms_text, locale, params, path, links)
    return Words(wording.write(said, filling), said.get("sender"))


def problems(
    plan: Sequence[Step],
    push: Push | None,
    sms_text: str | None,
    locale: str | None,
    params: Mapping[str, Any],
    links: Callable[[int], Tracker | None] = lambda _: None,
    *,
    kept: Sequence[Mapping[str, Any]] | None = None,
    body: str | None = None,
    wording_of: Callable[[str], Wording],
) -> dict[int, InvalidMessage]:
    """Return the steps of a plan that cannot be written for a person, by their place, and why.

    Args:
        plan, push, sms_text, locale, params: as for :func:`words`.
        links: returns what makes the links of a step, by its number.
        kept: what :func:`written` makes of each step, for a caller that asks about many people.
        body: the push's body, if it is filled in already; the usual SMS says the same, unless it has links of its own.
        wording_of: returns the wording of a channel.
    """
    found: dict[int, InvalidMessage] = {}
    for place, step in enumerate(plan):
        try:
            if body is not None and sms_text is None and step.plain and not (push and tracks(one_text(push.body))):
                rendering.check_sms(body)
                continue
            path, link = f"plan[{place}]", links(place + 1)
            said = written(step) if kept is None else kept[place]
            words(said, push, sms_text, locale, params, path, link, wording=wording_of(step.channel))
        except InvalidMessage as error:
            found[place] = error
    return found


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


def written(step: Step) -> dict[str, Any]:
    """Return a step as ``batches.plan`` keeps it."""
    fields = {
        "channel": step.channel,
        "when": step.when and str(step.when),
        "after_s": step.after.total_seconds(),
        TEXT: step.text,
        "sender": step.sender,
        **step.content,
    }
    return {name: dict(v) if isinstance(v, dict) else v for name, v in fields.items() if v is not None}
