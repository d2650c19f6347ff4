"""Texts by language on the command line: ``--contents`` and a file, written as a template's ``contents``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages.values import LOCALISED
from knocktwice_worker.notation import declared_yaml
from knocktwice_worker.notation.declared_yaml import Unreadable

if TYPE_CHECKING:
    from knocktwice_shared.messages import Text

Contents = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Push and SMS by language, from a YAML or JSON file like a template's contents; - is the standard input.",
    ),
]
DefaultLocale = Annotated[
    str | None,
    typer.Option(
        metavar="LOCALE",
        help="The language of --contents for people of any other one.",
        show_default="en, if it is there",
    ),
]


@dataclass(frozen=True, slots=True)
class Said:
    """The texts of push and SMS.

    Attributes:
        title, body: of the push; ``None``: there is none.
        sms: of the SMS; ``None``: it has no text of its own.
        looks: the push's other texts by language.
    """

    title: Text | None
    body: Text | None
    sms: Text | None
    looks: dict[str, Any] = field(default_factory=dict)


def said(file: str | None, title: str | None, body: str | None, sms: str | None) -> Said:
    """Return what ``--contents`` says, or else the options beside it.

    Args:
        file: that of ``--contents``.
        title, body, sms: the options of these names.

    Raises:
        InvalidMessage: the file cannot be read, or a field in it is wrong.
    """
    if file is None:
        return Said(title, body, sms)
    for name, given in (("--title", title), ("--body", body), ("--sms", sms)):
        if given is not None:
            raise typer.BadParameter("stands in the file of --contents", param_hint=name)
    try:
        contents = declared_yaml.load(file)
    except Unreadable as error:
        raise InvalidMessage("contents", f"cannot be read: {error}") from None
    if not isinstance(contents, dict) or not contents:
        raise InvalidMessage("contents", f"{file} must hold push and sms by language, as a template's contents")
    pushed: dict[str, dict[str, Any]] = {}
    texted: dict[str, Any] = {}
    for locale, content in contents.items():
        parts = _object(content, f"contents.{locale}", ("push", "sms"))
        if "sms" in parts:
            texted[str(locale)] = parts["sms"]
        for name, text in _object(parts.get("push", {}), f"contents.{locale}.push", LOCALISED).items():
            pushed.setdefault(name, {})[str(locale)] = text
    return Said(pushed.pop("title", None), pushed.pop("body", None), texted or None, pushed)


def _object(value: object, path: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidMessage(path, f"must have {', '.join(known)}")
    for name in value:
        if name not in known:
            raise InvalidMessage(f"{path}.{name}", f"is not by language here; there are {', '.join(known)}")
    return value
