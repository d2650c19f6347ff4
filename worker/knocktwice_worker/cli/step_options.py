"""The steps of a plan on the command line: ``--step``, once for each, or ``--steps`` and a file with all of them."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knocktwice import ChannelStep
from knocktwice.channels import STEPS
from knocktwice_shared.channels import CONTENTS, SMS, Kind
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import AFTER_LIMIT
from knocktwice_worker.notation import declared_yaml, durations
from knocktwice_worker.notation.declared_yaml import Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta

    from knocktwice.content import LaterStep

#: An example of a step, for error messages.
EXAMPLE = "'sms when=not_clicked after=2h text=\"Your table is ready.\"'"
#: ``--steps``.
StepsFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="All steps from a YAML or JSON file, a list as a template's fallback; - is the standard input.",
    ),
]
_COMMON = ("when", "after", "sender")


def each(instead: str) -> Any:
    """Return the option ``--step``; ``instead`` is what gives way to the steps."""
    return typer.Option(
        help=f"A step after the push, in place of {instead}: CHANNEL NAME=VALUE …; repeat, in order. "
        "'sms when=not_clicked after=2h text=\"…\"'. Other channels ask for other fields; see docs/plans.md.",
        show_default=False,
    )


def plan(written: Sequence[str], file: str | None) -> list[LaterStep] | None:
    """Return the steps that ``--step`` or ``--steps`` say; ``None`` if neither is there.

    Args:
        written: each ``--step``.
        file: that of ``--steps``, ``-`` for the standard input.

    Raises:
        InvalidMessage: one is wrong; the field is named.
    """
    if file is not None:
        if written:
            raise InvalidMessage("steps", "are told by --step and in a file; give one of them")
        return _read(file)
    return [_step(f"steps[{i}]", _fields(f"steps[{i}]", text)) for i, text in enumerate(written)] or None


def _read(file: str) -> list[LaterStep]:
    try:
        listed = declared_yaml.load(file)
    except Unreadable as error:
        raise InvalidMessage("steps", f"cannot be read: {error}") from None
    if not isinstance(listed, list) or not listed:
        raise InvalidMessage("steps", f"{file} must hold a list of steps, as a template's fallback is written")
    steps = []
    for i, fields in enumerate(listed):
        if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
            raise InvalidMessage(f"steps[{i}]", "must be fields with values, such as 'after: 5m'")
        steps.append(_step(f"steps[{i}]", fields))
    return steps


def _fields(place: str, text: str) -> dict[str, Any]:
    """Read ``CHANNEL[:VALUE] NAME=VALUE …``, quoted as for a shell; ``NAME.KEY=VALUE`` is one of a field's texts."""
    try:
        first, *rest = shlex.split(text)
    except ValueError as error:
        problem = "is empty" if not text.strip() else f"has {error}"
        raise InvalidMessage(place, f"{problem}; write it like {EXAMPLE}") from None
    channel, _, value = first.partition(":")
    fields: dict[str, Any] = {"channel": channel}
    if value:
        fields[_first_field(channel)] = value
    for pair in rest:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InvalidMessage(place, f"{pair!r} must be NAME=VALUE; write it like {EXAMPLE}, texts in quotes")
        field, dot, key = name.partition(".")
        texts = bool(dot) and _several(field)
        known, key = (fields.setdefault(field, {}), key) if texts else (fields, name)
        if not isinstance(known, dict):
            raise InvalidMessage(
                f"{place}.{name}", f"stands beside {field}; give it by language everywhere, or nowhere"
            )
        if key in known and not _is_list(field):
            raise InvalidMessage(f"{place}.{name}", "is there twice")
        known[key] = [*known.get(key, ()), value] if _is_list(field) else value
    return fields


def _is_list(name: str) -> bool:
    """Return whether a field may stand several times, each time with one more item."""
    return any(c.fields[name].kind is Kind.ADDRESSES for c in CONTENTS.values() if name in c.fields)


def _several(name: str) -> bool:
    """Return whether a field may have several texts, by name or by language."""
    fields = [content.fields[name] for content in CONTENTS.values() if name in content.fields]
    return any(field.kind is Kind.TEXTS or field.localised for field in fields)


def _first_field(channel: str) -> str:
    """Return the field that stands after a channel's name; for one that has none, that of a channel which has."""
    firsts = {name: c.first_field for name, c in CONTENTS.items() if c.first_field is not None}
    return firsts.get(channel) or next(iter(firsts.values()))


def _step(place: str, fields: Mapping[str, Any]) -> LaterStep:
    channel = fields.get("channel", SMS)
    content = CONTENTS.get(channel) if isinstance(channel, str) else None
    if content is None:
        raise InvalidMessage(f"{place}.channel", f"must be {' or '.join(CONTENTS)}, like {EXAMPLE}")
    known = (*_COMMON, *content.fields)
    for name in fields:
        if name not in ("channel", *known):
            raise InvalidMessage(f"{place}.{name}", f"is no field of a step by {channel}; there are {', '.join(known)}")
    given = {name: value for name, value in fields.items() if name not in ("channel", "after")}
    if "after" in fields:
        given["after"] = _after(f"{place}.after", fields["after"])
    for name, field in content.fields.items():
        if field.required and not given.get(name):
            raise InvalidMessage(f"{place}.{name}", f"is missing{'; ' if field.missing else ''}{field.missing}")
    made: type[LaterStep] | None = STEPS.get(content.channel)
    if made is not None:
        return made(**given)
    said = {name: given.pop(name) for name in content.fields if name in given}
    return ChannelStep(content.channel, said, **given)


def _after(place: str, value: object) -> timedelta:
    try:
        return durations.typed(value, AFTER_LIMIT)
    except ValueError as error:
        raise InvalidMessage(place, str(error)) from None
