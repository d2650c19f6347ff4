"""``knocktwice lint``: what can be applied and would still disappoint."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.markup import escape

from knocktwice_worker.cli.output import AsJson, out, print_json, reading
from knocktwice_worker.services import services


def lint(
    files: Annotated[list[str] | None, typer.Argument(help="Files as for apply; - is the standard input.")] = None,
    history: Annotated[
        bool, typer.Option("--history", help="Look also at what became of earlier pushes, in the database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Look for costly characters, delays, hours and texts that would disappoint. Exits 1 if there are any.

    Without files it looks at the settings and, with --history, at the stored templates.

    Example: knocktwice lint templates.yaml
    """
    from knocktwice_worker.blasts import schedules
    from knocktwice_worker.content import template_store, templates
    from knocktwice_worker.declarations import files as declared_files
    from knocktwice_worker.evidence import lint as rules
    from knocktwice_worker.evidence import lint_history
    from knocktwice_worker.switches import overrides

    settings = services().settings
    if history:
        with reading(services()) as conn:
            settings = overrides.in_force(conn, settings)
    found: list[tuple[str | None, rules.Flaw]] = [(None, flaw) for flaw in rules.of_settings(settings)]
    made: dict[str, templates.Definition] = {}
    for file in files or ():
        declared = declared_files.read(file)
        found += [(file, flaw) for flaw in rules.of_declarations(declared, settings)]
        made |= {name: templates.check(name, value) for name, value in declared.get("templates", {}).items()}
    if history:
        with reading(services()) as conn:
            if not files:
                stored = template_store.definitions(conn)
                kept = {"templates": stored, "blasts": schedules.stored(conn)}
                found += [(None, flaw) for flaw in rules.of_declarations(kept, settings)]
                made = {name: templates.check(name, value) for name, value in stored.items()}
            found += [(None, flaw) for flaw in lint_history.of_history(conn, made, settings)]
    if as_json:
        print_json([{"file": file, **dataclasses.asdict(flaw)} for file, flaw in found])
    for named, flaw in () if as_json else found:
        place = f"{named}: {flaw.where}" if named else flaw.where
        out.print(f"[yellow]{escape(place)}[/]: {escape(flaw.problem)}", soft_wrap=True)
        out.print(f"  {escape(flaw.fix)} [dim]({flaw.rule})[/]", soft_wrap=True)
    if not found and not as_json:
        out.print("nothing to mend")
    if found:
        raise typer.Exit(1)
