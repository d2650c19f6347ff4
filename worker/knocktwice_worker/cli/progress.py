"""The progress of long work, shown on a terminal; in a pipe, a log or a cron mail nothing is shown."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from knocktwice_worker.cli.output import err

if TYPE_CHECKING:
    from collections.abc import Iterator


class Bar:
    """The bar of one piece of work.

    Args:
        shown: what draws it.
        doing: the words before it.
        total: how much there is to do; ``None``: nobody knows yet.
    """

    def __init__(self, shown: Progress, doing: str, total: int | None) -> None:
        self._shown = shown
        self._task = shown.add_task(doing, total=total)

    def advance(self, done: int = 1) -> None:
        """Say that so much more is done."""
        self._shown.advance(self._task, done)

    def update(self, *, done: int, total: int | None, doing: str) -> None:
        """Say how much is done of how much."""
        self._shown.update(self._task, completed=done, total=total, description=doing)


@contextmanager
def progress(doing: str, total: int | None = None) -> Iterator[Bar]:
    """Show a bar on standard error until the end of the block.

    Args:
        doing: what is being done.
        total: how much there is to do, if it is known.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        yield Bar(shown, doing, total)
