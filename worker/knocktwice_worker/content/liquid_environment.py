"""The environment of Liquid: the filters and tags there are, and the bounds of each.

python-liquid bounds nested loops, output and assigned names. It does not bound a loop over a reversed or offset range
(it makes a list of it), what a chain of filters makes of a text before it is written, or loops one after the other.
Those bounds are here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO, cast

from liquid import Environment, StrictDefaultUndefined
from liquid.builtin.expressions import LoopExpression
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.echo_tag import EchoTag
from liquid.builtin.tags.for_tag import ForTag
from liquid.builtin.tags.tablerow_tag import TablerowTag
from liquid.exceptions import FilterArgumentError, LoopIterationLimitError, OutputStreamLimitError
from liquid.stringify import to_liquid_string

from knocktwice_worker.content import addresses
from knocktwice_worker.content import liquid_values as values
from knocktwice_worker.content.links import short_links

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from liquid import TokenStream
    from liquid.ast import Node
    from liquid.builtin.tags.for_tag import ForNode
    from liquid.builtin.tags.tablerow_tag import TablerowNode
    from liquid.context import RenderContext
    from liquid.output import LimitedStringIO

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
    [
        *("compact", "concat", "date", "default", "find", "find_index", "first", "has", "last", "map", "reject"),
        *("reverse", "size", "slice", "sort", "sort_natural", "sum", "uniq", "where"),
    ]
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
_LISTS = (list, type(values.wrapped([])))


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


#: The only environment; templates are compiled in it.
environment = _Environment(undefined=StrictDefaultUndefined)
environment.add_filter("track", _track)
environment.filters = {name: _metered(name, environment.filters[name]) for name in FILTERS}
environment.add_tag(_Output)
environment.add_tag(_Echo)
environment.add_tag(_For)
environment.add_tag(_Tablerow)
for _name in ABSENT_TAGS:
    del environment.tags[_name]


def tags() -> set[str]:
    """Return the tags that a template may use."""
    return {name for name in environment.tags if name not in _NO_TAGS} | {"raw"}
