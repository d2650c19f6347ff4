"""``knocktwice forecast``: the SMS of the next hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli.output import AsJson, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.notation import durations
from knocktwice_worker.services import services

#: The longest span that is looked at.
_LONGEST = timedelta(days=7)
#: The days whose parts and prices count.
_LATELY = timedelta(days=7)


def forecast(
    within: Annotated[str, typer.Option(help="How far ahead, like 1h.")] = "1h",
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show how many SMS the next hour will bring, and what they will cost, of what is accepted by now. Changes nothing.

    Example: knocktwice forecast --within 2h
    """
    from knocktwice_worker.evidence import forecast as evidence
    from knocktwice_worker.reporting import figures

    try:
        span = durations.typed(within, _LONGEST)
    except ValueError as error:
        raise InvalidMessage("within", str(error)) from None
    here = services()
    today = datetime.now(UTC).astimezone(here.settings.day_zone).date()
    with reading(here) as conn:
        by, prices = figures.Dimension.CATEGORY, here.channels.prices
        lately = figures.report(conn, by=by, since=today - _LATELY, until=today, prices=prices).total
        found = evidence.forecast(conn, span, lately)
    if as_json:
        print_json(found.as_json())
        return
    table = Table("")
    for heading in ("SMS", "parts", "cost"):
        table.add_column(heading, justify="right")
    for name, count in (("expected", found.expected), ("at least", found.low), ("at most", found.high)):
        parts, cost = found.parts, found.cost(count)
        table.add_row(
            name,
            f"{count:,.0f}",
            "-" if parts is None else f"{parts * count:,.0f}",
            "-" if cost is None else f"{cost:,.2f}",
        )
    print_table(table, as_csv=as_csv)
    if as_csv:
        return
    more = "more than " if found.more else ""
    out.print(f"{more}{found.steps:,} SMS wait and may be due within {within}; what is accepted meanwhile comes on top")
    if found.without_history:
        out.print(f"{found.without_history:,} of them cannot be judged: their templates have too little history")
