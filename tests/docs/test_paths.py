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
DOCUMENTS = [*ROOT.glob("*.md"), *sorted(path for path in FILES if path.suffix == ".md")]
SOURCES = sorted(path for path in FILES if path.suffix in (".py", ".lua"))

#: ``NNNN_name.py`` and the like are patterns, not files.
_NAMED = re.compile(r"`([\w./-]+\.(?:py|lua|sql)|[a-z.][\w.-]*(?:/[\w.-]+)*/)`")


def _missing(path: Path) -> list[str]:
    origins = [*ORIGINS, *path.parents[: len(path.relative_to(ROOT).parts)]]
    names = {name for name in _NAMED.findall(path.read_text()) if "NNNN" not in name}
    return sorted(name for name in names if not _exists(name, origins))


def _exists(name: str, origins: list[Path]) -> bool:
    if "/" not in name:
        return any(path.name == name for path in FILES)
    return any((origin / name).exists() for origin in origins)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_names_only_files_that_are_there(document: Path) -> None:
    assert _missing(document) == []


def test_comments_name_only_files_that_are_there() -> None:
    missing = {str(path.relative_to(ROOT)): names for path in SOURCES if (names := _missing(path))}
    assert missing == {}
