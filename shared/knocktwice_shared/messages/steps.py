"""A step of a plan: by which channel, when, and what it says."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from knocktwice_shared.channels import CONTENTS, Kind
from knocktwice_shared.channels.step_content import MEDIA, TEXT
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks, languages, senders
from knocktwice_shared.messages.problems import attempt, fail
from knocktwice_shared.messages.pushes import checked_address
from knocktwice_shared.messages.values import AFTER_LIMIT, TENCENT_CONDITIONS, Step, When

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_shared.channels import Field, StepContent

#: Nothing says what to say.
NOTHING_SAID = (
    "is missing; give what to say, or the name of a template, or begin the plan with a step that goes at once, "
    "without when and after_s"
)


def parse_step(value: object, path: str, *, first: bool, alone: bool) -> Step:
    """Validate one step of a plan.

    Args:
        value: an object.
        path: what the error calls it.
        first: whether it is the plan's first.
        alone: whether the plan begins without a push.

    Raises:
        InvalidMessage: a field is wrong; the first one is named.
    """
    known = {name for content in CONTENTS.values() for name in content.fields}
    raw = checks.object_of(value, path, {"channel", "when", "after_s", "sender"} | known)
    channel = raw.get("channel")
    content = CONTENTS.get(channel) if isinstance(channel, str) else None
    if content is None:
        raise InvalidMessage(f"{path}.channel", f"must be one of {', '.join(CONTENTS)}")
    if first and alone:
        if "when" in raw or "after_s" in raw:
            # Most likely the push was forgotten.
            raise InvalidMessage("content.push", NOTHING_SAID)
        return _saying(content, None, timedelta(), raw, path)
    when = _when(raw.get("when"), f"{path}.when")
    if when is When.NOTIFICATIONS_DISABLED and not first:
        problem = (
            "is about the push, so only the step right after it can wait for it; give not_delivered or not_clicked"
        )
        fail(f"{path}.when", problem, None)
    after = checks.seconds(raw.get("after_s"), f"{path}.after_s", AFTER_LIMIT)
    return _saying(content, when, after, raw, path)


def _sender(value: object, path: str) -> str:
    try:
        return senders.sender(checks.text(value, path, 64))
    except InvalidMessage:
        raise
    except ValueError as error:
        raise InvalidMessage(path, str(error)) from None


def _saying(content: StepContent, when: When | None, after: timedelta, raw: Mapping[str, Any], path: str) -> Step:
    """Check what a step says and who says it."""
    sender = None if raw.get("sender") is None else _sender(raw["sender"], f"{path}.sender")
    for name in raw:
        if name not in ("channel", "when", "after_s", "sender") and name not in content.fields:
            owner = next(c for c in CONTENTS.values() if name in c.fields)
            fail(f"{path}.{name}", f"is for {owner.called}; {content.hint}", None)
    said = {
        name: _said(field_, raw.get(name), f"{path}.{name}")
        for name, field_ in content.fields.items()
        if name in raw or field_.required
    }
    text = said.pop(TEXT, None)
    return Step(content.channel, when, after, text, sender, {name: v for name, v in said.items() if v})


def _said(field_: Field, value: object, path: str) -> Any:
    if field_.kind is Kind.TEXTS:
        texts = checks.object_of(value, path, None)
        for name, text in texts.items():
            checks.text(name, f"{path}.{name}", 64)
            checks.text(text, f"{path}.{name}", field_.limit, empty=True)
        return texts
    check = _addresses if field_.kind is Kind.ADDRESSES else _one
    if field_.localised and isinstance(value, dict):
        return languages.texts(value, path, lambda one, place: check(field_, one, place))
    return check(field_, value, path)


def _addresses(field_: Field, value: object, path: str) -> list[str]:
    """Return one address or several as a list; each may have placeholders. All that are wrong are named."""
    if isinstance(value, str):
        return [checked_address(value, MEDIA, path)]
    listed = list(value) if isinstance(value, tuple) else value
    return [
        attempt(checked_address, "", one, MEDIA, f"{path}[{place}]")
        for place, one in enumerate(checks.list_of(listed, path, 1, field_.most))
    ]


def _one(field_: Field, value: object, path: str) -> str:
    text = checks.text(value, path, field_.limit)
    if field_.pattern is not None and not re.fullmatch(field_.pattern, text):
        return fail(path, field_.problem, "")
    return text


def _when(value: object, path: str) -> When:
    if type(value) is int and 0 <= value < len(TENCENT_CONDITIONS):
        return TENCENT_CONDITIONS[value]
    return checks.choice(When, value, path)
