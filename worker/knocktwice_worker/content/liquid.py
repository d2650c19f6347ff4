"""Liquid with limits: operators and applications write templates, and a worker fills them in by the thousand.

``liquid_environment.py`` bounds what a template does while it is filled in. Here is bounded what python-liquid's own
lexer takes for markup that is never closed.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from liquid.context import RenderContext
from liquid.exceptions import LiquidError, UndefinedError
from liquid.output import LimitedStringIO

from knocktwice_shared.messages.braces import unclosed
from knocktwice_shared.messages.values import PERSON, PERSON_FIELDS
from knocktwice_worker.content import addresses
from knocktwice_worker.content import liquid_values as values
from knocktwice_worker.content.liquid_environment import FILTERS, environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from liquid import BoundTemplate
    from liquid.static_analysis import TemplateAnalysis

    from knocktwice_worker.content.links.short_links import Tracker

#: The lexer looks through white space again and again.
_LONG_BLANK = re.compile(r"\s{100}")
#: Compiled texts; a template has some in each of its languages.
_REMEMBERED = 4_000
_OPENING = re.compile(r"\{\{|\{%")
_PLACEHOLDER = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_]*)[ \t]*\}\}")
#: Not names, in Liquid.
_WORDS = frozenset(
    {"true", "false", "nil", "null", "none", "empty", "blank", "and", "or", "not", "contains", "in", "if", "else"}
)
#: Above these, Liquid's own bounds decide.
_PLAIN_LENGTH, _LONG_NUMBER = 5_000, 10**18
_UNDEFINED = re.compile(r"'([^']+)' is undefined")
_ONLY_LETTERS = re.compile(r"[\W_]")
#: The errors that Liquid raises for odd input. Their texts may quote values.
SLIPS = (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RecursionError, AssertionError)


class BrokenTemplate(Exception):
    """The text is no template. The message names the spot, never a value."""


def compile_template(text: str) -> BoundTemplate:
    """Return the compiled text.

    Raises:
        BrokenTemplate: it cannot be compiled.
    """
    compiled = _compiled(text)
    if isinstance(compiled, str):
        raise BrokenTemplate(compiled)
    return compiled


def fill(text: str, params: Mapping[str, Any], links: Tracker | None = None, *, address: bool = False) -> str:
    """Return a text with its placeholders filled in.

    Most texts have nothing but ``{{ name }}`` in them and most values are texts and whole numbers. Putting those
    together takes a tenth of the time that Liquid takes, and everything else, mistakes included, is Liquid's.

    Args:
        text: a template.
        params: values by name.
        links: makes what ``track`` puts in the place of addresses; without it they stay.
        address: the text is an address, so that its values are escaped.

    Raises:
        BrokenTemplate: it cannot be compiled.
        LiquidError: a parameter is missing, or a bound was hit.
    """
    if not is_template(text):
        return text
    form = _plain_form(text)
    if form is not None and (together := _put_together(form, params, address=address)) is not None:
        return together
    compiled = compile_template(text)
    given = {name: values.wrapped(value) for name, value in params.items()}
    context = RenderContext(compiled, globals=compiled.make_globals(given))
    context.tag_namespace["links"] = links
    written = LimitedStringIO(limit=environment.output_stream_limit)
    if address or "://" in text:
        context.tag_namespace["written"] = written, address
    try:
        compiled.render_with_context(context, written)
    except UndefinedError as error:
        raise _with_hint(error, params) from None
    return written.getvalue()


def _put_together(form: tuple[str, list[tuple[str, str]]], params: Mapping[str, Any], *, address: bool) -> str | None:
    """Return a text that has nothing but names in it; ``None`` if that is better left to Liquid."""
    head, rest = form
    filled = [head]
    within = address or "://" in head or any("://" in piece for _, piece in rest)
    for name, piece in rest:
        value = params.get(name)
        if type(value) is int and abs(value) < _LONG_NUMBER:
            value = str(value)
        elif type(value) is not str:
            return None
        if within:
            value = addresses.part(value, "".join(filled), whole=address)
        filled += value, piece
    together = "".join(filled)
    # Liquid writes each line end as a line feed.
    return together if len(together) <= _PLAIN_LENGTH and "\r" not in together else None


@lru_cache(maxsize=_REMEMBERED)
def _plain_form(text: str) -> tuple[str, list[tuple[str, str]]] | None:
    """Return what comes before the first placeholder, and each one's name with what comes after it."""
    if _LONG_BLANK.search(text):
        return None
    head, *parts = _PLACEHOLDER.split(text)
    rest = list(zip(parts[::2], parts[1::2], strict=True))
    pieces = (head, *parts[1::2])
    if any(_OPENING.search(piece) for piece in pieces) or not _WORDS.isdisjoint(parts[::2]):
        return None
    # "{{{ name }}" begins one brace earlier.
    if any(piece.endswith("{") for piece in pieces[:-1]):
        return None
    return head, rest


def _with_hint(error: UndefinedError, params: Mapping[str, Any]) -> UndefinedError:
    """Return the error with the parameter that may be meant: ``first_name`` for ``{{ first-name }}``."""
    found = _UNDEFINED.match(str(error))
    if found is None:
        return error
    spelt = {_ONLY_LETTERS.sub("", name).casefold(): name for name in params}
    near = get_close_matches(_ONLY_LETTERS.sub("", found[1]).casefold(), spelt, 1, 0.8)
    return UndefinedError(f"{found[0]}; did you mean {spelt[near[0]]}?", token=None) if near else error


def tracks(text: str) -> bool:
    """Whether a text may hold links."""
    return "track" in text and is_template(text)


def is_template(text: str) -> bool:
    """Whether there is anything to fill in."""
    return "{{" in text or "{%" in text


@lru_cache(maxsize=_REMEMBERED)
def variables(text: str) -> frozenset[str]:
    """Return the names that a text takes from its params; the fields of the person (``personal.py``) are none.

    Raises:
        BrokenTemplate: it cannot be compiled, or uses a filter that does not exist.
    """
    if not is_template(text):
        return frozenset()
    found = _analysis(text)
    for name in found.filters:
        if name not in FILTERS:
            raise BrokenTemplate(f"unknown filter '{name}'; there are {', '.join(FILTERS)}")
    names = frozenset(found.globals)
    own = all(len(taken.segments) > 1 and taken.segments[1] in PERSON_FIELDS for taken in found.globals.get(PERSON, ()))
    return names - {PERSON} if own else names


def paths(text: str, name: str) -> list[list[object]]:
    """Return what a text takes from one of its params, as the names behind it: ``{{ name.a.b }}`` takes ``a``, ``b``.

    A name that is only known when the text is filled in is no text.

    Raises:
        BrokenTemplate: it cannot be compiled.
    """
    if not is_template(text):
        return []
    return [list(found.segments[1:]) for found in _analysis(text).globals.get(name, ())]


def _analysis(text: str) -> TemplateAnalysis:
    try:
        return compile_template(text).analyze()
    except SLIPS as error:
        raise BrokenTemplate(f"cannot be read: {type(error).__name__}") from None


# Mistakes are remembered as well: each recipient of a batch would otherwise pay for them again.
@lru_cache(maxsize=_REMEMBERED)
def _compiled(text: str) -> BoundTemplate | str:
    if _LONG_BLANK.search(text):
        return "holds 100 blanks in a row"
    if (problem := unclosed(text)) is not None:
        return problem
    try:
        return environment.from_string(text)
    except LiquidError as error:
        # It names variables and positions, never values.
        return str(error).splitlines()[0]
    except SLIPS as error:
        return f"cannot be read: {type(error).__name__}"
