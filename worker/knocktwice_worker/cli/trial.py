"""``knocktwice trial``: what stricter rules would have stopped."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli.output import AsJson, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.notation import durations
from knocktwice_worker.services import services


def trial(
    since: Annotated[str, typer.Option(help="How far back, like 24h; at most 35d.")] = "24h",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show how many SMS stricter rules would have stopped that went, by rule.

    KNOCKTWICE_TRIAL='{"sms_per_day": 5}' tries a rule beside the one in force; knocktwice set trial … does it without a
    restart. In the projects file a project can try its own limits. What the brake and the pumping guard only watch is
    counted, too. Changes nothing.

    Example: knocktwice trial --since 7d
    """
    from knocktwice_worker.evidence import trials

    try:
        span = durations.typed(since, trials.LONGEST)
    except ValueError as error:
        raise InvalidMessage("since", str(error)) from None
    here = services()
    with reading(here) as conn:
        found = trials.report(conn, here.settings, here.projects, span)
    if as_json:
        print_json(found.as_json())
        return
    table = Table("rule", "in force", "tried")
    table.add_column("would have stopped", justify="right")
    for one in found.lines:
        table.add_row(one.word, one.in_force, one.tried or "-", f"{one.would_have_stopped:,}")
    print_table(table, as_csv=as_csv)
    if not as_csv:
        out.print(
            f"{found.messages:,} messages of the last {since} went that they would have stopped, each counted once"
        )
        if not any(one.tried for one in found.lines):
            out.print("nothing is tried: KNOCKTWICE_TRIAL names stricter rules; see docs/trials.md")
