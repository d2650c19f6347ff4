"""The pipeline in one, two and four cells on one machine.

It measures the cost of a notification, and how late the other cells are while one stands still.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import quick
from benchmarks.contestants import Fed, Ours, Rows
from benchmarks.figures import median
from benchmarks.history import pending
from benchmarks.installation import WORKERS, Installation
from benchmarks.meter import Spent
from benchmarks.meter import measure as metered
from knocktwice import Client
from knocktwice_shared import cells as naming
from knocktwice_shared.names import BATCH_LIMIT, INBOX_MESSAGES
from support.cell_system import described
from support.own_valkey import OwnValkey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.figures import Figures
    from knocktwice_worker.embedded.children import Child

NUMBERS = (1, 2, 4)
ROUNDS, COUNT = quick.of(1, 3), quick.of(12_000, 24_000)
#: Fallbacks that become due in each cell within :data:`OVER_S` seconds, while one cell stands still.
DUE, OVER_S = quick.of((1_000, 10), (4_000, 20))


@dataclass(frozen=True)
class Cell:
    """One installation of several.

    Attributes:
        name: in the file of cells.
        database_url: its database; the cells share a server, so that PostgreSQL's own work counts once.
        valkey: its broker.
        env: what its workers and commands need to know.
    """

    name: str
    database_url: str
    valkey: OwnValkey
    env: Mapping[str, str]


class InCells(Ours):
    """knocktwice in several cells, fed by one application."""

    def __init__(self, here: Installation, cells: Sequence[Cell], workers: list[Child], client: Client) -> None:
        super().__init__(here, cells[0].database_url, workers, client, BATCH_LIMIT * len(cells))
        self._others = [Rows(cell.database_url, "notifications") for cell in cells[1:]]
        self._brokers = [cell.valkey.client for cell in cells]

    def ended(self) -> int:
        """See :class:`~benchmarks.contestants.Contestant`."""
        return super().ended() + sum(other.ended() for other in self._others)

    def waiting(self) -> int:
        """How many messages the fullest cell has."""
        return max(int(broker.hlen(INBOX_MESSAGES)) for broker in self._brokers)


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures: each number of cells once in each round, so that all see the machine in the same moods."""
    costs: dict[int, list[Spent]] = {number: [] for number in NUMBERS}
    for n in range(ROUNDS):
        for number in NUMBERS:
            with _running(here, number, here.home / f"cells-{number}-{n}") as (cells, workers):
                costs[number].append(_run(here, cells, workers))
                if number == max(NUMBERS) and n == ROUNDS - 1:
                    late = {
                        word: _others_late(here, cells, workers, still=word == "still") for word in ("all", "still")
                    }
    one = median(spent.all_us(COUNT) for spent in costs[1])
    for number, spents in costs.items():
        cost = median(spent.all_us(COUNT) for spent in spents)
        remark = f"{cost / one:.2f} times; {spents[-1].shares(COUNT)}"
        figures.add(f"{number} cell{'s' * (number > 1)}", f"{cost:,.0f} µs", remark, ratio=cost / one)
    figures.add(
        "lateness, 99 of 100, all cells there", f"{late['all']:.2f} s", f"{DUE:,} in each of {max(NUMBERS)} cells"
    )
    figures.add("the others', while one stands still", f"{late['still']:.2f} s", "target: 1 s at most")


@contextmanager
def _running(here: Installation, number: int, folder: Path) -> Iterator[tuple[list[Cell], list[list[Child]]]]:
    """Run cells, as many workers in all as one installation has or one each, and put their file in force."""
    folder.mkdir()
    with ExitStack() as stack:
        names = [f"cell{n}" for n in range(number)]
        valkeys = [stack.enter_context(OwnValkey(folder / name)) for name in names]
        databases = [here.database() for _ in names]
        file = folder / "cells.toml"
        file.write_text(described(names, [valkey.url for valkey in valkeys], databases))
        cells = [
            Cell(
                name,
                database,
                valkey,
                here.environment(database, here.provider.url)
                | {
                    "KNOCKTWICE_BROKER_URL": valkey.url,
                    "KNOCKTWICE_CELLS_FILE": str(file),
                    "KNOCKTWICE_CELL": name,
                    "KNOCKTWICE_WITHDRAW": "False",
                },
            )
            for name, valkey, database in zip(names, valkeys, databases, strict=True)
        ]
        adopt = [sys.executable, "-m", "knocktwice_worker.cli", "cells", "adopt"]
        subprocess.run(adopt, env=dict(cells[0].env), check=True, stdout=subprocess.DEVNULL)
        for cell in cells:
            # As on any day but the first, on which PostgreSQL is asked, too.
            run_id = cell.valkey.client.info("server")["run_id"]
            cell.valkey.client.hset("{knocktwice:sms}:complete", mapping={"run": run_id, "complete": 0})
        each = max(1, WORKERS // number)
        yield (
            cells,
            [stack.enter_context(here.workers("benchmarks.trusting", env=cell.env, count=each)) for cell in cells],
        )


def _run(here: Installation, cells: Sequence[Cell], workers: Sequence[list[Child]]) -> Spent:
    everybody = list(itertools.chain(*workers))

    def roles() -> dict[str, list[int]]:
        return here.roles(everybody)() | {"valkey": [cell.valkey.pid for cell in cells]}

    with Client(cells=cells[0].env["KNOCKTWICE_CELLS_FILE"]) as client:
        warm = InCells(here, cells, everybody, client)
        warm.feed(2 * 8 * BATCH_LIMIT * len(cells))
        here.wait(lambda: warm.ended() >= 2 * 8 * BATCH_LIMIT * len(cells), everybody, every_s=1)
        contestant = InCells(here, cells, everybody, client)
        with metered(roles) as spent:
            fed: Fed = contestant.feed(COUNT)
            here.wait(lambda: contestant.ended() >= COUNT, everybody, every_s=1)
        spent.cpu_s["application"] = fed.cpu_s
    return spent


def _others_late(here: Installation, cells: Sequence[Cell], workers: Sequence[list[Child]], *, still: bool) -> float:
    """Return the lateness of 99 of 100 fallbacks of all cells but the first, which may stand still meanwhile."""
    stopped = [cells[0].valkey.pid, *(child.pid for child in workers[0])] if still else []
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        engines = [sa.create_engine(cell.database_url, poolclass=sa.NullPool) for cell in cells[1:]]
        soon = {"due": timedelta(seconds=3), "over": timedelta(seconds=OVER_S)}
        ids = [pending(engine, DUE, **soon) for engine in engines]
        late = []
        for engine, own, group in zip(engines, ids, workers[1:], strict=True):
            counted = _counted_elsewhere(engine, own, cells[0])
            here.wait(lambda e=engine, c=counted: len(_lateness(e, c)) >= len(c), group, every_s=0.5)  # type: ignore[misc]
            late += _lateness(engine, counted)
        return sorted(late)[len(late) * 99 // 100]
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def _counted_elsewhere(engine: sa.Engine, ids: Sequence[str], cell: Cell) -> list[str]:
    """Return the notifications to numbers whose home is another cell. All others wait while it is away, by design."""
    query = """
    SELECT n.id, p.number FROM notifications n JOIN phones p USING (user_id)
    WHERE n.id = ANY(CAST(:ids AS uuid[]))
    """
    cells = naming.read(Path(cell.env["KNOCKTWICE_CELLS_FILE"]))
    with engine.connect() as conn:
        found = conn.execute(sa.text(query), {"ids": list(ids)}).all()
    return [str(row.id) for row in found if cells.of(naming.number(row.number)).name != cell.name]


def _lateness(engine: sa.Engine, ids: Sequence[str]) -> list[float]:
    """Return how late the decisions were that have been taken about these notifications, in seconds."""
    query = """
    SELECT extract(epoch FROM min(l.at) - min(d.due_at))
    FROM decisions l JOIN deliveries d ON d.notification_id = l.notification_id AND d.step = 1
    WHERE l.notification_id = ANY(CAST(:ids AS uuid[]))
    GROUP BY l.notification_id
    """
    with engine.connect() as conn:
        return [float(late) for late in conn.execute(sa.text(query), {"ids": list(ids)}).scalars()]
