"""A file that a document or a comment names is there: what was moved is named by its new place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("producer", "shared", "worker", "tests", "docs", "deploy", ".ci", ".github")
#: From where a path may begin: what is clear from the context need not be said.
ORIGINS = [
    ROOT,
    *(ROOT / folder for folder in FOLDERS),
    ROOT / "producer" / "knocktwice",
    ROOT / "shared" / "knocktwice_shared",
    ROOT / "worker" / "knocktwice_worker",
]
FILES = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts}
#: A file's name alone is enough where there is no doubt about it.
NAMES = {path.name for path in FILES}
DOCUMENTS = [*ROOT.glob("*.md"), *sorted(path for path in FILES if path.suffix == ".md")]
SOURCES = sorted(path for path in FILES if path.suffix in (".py", ".lua"))

#: ``NNNN_name.py`` and the like are patterns, not files.
_NAMED = re.compile(r"`([\w./-]+\.(?:py|lua|sql)|[a-z.][\w.-]*(?:/[\w.-]+)*/)`")


def _named(path: Path) -> list[str]:
    return sorted(name for name in set(_NAMED.findall(path.read_text())) if "NNNN" not in name)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_names_only_files_that_are_there(document: Path) -> None:
    origins = [*ORIGINS, document.parent]
    missing = [n for n in _named(document) if n not in NAMES and not any((origin / n).exists() for origin in origins)]
    assert missing == []


def test_comments_name_only_files_that_are_there() -> None:
    # In a comment the end of a path is enough.
    ends = "".join(f"/{path.relative_to(ROOT).as_posix()}{'/' * path.is_dir()}\n" for path in FILES)
    missing = {f"{path.name}: {name}" for path in SOURCES for name in _named(path) if f"/{name}\n" not in ends}
    assert missing == set()
