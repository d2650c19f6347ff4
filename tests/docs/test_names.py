"""Commands, options, settings, tests and links that the documents name are there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import click
import pytest
import typer

from knocktwice_worker.celery import app as celery_app
from knocktwice_worker.cli import main
from knocktwice_worker.config import Settings
from support.documents import DOCUMENTS, PAGES, ROOT, blocks, commands, name

if TYPE_CHECKING:
    from pathlib import Path

TEXT = "\n".join(path.read_text() for path in DOCUMENTS)


@pytest.fixture(scope="module")
def command_line() -> click.Command:
    # typer has a copy of click inside.
    return cast("click.Command", typer.main.get_command(main.app))


def _command(words: list[str], found: click.Command) -> tuple[click.Command, list[str]]:
    """Return the command of these words, and the words behind its name."""
    while words and words[0][0] not in "->|" and hasattr(found, "get_command"):
        inner = found.get_command(click.Context(found), words[0])
        assert inner is not None, f"there is no command {' '.join(words)}"
        # A command stands for itself until it is needed.
        found, words = inner.real() if hasattr(inner, "real") else inner, words[1:]
    return found, words


def test_every_command_in_the_text_exists(command_line: click.Command) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^\$ |`)make ([a-z]+)", TEXT, re.MULTILINE)) <= targets
    assert set(re.findall(r"celery -A (\w+)", TEXT)) == {"knocktwice_worker"}
    assert celery_app.main == "knocktwice"
    for named in sorted(set(re.findall(r"(?:`|bin/)knocktwice ([a-z-]+)", TEXT))):
        _command([named], command_line)


@pytest.mark.parametrize("document", [d for d in DOCUMENTS if blocks(d, "console")], ids=name)
def test_every_command_that_is_typed_has_its_options(document: Path, command_line: click.Command) -> None:
    for block in blocks(document, "console"):
        for words, _ in commands(block):
            ours = next((place for place, word in enumerate(words) if word.endswith("knocktwice")), None)
            if ours is None or words[0] in (
                "sudo",
                "docker",
                "helm",
                "kubectl",
                "pip",
                "export",
                "cd",
                "openapi-generator-cli",
            ):
                continue
            command, rest = _command(words[ours + 1 :], command_line)
            known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
            given = {word.partition("=")[0] for word in rest if re.match(r"--[a-z]", word)}
            assert given <= known, f"{' '.join(words)}: no option {', '.join(given - known)}"


def test_every_setting_in_the_text_exists() -> None:
    known = {f"KNOCKTWICE_{field.upper()}" for field in Settings.model_fields}
    known |= {f"{setting}_FILE" for setting in known}
    named = set(re.findall(r"(?<!_)KNOCKTWICE_[A-Z0-9_]*[A-Z0-9](?![A-Z0-9_…])", TEXT))
    families = set(re.findall(r"(KNOCKTWICE_[A-Z0-9_]*)…", TEXT))
    assert named - known == set()
    assert {family for family in families if not any(setting.startswith(family) for setting in known)} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (ROOT / file).read_text()]
    assert len(named) > 30
    assert missing == []


def test_each_promise_about_security_has_its_test() -> None:
    (page,) = (path for path in PAGES if path.name == "security.md")
    threats = re.findall(r"^\| .* \|$", page.read_text().partition("## Spoofing")[2], re.MULTILINE)
    rows = [row for row in threats if not row.startswith(("| threat |", "|---"))]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::\w+` \|$", row)] == []
