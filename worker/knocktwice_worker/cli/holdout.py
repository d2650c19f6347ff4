"""``knocktwice holdout``: what the SMS are worth."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.cli.output import AsJson, out, print_json, reading
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.notation import durations
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from knocktwice_worker.evidence.holdout import Difference, Result

#: The longest history that is read.
_LONGEST = timedelta(days=365)


def holdout(
    since: Annotated[str, typer.Option(help="How far back, like 30d.")] = "30d",
    within: Annotated[str, typer.Option(help="The time that people had to answer, like 1d.")] = "1d",
    template: Annotated[str | None, typer.Option(help="Only messages with this template.")] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Show what the SMS are worth: who answered with one, and who without.

    KNOCKTWICE_HOLDOUT_SHARE=0.05 leaves one in twenty due SMS out, KNOCKTWICE_PROBE_SHARE lets some wait longer. An
    answer is a click, on the push or on a link of the SMS. Changes nothing.

    Example: knocktwice holdout --since 30d --template order-ready
    """
    from knocktwice_worker.evidence import holdout as evidence

    spans, wrong = {}, []
    for name, given in {"since": since, "within": within}.items():
        try:
            spans[name] = durations.typed(given, _LONGEST)
        except ValueError as error:
            wrong.append(InvalidMessage(name, str(error)))
    if wrong:
        raise InvalidMessage.of(wrong)
    if spans["within"] >= spans["since"]:
        raise InvalidMessage("within", "must be shorter than --since, or nobody has had the time to answer")
    with reading(services()) as conn:
        found = evidence.compare(conn, spans["since"], spans["within"], template)
    if as_json:
        print_json(found.as_json())
        return
    table = Table("group")
    for heading in ("notifications", "answered", "share", "texted", "parts"):
        table.add_column(heading, justify="right")
    for arm, group in found.groups.items():
        share = "" if group.share is None else f"{100 * group.share:.1f} %"
        table.add_row(
            arm.replace("_", " "), *map(str, (group.notifications, group.answered, share, group.texted, group.parts))
        )
    print_table(table, as_csv=as_csv)
    if not as_csv:
        for line in _said(found):
            out.print(line)


def _said(found: Result) -> list[str]:
    if found.uplift is None:
        return ["Nothing can be said yet: set KNOCKTWICE_HOLDOUT_SHARE, and wait until people had the time to answer."]
    lines = [f"With the SMS {_points(found.uplift)} more of 100 answer."]
    if found.parts_per_answer is not None:
        lines.append(f"One more answer takes {found.parts_per_answer:.1f} SMS parts.")
    else:
        lines.append("That may be chance: the interval holds 0.")
    if found.needless is not None:
        lines.append(f"Of those who waited longer, {_points(found.needless)} of 100 answered meanwhile.")
    return lines


def _points(found: Difference) -> str:
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f} with 95 %)"
