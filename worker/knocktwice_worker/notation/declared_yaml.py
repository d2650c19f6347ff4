"""YAML as people expect it: version 1.2's few rules, so that ``no:`` is Norwegian and ``12:30`` a text, and no key twice."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from knocktwice_shared.errors import KnocktwiceError


class Unreadable(KnocktwiceError):
    """The file is not there, or not YAML; the message names the place."""


class _Loader(yaml.SafeLoader):
    """https://yaml.org/spec/1.2.2/#103-core-schema, without octal and hexadecimal numbers."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - declared so by the parent

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


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
    """Return what a file holds.

    Args:
        path: the file's; ``-`` is the standard input.

    Raises:
        Unreadable: it is not there, or not YAML.
    """
    try:
        content = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        return yaml.load(content, _Loader)  # noqa: S506 - a SafeLoader with fewer rules
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unreadable(f"{path}: is not text in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        raise Unreadable(f"{place}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: is not YAML ({type(error).__name__})") from None


def dump(value: object) -> str:
    """Return YAML for people."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))
