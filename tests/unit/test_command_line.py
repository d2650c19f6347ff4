"""The command line itself: its help, its start, its completion."""

from __future__ import annotations

import inspect
import os
import re
import resource
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

import knocktwice
from knocktwice_worker.cli import main

COMMANDS = dict(main.commands())
SOURCES = Path(main.__file__).parents[1]
#: A command in the words of a page; errors put it in quotes.
_NAMED = r"knocktwice ([a-z-]+)(?: ([a-z-]+))?"
#: What pages say of a group of commands.
VERBS = {"does", "takes"}
#: Libraries that take long to import.
HEAVY = ("sqlalchemy", "celery", "fastapi", "pydantic", "structlog", "redis", "kombu", "rich", "firebase_admin")


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )


def _cpu(code: str) -> float:
    """The least that running it took, in seconds of CPU."""
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _python(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(took)


HELP = "import sys; sys.argv[1:] = {args!r}; from knocktwice_worker.cli.__main__ import main; main()"


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_help_imports_no_heavy_library(option: str) -> None:
    code = f"import atexit\natexit.register(lambda: print(*{{*{HEAVY!r}}} & {{*sys.modules}}, file=sys.stderr))\n"
    assert _python("import sys\n" + code + HELP.format(args=[option])).stderr.split() == []


def test_the_help_costs_little_more_than_the_library_that_reads_arguments() -> None:
    assert _cpu(HELP.format(args=["--help"])) < 4 * _cpu("import click")


def test_the_version_is_that_of_the_distribution() -> None:
    assert _python(HELP.format(args=["--version"])).stdout == f"knocktwice {knocktwice.__version__}\n"
    assert metadata.version("knocktwice") == knocktwice.__version__


@pytest.mark.parametrize("entry", [e for entries in main.PANELS.values() for e in entries], ids=lambda e: e.name)
def test_a_command_is_listed_with_the_beginning_of_its_own_help(entry: Any) -> None:
    told = typer.main.get_command(main.app).commands[entry.name].real().help  # type: ignore[attr-defined]
    assert " ".join(told.split()).startswith(entry.help.removesuffix("."))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_that_can_be_typed(name: str) -> None:
    told = (COMMANDS[name].help or "").replace("\\\n", " ")
    examples = [line.partition("knocktwice ")[2] for line in told.splitlines() if f"knocktwice {name}" in line]
    assert examples, "no example"
    for example in examples:
        words = shlex.split(example.partition(')"')[0] if name == "env" else example)
        _parse(words)


def _parse(words: list[str]) -> None:
    command: Any = typer.main.get_command(main.app)
    context = None
    rest = [word.rstrip(",") for word in words]
    while True:
        context = command.make_context(command.name, rest, parent=context)
        if not hasattr(command, "commands"):
            return
        _, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_prints_a_table_has_json_as_well(name: str) -> None:
    command = COMMANDS[name]
    source = inspect.getsource(inspect.unwrap(command.callback))
    if "Table(" in source or "_table(" in source or "_print_devices(" in source:
        assert any("--json" in parameter.opts for parameter in command.params)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_without_importing_them(shell: str) -> None:
    script = _python(HELP.format(args=[]), _KNOCKTWICE_COMPLETE=f"source_{shell}").stdout
    assert "_KNOCKTWICE_COMPLETE" in script
    typed = {"COMP_WORDS": "knocktwice temp", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "knocktwice temp"}
    found = _python(
        f"import atexit, sys\natexit.register(lambda: print('sqlalchemy' in sys.modules, file=sys.stderr))\n{HELP.format(args=[])}",
        _KNOCKTWICE_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
        **typed,
    )
    assert "template" in found.stdout
    assert "notify" not in found.stdout
    assert found.stderr.split() == ["False"]


def test_a_shell_completes_the_options_of_a_command() -> None:
    typed = {"COMP_WORDS": "knocktwice brake release --dry", "COMP_CWORD": "3"}
    found = _python(HELP.format(args=[]), _KNOCKTWICE_COMPLETE="complete_bash", **typed)
    assert found.stdout.split() == ["--dry-run"]


def test_every_command_that_errors_and_pages_name_is_there() -> None:
    groups = {name.partition(" ")[0] for name in COMMANDS if " " in name}
    found: dict[str, str] = {}
    for path in (*SOURCES.rglob("*.py"), *SOURCES.rglob("*.html")):
        named = _NAMED if "flower" in path.parts else f"'{_NAMED}"
        for said in re.finditer(named, path.read_text()):
            group, command = said[1], said[2]
            told_of = group in groups and command in VERBS
            if group not in COMMANDS and f"{group} {command}" not in COMMANDS and not told_of:
                found[said[0]] = path.name
    # A name of a lock in PostgreSQL.
    assert found.keys() == {"'knocktwice statistics"}
