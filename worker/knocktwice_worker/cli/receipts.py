"""``knocktwice receipts``: do the apps report what became of their pushes?"""

from __future__ import annotations

import dataclasses

import typer
from rich.table import Table

from knocktwice_worker.audience import receipt_health
from knocktwice_worker.cli.output import AsJson, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.services import services

app = typer.Typer(name="receipts", help="What apps report of their pushes.", no_args_is_help=True)


@app.callback()
def receipts() -> None:
    """What apps report of their pushes."""


@app.command()
def health(as_json: AsJson = False, as_csv: AsCsv = False) -> None:
    """Show for each platform and app version the share of the last seven days' pushes that were ever confirmed.

    Example: knocktwice receipts health --json
    """
    here = services()
    with reading(here) as conn:
        kinds = receipt_health.examine(conn, here.settings)
    if as_json:
        print_json([dataclasses.asdict(kind) | {"share": round(kind.share, 4)} for kind in kinds])
        return
    table = Table("platform", "app version", "pushes", "delivered", "confirmed", "share", "note")
    for kind in kinds:
        numbers = (str(n) for n in (kind.pushes, kind.delivered, kind.confirmed))
        note = f"never reports deliveries: {here.settings.unconfirmed_policy}" if kind.silent else ""
        table.add_row(kind.platform, kind.app_version or "-", *numbers, f"{kind.share:.1%}", note)
    print_table(table, as_csv=as_csv, empty="no push has been counted yet; pushes count within some hours")
