"""What was measured: rows for the screen, and the same figures under fixed names for machines."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from benchmarks.meter import Spent


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    part: str
    measure: str
    value: str
    remark: str


@dataclass
class Figures:
    """Collects the figures of a run."""

    rows: list[Row] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    part: str = ""

    def add(self, measure: str, value: str, remark: str = "", **named: float) -> None:
        """Add a row; ``named`` values go into the JSON as ``<part>.<name>``."""
        self.rows.append(Row(self.part, measure, value, remark))
        self.values.update({f"{self.part}.{name}": value for name, value in named.items()})

    def add_rate(self, measure: str, rate: float, spent: Spent, count: int, remark: str = "", **named: float) -> None:
        """Add a rate, beside the one that the cores allow at what it cost in all. A rate above that is refused."""
        most = spent.most_per_s(count)
        allowed = f"{_cores()} cores allow {most:,.0f}"
        if rate > most:
            self.add(measure, "refused", f"counted {rate:,.0f}/s; {allowed}/s at {spent.all_us(count):,.0f} µs")
        else:
            self.add(measure, f"{rate:,.0f}/s", f"{allowed}; {remark}" if remark else allowed, **named)

    def add_as(self, key: str, value: float) -> None:
        """Put a value into the JSON under a name of its own."""
        self.values[key] = value

    def table(self, title: str) -> Table:
        """Return the table."""
        table = Table(title=title, title_justify="left", caption_justify="left")
        table.add_column("part")
        table.add_column("measure")
        table.add_column("result", justify="right")
        table.add_column("remark", style="dim")
        last = None
        for row in self.rows:
            if last not in (None, row.part):
                table.add_section()
            table.add_row(row.part if row.part != last else "", row.measure, row.value, row.remark)
            last = row.part
        return table

    def markdown(self, title: str) -> str:
        """Return the table as documents show it."""
        lines = [f"{title}:", "", "| part | measure | result | |", "|---|---|---|---|"]
        lines += [f"| `{row.part}` | {row.measure} | {row.value} | {row.remark} |" for row in self.rows]
        return "\n".join(lines) + "\n"

    def write(self, path: Path) -> None:
        """Write the JSON, rounded to what was measured."""
        path.write_text(json.dumps({k: float(f"{v:.4g}") for k, v in sorted(self.values.items())}, indent=2) + "\n")


def _cores() -> int:
    return os.cpu_count() or 1


def median(values: Iterable[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def spread(values: Iterable[float]) -> str:
    """Say how far apart the rounds were."""
    all_ = sorted(values)
    return f"{len(all_)} rounds, {all_[0]:,.0f} to {all_[-1]:,.0f}"
