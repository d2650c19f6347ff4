"""``knocktwice whatif``: what other rules would have made of the last days."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import AFTER_LIMIT, When
from knocktwice_worker.cli.output import AsJson, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.config import UnconfirmedPolicy
from knocktwice_worker.notation import durations
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from knocktwice_worker.evidence.whatif import Rules

#: The longest history that is read.
_LONGEST = timedelta(days=90)


def whatif(
    since: Annotated[str, typer.Option(help="How far back, like 7d.")] = "7d",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="after=10m, when=not_clicked or unconfirmed=accept; repeat. Left out: as it was."),
    ] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Decide the last days' fallbacks again, by the rules as they were and by others. Changes nothing.

    Under the rules as they were every decision must come out as recorded; exits 1 if one does not.

    Example: knocktwice whatif --since 7d --set after=10m
    """
    from knocktwice_worker.evidence import whatif as evidence

    try:
        span = durations.typed(since, _LONGEST)
    except ValueError as error:
        raise InvalidMessage("since", str(error)) from None
    with reading(services()) as conn:
        found = evidence.compare(conn, span, _rules(set_ or ()))
    if as_json:
        print_json(found.as_json())
    else:
        table = Table("verdict")
        table.add_column("as it was", justify="right")
        table.add_column("otherwise", justify="right")
        for verdict in sorted(found.recorded.keys() | found.otherwise.keys()):
            table.add_row(verdict, str(found.recorded[verdict]), str(found.otherwise[verdict]))
        was, would = evidence.messages(found.recorded), evidence.messages(found.otherwise)
        table.add_section()
        table.add_row("messages", str(was), str(would), style="bold")
        print_table(table, as_csv=as_csv)
        if not as_csv:
            out.print(f"{found.decisions} decisions; under the rules as they were {len(found.differing)} differ")
    if found.differing:
        raise typer.Exit(1)


def _rules(given: list[str] | tuple[()]) -> Rules:
    """Read NAME=VALUE pairs; all that is wrong is said at once."""
    from knocktwice_worker.evidence.whatif import Rules

    after, when, unconfirmed = None, None, None
    wrong = []
    for pair in given:
        name, _, value = pair.partition("=")
        try:
            if name == "after":
                after = durations.typed(value, AFTER_LIMIT)
            elif name == "when":
                when = When(value)
            elif name == "unconfirmed":
                unconfirmed = UnconfirmedPolicy(value)
            else:
                wrong.append(InvalidMessage("set", f"{name!r} is not known; there are after, when and unconfirmed"))
        except ValueError as error:
            wrong.append(InvalidMessage(f"set.{name}", str(error)))
    if wrong:
        raise InvalidMessage.of(wrong)
    return Rules(after, when, unconfirmed)
