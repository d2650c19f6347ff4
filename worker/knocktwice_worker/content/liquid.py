"""Liquid with limits: operators and applications write templates, and a worker fills them in by the thousand.

python-liquid bounds nested loops, output and assigned names. It does not bound a loop over a reversed or offset range
(it makes a list of it), what a chain of filters makes of a text before it is written, loops one after the other, or the
time its own lexer takes for markup that is never closed. Those bounds are here.
"""

from __future__ import annotations

import re
import time
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TextIO, cast

from liquid import BoundTemplate, Environment, StrictDefaultUndefined
from liquid.builtin.expressions import LoopExpression
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.echo_tag import EchoTag
from liquid.builtin.tags.for_tag import ForTag
from liquid.builtin.tags.tablerow_tag import TablerowTag
from liquid.context import RenderContext
from liquid.exceptions import (
    FilterArgumentError,
    LiquidError,
    LoopIterationLimitError,
    OutputStreamLimitError,
    UndefinedError,
)
from liquid.output import LimitedStringIO
from liquid.stringify import to_liquid_string

from knocktwice_shared.messages.braces import unclosed
from knocktwice_shared.messages.values import PERSON, PERSON_FIELDS
from knocktwice_worker.content import addresses
from knocktwice_worker.content import liquid_values as values
from knocktwice_worker.content.links import short_links

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from liquid import TokenStream
    from liquid.ast import Node
    from liquid.builtin.tags.for_tag import ForNode
    from liquid.builtin.tags.tablerow_tag import TablerowNode
    from liquid.static_analysis import TemplateAnalysis

    from knocktwice_worker.content.links.short_links import Tracker

#: Filters of Shopify's reference, and ``track``. Each may read and write so much, and no more.
FILTERS = (
    *("abs", "append", "at_least", "at_most", "base64_decode", "base64_encode", "base64_url_safe_decode"),
    *("base64_url_safe_encode", "capitalize", "ceil", "compact", "concat", "date", "default", "divided_by", "downcase"),
    *("escape", "escape_once", "find", "find_index", "first", "floor", "has", "join", "last", "lstrip", "map", "minus"),
    *("modulo", "newline_to_br", "plus", "prepend", "reject", "remove", "remove_first", "remove_last", "replace"),
    *("replace_first", "replace_last", "reverse", "round", "rstrip", "size", "slice", "sort", "sort_natural", "split"),
    *("squish", "strip", "strip_html", "strip_newlines", "sum", "times", "track", "truncate", "truncatewords", "uniq"),
    *("upcase", "url_decode", "url_encode", "where"),
)
#: Filters of a range that do not make a list of it.
_LAZY = frozenset({"first", "last", "size", "slice", "default"})
#: Filters that ask what a value is; others of these read a text.
_OF_VALUES = frozenset(
    {
        "compact",
        "concat",
        "date",
        "default",
        "find",
        "find_index",
        "first",
        "has",
        "last",
        "map",
        "reject",
        "reverse",
        "size",
    }
    | {"slice", "sort", "sort_natural", "sum", "uniq", "where"}
)
#: Filters whose result may stand in an address as it is.
_ESCAPING = frozenset({"url_encode", "track", "base64_url_safe_encode"})
#: Tags of the reference that are refused: there is nowhere to include from.
ABSENT_TAGS = ("include", "render")

#: The other tags that python-liquid registers.
_NO_TAGS = ("#", "content", "illegal", "output")
#: Characters that the filters of one text may read and write altogether; each call counts as some, too.
_FILTER_WORK, _FILTER_CALL = 200_000, 20
#: Processor time (seconds) that the loops of one text may take. Not the clock's: a busy machine is not the template's
#: fault.
_LOOP_TIME_S = 0.1
#: The lexer looks through white space again and again.
_LONG_BLANK = re.compile(r"\s{100}")
_LISTS = (list, type(values.wrapped([])))
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


class _Loop(LoopExpression):
    """A loop that neither unrolls a long range nor takes long."""

    __slots__ = ()

    def _to_iter(self, obj: object, context: RenderContext) -> tuple[Iterator[Any], int]:
        limit = _Environment.loop_iteration_limit
        if isinstance(obj, range) and len(obj[: limit + 1]) > limit:
            raise LoopIterationLimitError("loop iteration limit reached", token=self.token)
        return super()._to_iter(obj, context)

    def evaluate(self, context: RenderContext) -> tuple[Iterator[object], int]:
        items, length = super().evaluate(context)
        return self._timed(items, context), length

    def _timed(self, items: Iterator[object], context: RenderContext) -> Iterator[object]:
        end = context.tag_namespace.setdefault("loops end", time.thread_time() + _LOOP_TIME_S)
        for item in items:
            if time.thread_time() > end:
                raise LoopIterationLimitError("loop time limit reached", token=self.token)
            yield item


def _bounded(loop: LoopExpression) -> _Loop:
    return _Loop(
        loop.token,
        loop.identifier,
        loop.iterable,
        limit=loop.limit,
        offset=loop.offset,
        reversed_=loop.reversed,
        cols=loop.cols,
    )


class _For(ForTag):
    def parse(self, stream: TokenStream) -> Node:
        node = cast("ForNode", super().parse(stream))
        node.expression = _bounded(node.expression)
        return node


class _Tablerow(TablerowTag):
    def parse(self, stream: TokenStream) -> TablerowNode:
        node = super().parse(stream)
        node.expression = _bounded(node.expression)
        return node


class _Written(OutputNode):
    """``{{ … }}``: no value is written as Python writes it, and none ends the address that it stands in."""

    def render_to_output(self, context: RenderContext, buffer: TextIO) -> int:
        text = to_liquid_string(values.flat(self.expression.evaluate(context)), context.autoescape)
        # What is captured is written once more, and only then it is known where.
        written: tuple[TextIO, bool] | None = context.tag_namespace.get("written")
        if written is not None and written[0] is buffer and not self._is_escaped():
            text = addresses.part(text, cast("LimitedStringIO", buffer).getvalue(), whole=written[1])
        return buffer.write(text)

    def _is_escaped(self) -> bool:
        filters = getattr(self.expression, "filters", None)
        return bool(filters and filters[-1].name in _ESCAPING)


class _Output(Output):
    node_class = _Written


class _Echo(EchoTag):
    node_class = _Written  # type: ignore[assignment]


def _metered(name: str, function: Callable[..., object]) -> Callable[..., object]:
    """Make a filter count what it reads and writes against the bound of its text."""
    wants_context = getattr(function, "with_context", False)
    wants_environment = getattr(function, "with_environment", False)

    def filter_(left: object, *args: object, context: RenderContext, **kwargs: object) -> object:
        if name not in _LAZY:
            _refuse_long_range(left, *args)
        if name not in _OF_VALUES:
            left = (
                [values.said(item) for item in cast("list[object]", left)]
                if type(left) in _LISTS and name == "join"
                else values.said(left)
            )
            args = tuple(values.said(arg) for arg in args)
        spent = _spend(context, sum(values.weight(each, _FILTER_WORK) for each in (left, *args)))
        _require(spent + _made(name, left, args) <= _FILTER_WORK)
        if wants_context:
            kwargs["context"] = context
        if wants_environment:
            kwargs["environment"] = context.env
        result = values.listed(function(left, *args, **kwargs))
        _spend(context, values.weight(result, _FILTER_WORK))
        return result

    filter_.with_context = True  # type: ignore[attr-defined]
    return filter_


def _made(name: str, left: object, args: tuple[object, ...]) -> int:
    """Return how much a filter will write or do at most, where that is more than it reads by far."""
    kind = type(left)
    if name == "replace" and args and issubclass(kind, str):
        new = str(args[1]) if len(args) > 1 else ""
        return cast("str", left).count(str(args[0])) * len(new)
    if name == "join" and kind in _LISTS:
        return len(cast("list[object]", left)) * len(str(args[0]) if args else " ")
    if name == "uniq" and kind in _LISTS:
        # It compares each with each.
        return len(cast("list[object]", left)) ** 2 // 20
    return 0


def _refuse_long_range(*given: object) -> None:
    limit = _Environment.loop_iteration_limit
    if any(type(each) is range and len(each[: limit + 1]) > limit for each in given):
        raise LoopIterationLimitError("loop iteration limit reached", token=None)


def _spend(context: RenderContext, length: int) -> int:
    work: int = context.tag_namespace.get("filter work", 0) + _FILTER_CALL + length
    context.tag_namespace["filter work"] = work
    _require(work <= _FILTER_WORK)
    return work


def _require(within: bool) -> None:
    if not within:
        raise OutputStreamLimitError("filter work limit reached", token=None)


def _track(address: object, *, context: RenderContext) -> str:
    """Put a short link in place of an address. Without short links the address stays, but is checked all the same."""
    links: Tracker | None = context.tag_namespace.get("links")
    try:
        target = short_links.checked(str(address))
        return links.link(target) if links else str(address)
    except short_links.RefusedTarget as error:
        raise FilterArgumentError(f"what {{{{ … | track }}}} is given {error}", token=None) from None


_track.with_context = True  # type: ignore[attr-defined]


class _Environment(Environment):
    loop_iteration_limit = 1_000
    output_stream_limit = 20_000
    context_depth_limit = 10
    local_namespace_limit = 100_000


_environment = _Environment(undefined=StrictDefaultUndefined)
_environment.add_filter("track", _track)
_environment.filters = {name: _metered(name, _environment.filters[name]) for name in FILTERS}
_environment.add_tag(_Output)
_environment.add_tag(_Echo)
_environment.add_tag(_For)
_environment.add_tag(_Tablerow)
for _name in ABSENT_TAGS:
    del _environment.tags[_name]


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
    written = LimitedStringIO(limit=_Environment.output_stream_limit)
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


def _with_hint(error: UndefinedError, params: Mapping[str, Any]) -> UndefinedError:
    """Return the error with the parameter that may be meant: ``first_name`` for ``{{ first-name }}``."""
    found = _UNDEFINED.match(str(error))
    if found is None:
        return error
    spelt = {_ONLY_LETTERS.sub("", name).casefold(): name for name in params}
    near = get_close_matches(_ONLY_LETTERS.sub("", found[1]).casefold(), spelt, 1, 0.8)
    return UndefinedError(f"{found[0]}; did you mean {spelt[near[0]]}?", token=None) if near else error


def tags() -> set[str]:
    """Return the tags that a template may use."""
    return {name for name in _environment.tags if name not in _NO_TAGS} | {"raw"}


def tracks(text: str) -> bool:
    """Whether a text may hold links."""
    return "track" in text and is_template(text)


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
        return _environment.from_string(text)
    except LiquidError as error:
        # It names variables and positions, never values.
        return str(error).splitlines()[0]
    except SLIPS as error:
        return f"cannot be read: {type(error).__name__}"
