"""``knocktwice doctor``: the checks of ``doctor.py``, shown."""

from __future__ import annotations

import dataclasses

import typer
from rich.markup import escape

from knocktwice_worker.cli.doctor import Level, examine
from knocktwice_worker.cli.output import AsJson, out, print_json
from knocktwice_worker.services import services


def doctor(as_json: AsJson = False) -> None:
    """Check servers, workers, credentials and backlog. Exits 1 if something does not work.

    Example: knocktwice doctor --json
    """
    checks = examine(services())
    if as_json:
        print_json([dataclasses.asdict(c) for c in checks])
    else:
        colours = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}
        for check in checks:
            line = f"[{colours[check.level]}]{check.level:8}[/] {check.name:13} {escape(check.finding)}"
            out.print(line, soft_wrap=True)
    if any(c.level is Level.ERROR for c in checks):
        raise typer.Exit(1)
