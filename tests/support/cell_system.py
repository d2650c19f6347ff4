"""Cells: whole installations, each with a database and a Valkey of its own, whose workers do what they are told to."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared import cells as naming
from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_MESSAGES, Task
from knocktwice_worker.cells import agreement, neighbours, telling
from knocktwice_worker.config import Settings
from knocktwice_worker.limits.asks import TAG
from knocktwice_worker.limits.homes import CellCounting
from knocktwice_worker.sandbox import Sandbox
from knocktwice_worker.services import Services, connections
from support import worker_tasks
from support.databases import lent_database
from support.own_valkey import OwnValkey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from knocktwice_shared.cells import Cells
    from knocktwice_worker.embedded.servers import Servers

#: How long the transactions of cells may be idle.
PATIENCE = timedelta(minutes=10)
#: A while ago, so that every id that a test makes carries its cell.
SINCE = "2026-01-01T00:00:00Z"
_EMPTY = """
TRUNCATE users, devices, phones, opt_outs, opt_out_changes, segments, batches, notifications, deliveries, attempts, events,
  decisions, followers, rollups, blasts, blast_pages, api_keys CASCADE
"""


@dataclass
class RunningCell:
    """One installation.

    Attributes:
        name: in the file of cells.
        valkey: its broker, which can be killed.
        here: its services.
    """

    name: str
    valkey: OwnValkey
    here: Services

    def accept(self) -> int:
        """Carry out what was accepted, in order, and return how many messages that were."""
        ids: Any = self.valkey.client.zrange(INBOX_ACCEPTED, 0, -1)
        for id_ in ids:
            entry: Any = self.valkey.client.hget(INBOX_MESSAGES, id_)
            if entry is None:
                # It was carried out before the decision about a person that it concerns.
                continue
            told = json.loads(entry)
            task = Task(told["task"])
            self.here.inbox.carry_out(task, id_.decode(), told["message"], self.here.accepted[task])
        return len(ids)

    def work(self) -> None:
        """Carry out what was accepted, and do what is due until nothing is."""
        self.accept()
        worker_tasks.work(self.here)

    def again(self) -> None:
        """Let what waits for a cell that was away be due now."""
        counting = self.here.counting
        assert isinstance(counting, CellCounting)
        counting.away.clear()
        with self.here.engine.begin() as conn:
            conn.exec_driver_sql("UPDATE deliveries SET wake_at = knocktwice_now() WHERE state = 'scheduled'")

    def tell(self) -> None:
        """Tell the other cells about opt-outs."""
        assert self.here.neighbours is not None
        telling.tell(self.here.engine, self.here.neighbours)

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Ask this cell's database."""
        with self.here.engine.connect() as conn:
            return list(conn.execute(sa.text(query), values))


@dataclass
class CellSystem:
    """All cells.

    Attributes:
        file: the file of cells.
        cells: the cells, as the file says.
        running: the installations, in the same order.
        sandbox: stands in for all providers.
    """

    file: Path
    cells: Cells
    running: list[RunningCell]
    sandbox: Sandbox

    def adopt(self) -> None:
        """Put the file in force."""
        here = self.running[0].here
        assert here.neighbours is not None
        agreement.adopt(here.neighbours, here.agreement)

    def begin(self) -> None:
        """Forget earlier tests: every cell is there, has nothing, and goes by the file."""
        for one in self.running:
            one.valkey.start()
            one.valkey.client.flushall()
            one.again()
            with one.here.engine.begin() as conn:
                conn.exec_driver_sql(_EMPTY)
        self.adopt()

    def count_as_on_any_later_day(self) -> None:
        """Let counters be complete, so that nothing is looked up in PostgreSQL."""
        for one in self.running:
            server: Any = one.valkey.client.info("server")
            one.valkey.client.hset(f"{TAG}:complete", mapping={"run": server["run_id"], "complete": 0})

    def work(self) -> None:
        """Let every cell do what it can."""
        for one in self.running:
            one.work()

    def of(self, user: str) -> RunningCell:
        """Return the cell of a user."""
        return self._running(self.cells.of(naming.person(user, None, ())))

    def home(self, number: str) -> RunningCell:
        """Return the cell that counts a number's texts."""
        return self._running(self.cells.of(naming.number(number)))

    def users(self, cell: RunningCell, count: int, start: str = "u") -> list[str]:
        """Return so many users of a cell."""
        found = (f"{start}-{n}" for n in range(100_000))
        return [user for user, _ in zip((u for u in found if self.of(u) is cell), range(count), strict=False)]

    def _running(self, cell: naming.Cell) -> RunningCell:
        return next(one for one in self.running if one.name == cell.name)


@contextmanager
def running_cells(servers: Servers, folder: Path, names: Sequence[str]) -> Iterator[CellSystem]:
    """Run installations that share people, and put their file in force."""
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        sandbox = stack.enter_context(Sandbox())
        for name, value in sandbox.environment(folder).items():
            patch.setenv(name, value)
        # PostgreSQL ends a transaction that is idle for 20 seconds. On a busy machine this process may stand still for
        # as long between two statements; how stopped workers lose their locks is tested elsewhere.
        for module in (connections, neighbours):
            patch.setattr(module, "_IDLE", PATIENCE)
        valkeys = [stack.enter_context(OwnValkey(folder / name)) for name in names]
        urls = [stack.enter_context(lent_database(servers)) for _ in names]
        file = folder / "cells.toml"
        file.write_text(described(names, [one.url for one in valkeys], urls))
        running = []
        for name, valkey, url in zip(names, valkeys, urls, strict=True):
            own: dict[str, Any] = {"database_url": url, "broker_url": valkey.url, "cells_file": file, "cell": name}
            here = Services(Settings(secret="test", home=folder, **own))
            stack.callback(here.close)
            running.append(RunningCell(name, valkey, here))
        yield CellSystem(file, naming.read(file), running, sandbox)


def described(names: Sequence[str], brokers: Sequence[str], databases: Sequence[str]) -> str:
    """Return a file of cells with equal shares of the slots."""
    share, text = naming.SLOTS // len(names), f"since = {SINCE}\n"
    for number, name in enumerate(names):
        last = naming.SLOTS - 1 if number == len(names) - 1 else (number + 1) * share - 1
        text += (
            f'\n[[cell]]\nname = "{name}"\nnumber = {number}\nbroker = "{brokers[number]}"\n'
            f'database = "{databases[number]}"\nslots = "{number * share}-{last}"\n'
        )
    return text
