"""The short forms of requests: whatever the producer library takes in a word, a request may say likewise.

Each function writes a request's fields down as the contract has them, and remembers what the request calls them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from knocktwice.content import Sms
from knocktwice_shared.channels import MEDIA
from knocktwice_shared.messages import AFTER_LIMIT, TTL_LIMIT
from knocktwice_shared.messages.problems import fail
from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

Json = dict[str, Any]

#: Fields that all recipients of a request share, with the same name in the contract.
SAME = ("category", "valid_for_s", "reference", "send_at", "only", "project")
#: Fields that all recipients of a request share.
SHARED = (*SAME, "push", "template", "default_locale", "sms", "plan", "steps", "ttl_s", "ttl")

#: When a step is due if a request does not say; the same as in the producer library.
_WHEN, _AFTER_S = Sms().when, Sms().after.total_seconds()
_SMS = ("text", "media", "when", "after_s", "after", "sender")
#: What stands in the step, beside the times.
_OF_STEP = ("sender", MEDIA)


@dataclass(slots=True)
class Spelled:
    """A request's shared fields.

    Attributes:
        message: as the contract has them.
        words: what the contract calls a field → what the request calls it.
    """

    message: Json = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


def shared(body: Mapping[str, Any]) -> Spelled:
    """Return what all recipients of a request share.

    Raises:
        InvalidMessage: a form is not known; what it says is checked later.
    """
    told = Spelled({name: body[name] for name in SAME if body.get(name) is not None})
    told.message["content"] = {name: body[name] for name in ("push", "template") if body.get(name) not in (None, False)}
    if (ttl := _seconds(body, "ttl", "", TTL_LIMIT, told)) is not None:
        told.message["ttl_s"] = ttl
    alone = not told.message["content"]
    steps = _steps(body, told, alone=alone)
    if body.get("push") is False and "template" in told.message["content"]:
        if body.get("sms") is False:
            fail("sms", "is false and so is push; leave one of the two to be sent", None)
        told.message["only"] = "sms"
    if steps is not None:
        told.message["plan"] = steps
    if body.get("sms") is not None:
        _sms(body["sms"], told, alone=alone)
    if body.get("default_locale") is not None:
        told.message["content"]["default_locale"] = body["default_locale"]
    return told


def recipient(person: object) -> object:
    """Return a recipient; a text alone is the id of a user."""
    return {"user": person} if isinstance(person, str) else person


def _steps(body: Mapping[str, Any], told: Spelled, *, alone: bool) -> Any:
    """Return the steps of ``plan`` or ``steps``; what a step after the first does not say is as in the library."""
    name = "steps" if body.get("steps") is not None else "plan"
    steps = body.get(name)
    if name == "steps":
        told.words["plan"] = "steps"
        if body.get("plan") is not None:
            fail("steps", "stands beside plan; give one or the other", None)
    if not isinstance(steps, list):
        return steps
    made = []
    for place, step in enumerate(steps):
        if isinstance(step, dict):
            path = f"{name}[{place}]."
            after = _seconds(step, "after", path, AFTER_LIMIT, told, contract=f"plan[{place}].after_s")
            rest = {key: value for key, value in step.items() if key not in ("after", "after_s")}
            waits = {} if alone and place == 0 else {"when": _WHEN, "after_s": _AFTER_S}
            made.append({**waits, **rest, **({} if after is None else {"after_s": after})})
        else:
            made.append(step)
    return made


def _sms(sms: object, told: Spelled, *, alone: bool) -> None:
    """Put a request's ``sms`` where the contract has it: its text into the content, the rest into the plan."""
    message = told.message
    if sms is False:
        if "plan" in message:
            fail("sms", "is false beside a plan; leave one of the two out", None)
        message["plan"] = []
        return
    said = {"text": sms} if isinstance(sms, str) else sms
    if not isinstance(said, dict):
        fail("sms", f"must be an object, a text, or false for none, not {type(sms).__name__}", None)
        return
    for name in said:
        if name not in _SMS:
            fail(f"sms.{name}", f"is not a field of this request; known here: {', '.join(sorted(_SMS))}", None)
    after = _seconds(said, "after", "sms.", AFTER_LIMIT, told, contract="plan[0].after_s")
    step = {name: said[name] for name in ("when", *_OF_STEP) if said.get(name) is not None}
    if after is not None:
        step["after_s"] = after
    if "plan" in message or "only" in message:
        for name in step:
            why = "the steps of plan say that" if "plan" in message else 'with only "sms" it goes at once'
            if name in _OF_STEP and "only" in message:
                why = f"a template names the {name} of its SMS"
            fail(f"sms.{name}", f"must be left out: {why}", None)
    elif alone:
        # It follows nothing, so there is nothing to wait for.
        message["plan"] = [{"channel": "sms", **{name: step[name] for name in _OF_STEP if name in step}}]
        told.words.setdefault("plan[0]", "sms")
    else:
        message["plan"] = [{"channel": "sms", "when": _WHEN, "after_s": _AFTER_S, **step}]
        told.words.setdefault("plan[0]", "sms")
    if said.get("text") is not None:
        message["content"]["sms"] = {"text": said["text"]}


def _seconds(
    holder: Mapping[str, Any], name: str, path: str, most: timedelta, told: Spelled, contract: str | None = None
) -> Any:
    """Return a span in seconds from ``name`` or ``name_s``; what is no span is left for the contract to refuse."""
    given = [spelt for spelt in (name, f"{name}_s") if holder.get(spelt) is not None]
    if not given:
        return None
    if len(given) > 1:
        return fail(f"{path}{name}", f"stands beside {name}_s; give one or the other", None)
    spelt, value = given[0], holder[given[0]]
    if spelt == name:
        told.words[contract or f"{name}_s"] = f"{path}{name}"
    if not isinstance(value, str):
        return value
    try:
        return durations.parse(value, most).total_seconds()
    except ValueError as error:
        return fail(f"{path}{spelt}", str(error), None)
