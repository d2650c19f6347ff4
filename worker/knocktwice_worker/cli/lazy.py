"""A group of commands that knows their names and first sentences, and imports a command's module when it is called.

All modules together import SQLAlchemy, Celery and FastAPI, which takes seconds. ``knocktwice --help`` and the shell's
completion need none of them.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Entry:
    """A command, or a group of commands, of the command line.

    Attributes:
        name: as it is typed.
        help: the first sentence of its help.
        module: of :mod:`knocktwice_worker.cli`.
        attribute: the function of a command, or the ``typer.Typer`` of a group.
    """

    name: str
    help: str
    module: str
    attribute: str = "app"

    def load(self) -> Any:
        """Import the module, and return the function or the ``typer.Typer``."""
        return getattr(importlib.import_module(f"knocktwice_worker.cli.{self.module}"), self.attribute)


class _Listed(TyperCommand):
    """A command that is only listed; :meth:`real` is the one that runs."""

    def __init__(self, entry: Entry) -> None:
        super().__init__(entry.name, help=entry.help)
        self._entry = entry

    def real(self) -> Any:
        """Return the command itself."""
        found: Callable[..., Any] | typer.Typer = self._entry.load()
        if isinstance(found, typer.Typer):
            return _plain(typer.main.get_group(found))
        alone = typer.Typer(add_completion=False)
        alone.command(self._entry.name)(found)
        return _plain(typer.main.get_command(alone))


def _plain(command: Any) -> Any:
    """Return the command with a plain help, whose examples can be copied: their lines are not broken."""
    command.rich_markup_mode = None
    # A paragraph that begins with this character keeps its lines.
    command.help = (command.help or "").replace("\n\nExample: ", "\n\n\b\nExample: ")
    for below in getattr(command, "commands", {}).values():
        # Otherwise a list of commands cuts long sentences.
        below.short_help = (below.help or "").partition("\n\n")[0]
        _plain(below)
    return command


def group(panels: Mapping[str, Sequence[Entry]]) -> type[TyperGroup]:
    """Return the class of a group with these commands.

    Args:
        panels: heading in the help → the commands below it.
    """

    class LazyGroup(TyperGroup):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.commands = {entry.name: _Listed(entry) for entries in panels.values() for entry in entries}

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
            name, command, rest = super().resolve_command(ctx, args)
            if not isinstance(command, _Listed):
                return name, command, rest
            from knocktwice_worker.cli import output

            # Only what runs sets up the log of its process; what is only listed or documented does not.
            output.log_warnings()
            return name, command.real(), rest

        def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the base class's signature
            width = max(len(name) for name in self.commands)
            for heading, entries in panels.items():
                with formatter.section(heading):
                    formatter.write_dl([(entry.name.ljust(width), entry.help) for entry in entries])

    return LazyGroup


def every(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command below this one that does something, with what is typed for it."""
    found = command.real() if isinstance(command, _Listed) else command
    below = getattr(found, "commands", None)
    if below is None:
        yield name, found
        return
    for part, each in below.items():
        yield from every(each, f"{name} {part}".strip())
