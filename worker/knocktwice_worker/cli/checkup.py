"""``knocktwice doctor``: what works and what does not, told as it is found out."""

from __future__ import annotations

import dataclasses

import typer
from rich.markup import escape

from knocktwice_worker.cli.output import AsJson, out, print_json
from knocktwice_worker.cli.tables import Watch, watching
from knocktwice_worker.services import services

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


def doctor(as_json: AsJson = False, watch: Watch = False) -> None:
    """Check servers, workers, credentials and backlog. Exits 1 if something does not work.

    Every line comes within its deadline, also while a server hangs.

    Example: knocktwice doctor --json
    """
    if not watching(lambda: _show(as_json=as_json), on=watch):
        raise typer.Exit(1)


def _show(*, as_json: bool) -> bool:
    from knocktwice_worker.diagnosis.doctor import stream

    found = []
    for check in stream(services()):
        found.append(check)
        if not as_json:
            line = f"[{_COLOURS[check.level]}]{check.level:8}[/] {check.name:13} {escape(check.finding)}"
            out.print(line, soft_wrap=True)
    if as_json:
        print_json([dataclasses.asdict(c) for c in found])
    return not any(check.level == "error" for check in found)
