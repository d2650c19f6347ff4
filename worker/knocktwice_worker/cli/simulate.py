"""``knocktwice simulate``: an invented day under several sets of rules."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import structlog
import typer
from rich.table import Table

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker import config
from knocktwice_worker.cli.output import AsJson, out, print_json
from knocktwice_worker.cli.tables import AsCsv, print_table
from knocktwice_worker.notation import durations

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from knocktwice_worker.simulated.outcome import Outcome


def simulate(
    file: Annotated[str | None, typer.Argument(help="The day, as YAML.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(help="Draws people, traffic and luck; the same one repeats the day.", min=0)] = 1,
    show_example: Annotated[
        bool, typer.Option("--example", help="Print a file to begin with, and nothing else.")
    ] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
) -> None:
    """Let an invented day happen under several sets of rules, and compare them.

    The file says who there is (phones, habits, time zones), what is sent, what fails, and which rules are compared:
    delays, conditions, plans over SMS and WhatsApp, limits, paces, quiet hours. The real pipeline decides, on the real
    store; only the clock, the providers and the people are invented. Each set of rules meets the same people, the same
    notifications and the same luck, so what differs is the rules.

    It starts servers of its own in a temporary folder and touches no others. Rules that a set does not name are those
    of this environment (KNOCKTWICE_…). A day of 100,000 notifications takes some minutes for each set.

    A file to begin with is printed by --example.

    Example: knocktwice simulate day.yaml --seed 7
    """
    from knocktwice_worker.simulated import file as day_file

    if show_example:
        sys.stdout.write(day_file.example())
        return
    if file is None:
        raise InvalidMessage("file", "is missing; 'knocktwice simulate --example > day.yaml' writes one to begin with")
    day = day_file.read(file)
    settings = config.load()
    rules = {name: getattr(settings, name) for name in day_file.RULES}
    found = _run(day, seed, rules, quiet=as_json or as_csv)
    if as_json:
        lines = {name: one.as_json() for name, one in found.items()}
        print_json({"date": day.date.isoformat(), "seed": seed, "rules": lines})
        return
    print_table(_table(found), as_csv=as_csv)


def _run(day: Any, seed: int, rules: Mapping[str, Any], *, quiet: bool) -> dict[str, Outcome]:
    from knocktwice_worker.simulated.run import scratch

    # Every batch would say what it does.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    found: dict[str, Outcome] = {}
    with (
        tempfile.TemporaryDirectory(prefix="knocktwice-day-") as home,
        scratch(Path(home) / "home", day, seed) as there,
    ):
        for name in day.rules:
            began = time.monotonic()
            found[name] = there.run(name, rules)
            took = time.monotonic() - began
            if not quiet:
                out.print(f"{name}: {found[name].notifications:,} notifications in {took:.0f} s")
    return found


def _table(found: Mapping[str, Outcome]) -> Table:
    from knocktwice_worker.simulated.outcome import reasons

    outcomes = list(found.values())
    table = Table("")
    for name in found:
        table.add_column(name, justify="right")

    def line(label: str, *values: object) -> None:
        table.add_row(label, *(f"{one:,}" if isinstance(one, int) else str(one) for one in values))

    line("notifications", *(one.notifications for one in outcomes))
    line("reached by push", *(one.by_push for one in outcomes))
    line("clicked", *(one.clicked for one in outcomes))
    line("SMS sent", *(one.sms for one in outcomes))
    line("of these had seen it before", *(one.had_seen for one in outcomes))
    _line_if_any(line, "of these to pumped numbers", [one.pumped for one in outcomes])
    line("SMS parts", *(one.parts for one in outcomes))
    _line_if_any(line, "WhatsApp messages sent", [one.whatsapp for one in outcomes])
    line("cost", *("-" if one.cost is None else f"{one.cost:,.2f}" for one in outcomes))
    for span in outcomes[0].within:
        line(f"reached within {span}", *(one.within[span] for one in outcomes))
    line("reached at all", *(one.reached for one in outcomes))
    for reason in reasons(outcomes):
        line(f"suppressed: {reason}", *(one.suppressed.get(reason, 0) for one in outcomes))
    _line_if_any(line, "brakes and pumping found", [one.brakes for one in outcomes])
    _line_if_any(line, "waited for their turn", [one.waited for one in outcomes])
    _line_if_any(line, "most of these at once", [one.most_waiting for one in outcomes])
    _line_if_any(line, "longest wait", [_written(one.longest_wait_s) for one in outcomes])
    _line_if_any(line, "pushes that waited", [one.pushes_waited for one in outcomes])
    _line_if_any(line, "longest wait of a push", [_written(one.push_longest_wait_s) for one in outcomes])
    return table


def _line_if_any(line: Callable[..., None], label: str, values: Sequence[int | str]) -> None:
    if any(value not in (0, "0s") for value in values):
        line(label, *values)


def _written(seconds: float) -> str:
    return durations.written(timedelta(seconds=round(seconds)))
