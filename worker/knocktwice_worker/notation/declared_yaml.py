"""YAML with the few rules of version 1.2: ``no:`` is Norwegian, ``12:30`` a text, and no key may be repeated.

Every mistake has its place, file:line:column, and says what to do about it. It quotes no value: one may be a secret.
"""

from __future__ import annotations

import codecs
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from yaml.constructor import ConstructorError

from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: How many values aliases may make of a file beyond those that are written in it.
_ALIASED = 100_000
#: The kinds of values that JSON has, too; and the merge key. Others, like ``!!set`` or ``!!timestamp``, are refused.
_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
#: Characters that a database or JSON does not take.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_TEMPLATE = re.compile(r"\{\{|\{%")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")
_ENCODINGS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))

_NEEDS_QUOTES = "put the text in quotes"
#: PyYAML's message → the fix.
_REMEDIES = (
    (r"found character '\\t'", "indent with blanks, not with tabs"),
    (r"found character '[%@`]'", f"if a text begins with it, {_NEEDS_QUOTES}"),
    (
        r"undefined alias|expected alphabetic or numeric character",
        f"if a text begins with * or &, {_NEEDS_QUOTES}; else write the &anchor before it",
    ),
    (
        r"mapping values are not allowed here",
        f"if it is a text with a colon, {_NEEDS_QUOTES}; else check the indentation",
    ),
    (r"found another document|expected '<document start>'", "a file is one document: remove the line of --- or ..."),
    (r"unknown escape character", "use single quotes, in which a backslash is a backslash"),
    (r"unexpected end of stream", "a quote is opened and not closed"),
    (r"constructor for the tag", f"if a text begins with !, {_NEEDS_QUOTES}; else leave the tag out"),
    (r"'<stream end>'", "a bracket is opened and not closed"),
    (r"expected ',' or '[\]}]'", f"close the bracket; if a text begins with it, {_NEEDS_QUOTES}"),
    (r"expected <block end>", f"check the indentation; if a text begins with a bracket or a quote, {_NEEDS_QUOTES}"),
)  # fmt: skip


class Unreadable(KnocktwiceError):
    """The file is not there, or not YAML; the message names the place."""


@dataclass(frozen=True)
class Document:
    """A file's content, which knows where its parts stand.

    Attributes:
        value: texts, numbers, lists and objects.
    """

    value: object
    _path: str
    _root: yaml.Node | None

    def place(self, *steps: str | int) -> str:
        """Return file:line:column of a part: of its key, or of the deepest part on the way to it that is there."""
        node, mark = self._root, self._root.start_mark if self._root else None
        for step in steps:
            for key, value in _parts(node):
                if key == step:
                    node, mark = value, _key_mark(node, key) or value.start_mark
                    break
        return f"{self._path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{self._path}:1:1"

    def place_of(self, field: str) -> str:
        """Return the place of a part whose steps stand in one text: ``templates.order.plan[1].after``."""
        steps: list[str | int] = []
        node, rest = self._root, field
        while rest and node is not None:
            found = max(
                (
                    (written, key, value)
                    for key, value in _parts(node)
                    for written in ([f"[{key}]", str(key)] if isinstance(key, int) else [key])
                    if rest == written or (rest.startswith(written) and rest[len(written)] in ".[")
                ),
                key=lambda each: len(each[0]),
                default=None,
            )
            if found is None:
                break
            steps.append(found[1])
            rest, node = rest[len(found[0]) :].removeprefix("."), found[2]
        return self.place(*steps)


def _parts(node: yaml.Node | None) -> Iterator[tuple[str | int, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode))
    elif isinstance(node, yaml.SequenceNode):
        yield from enumerate(node.value)


def _key_mark(node: yaml.Node | None, key: str | int) -> yaml.Mark | None:
    if isinstance(node, yaml.MappingNode):
        return next((k.start_mark for k, _ in node.value if k.value == key), None)
    return None


class _Loader(yaml.SafeLoader):
    """https://yaml.org/spec/1.2.2/#103-core-schema, without octal and hexadecimal numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - declared so by the parent
    yaml_constructors = {  # noqa: RUF012 - as above
        tag: function
        for tag, function in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in _TAGS
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, f"a key must be a word; {_NEEDS_QUOTES}", key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                said = f"{key.value} is there twice; remove or rename one"
                raise ConstructorError(None, None, said, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            made = super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ConstructorError(None, None, f"is not what its tag says; {_NEEDS_QUOTES}", node.start_mark) from None
        if isinstance(made, str) and _UNSTORABLE.search(made):
            raise ConstructorError(None, None, "holds a character that cannot be stored; leave it out", node.start_mark)
        return made


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), [c.strip("\0") for c in _first]
    )


def load(path: str) -> object:
    """Return what a file holds; arguments and errors as for :func:`read`."""
    return read(path).value


def read(path: str) -> Document:
    """Return what a file holds, and where.

    Args:
        path: the file's; ``-`` is the standard input.

    Raises:
        Unreadable: it is not there, or not YAML.
    """
    text = _text(path)
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(None, path, None)
        _refuse_bombs(root)
        return Document(loader.construct_document(root), path, root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "unexpected end of stream" in str(error.problem) and error.context_mark:
            mark = error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise Unreadable(f"{path}:{line}:{column}: {_said(str(error.problem), text, line)}") from None
    except yaml.reader.ReaderError as error:
        raise Unreadable(f"{_at(path, text, error.position)}: holds a control character; remove it") from None
    except RecursionError:
        raise Unreadable(f"{path}:1:1: is nested too deeply; nothing here has so many levels") from None


def _text(path: str) -> str:
    try:
        raw = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    for mark, name in _ENCODINGS:
        if raw.startswith(mark):
            raise Unreadable(f"{path}:1:1: is {name}; save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        raise Unreadable(f"{_at(path, before, len(before))}: is not text in UTF-8; save it as UTF-8") from None


def _at(path: str, text: str, position: int) -> str:
    before = text[:position]
    return f"{path}:{before.count(chr(10)) + 1}:{position - before.rfind(chr(10))}"


def _said(problem: str, text: str, line: int) -> str:
    """Return a problem with its remedy. A placeholder without quotes causes many errors, so it is looked for first."""
    here = (text.splitlines() or [""])[line - 1 : line]
    if any(_TEMPLATE.search(_QUOTED.sub("", each)) for each in here) and "twice" not in problem:
        return "a text with {{ or {% is not in quotes; put it in quotes"
    remedy = next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, problem)), None)
    # Of these the problem quotes what may be a value.
    if "undefined alias" in problem:
        problem = "found an undefined alias"
    if "constructor for the tag" in problem:
        problem = "could not determine a constructor for the tag"
    return f"{problem}; {remedy}" if remedy else problem


def _refuse_bombs(root: yaml.Node) -> None:
    """Refuse a part that holds itself, and aliases of aliases that make a small file huge."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in open_:
            raise ConstructorError(None, None, "holds itself; remove the alias", node.start_mark)
        open_.add(id(node))
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        flat = (each for part in parts for each in (part if isinstance(part, tuple) else (part,)))
        sizes[id(node)] = total = 1 + sum(size(each) for each in flat)
        open_.remove(id(node))
        if total - len(sizes) > _ALIASED:
            raise ConstructorError(
                None, None, f"aliases make over {_ALIASED} values of it; write fewer", node.start_mark
            )
        return total

    size(root)


def dump(value: object) -> str:
    """Return YAML for people."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))
