"""``make bench``: every figure the documents name, from one command, on this machine."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks import quick
from benchmarks.figures import Figures
from benchmarks.installation import Installation
from benchmarks.provider import Unavailable

#: In the order of the table; each is a module here with ``measure(installation, figures)``.
PARTS = (
    "pipeline",
    "single",
    "push",
    "timers",
    "receipts",
    "gateway",
    "application",
    "limits",
    "blast",
    "critical",
    "metrics",
    "growth",
)
#: Measured only where they are asked for: ten million notifications take 18 GB of disk, and what stands behind them is
#: for who asks.
ON_REQUEST = ("tab", "cells", "partitions", "snapshot", "pooled")


#: What a quick run measures unless it is told otherwise.
QUICK_PARTS = ("pipeline", "single", "growth")


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS + ON_REQUEST)}")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--markdown", type=Path, help="also write the table to this file, as docs/performance.md has it"
    )
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else list(QUICK_PARTS if quick.on else PARTS)
    if unknown := set(wanted) - {*PARTS, *ON_REQUEST}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS + ON_REQUEST)}")
    console = Console(width=None if os.isatty(1) else 150)
    figures, started = Figures(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="knocktwice-bench-") as home:
        # PostgreSQL does not run as root and has to get to its data.
        Path(home).chmod(0o711)
        try:
            with Installation(Path(home)) as here:
                for part in wanted:
                    _measure(part, here, figures, console)
        except Unavailable as error:
            parser.exit(1, f"The benchmarks need a fast stand-in for FCM and Twilio: {error}\n")
    minutes = (time.monotonic() - started) / 60
    title = f"knocktwice on {_machine()}, {minutes:.1f} minutes"
    console.print(figures.table(title))
    if arguments.markdown:
        arguments.markdown.write_text(figures.markdown(title))
    if arguments.json:
        figures.write(arguments.json)
    if any(row.measure == "failed" for row in figures.rows):
        parser.exit(1)


def _measure(part: str, here: Installation, figures: Figures, console: Console) -> None:
    console.print(f"measuring {part} …", style="dim")
    figures.part = part
    try:
        importlib.import_module(f"benchmarks.{part}").measure(here, figures)
    except Unavailable as error:
        figures.add("skipped", "-", str(error))
    except Exception:  # noqa: BLE001 - a boundary
        # What the other parts show is not lost, and make fails all the same.
        console.print_exception(max_frames=10)
        figures.add("failed", "-", "see above")


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
