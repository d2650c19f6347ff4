"""The documents of the repository, and the blocks of code in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
#: The pages of the site that are kept in its folder.
PAGES = sorted((ROOT / "docs").rglob("*.md"))
#: Everything that is written for people.
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *PAGES,
    *(path for folder in (".github", "deploy", "shared") for path in sorted((ROOT / folder).glob("*.md"))),
]


def name(document: Path) -> str:
    """Return how a test calls a document."""
    return document.relative_to(ROOT).as_posix()


def blocks(document: Path, language: str) -> list[str]:
    """Return the blocks in a language that have no title."""
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def files(document: Path) -> dict[str, str]:
    """Return the blocks that have a file's name as their title, by that name."""
    found = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', document.read_text(), re.DOTALL | re.MULTILINE)
    return dict(found)


def commands(block: str) -> list[tuple[list[str], str]]:
    """Return what is typed in a session, word by word, each with what is answered."""
    typed: list[tuple[list[str], str]] = []
    for exchange in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = exchange.splitlines()
        for count in range(1, len(lines) + 1):
            command = "\n".join(lines[:count])
            try:
                words = shlex.split(command.replace("\\\n", " "), comments=True)
            except ValueError:  # a quote that goes on in the next line
                continue
            if not command.endswith("\\"):
                typed.append((words, "\n".join(lines[count:]).rstrip()))
                break
        else:
            raise AssertionError(f"a command that does not end: {exchange}")
    return typed
