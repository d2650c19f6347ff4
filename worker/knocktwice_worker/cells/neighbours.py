"""Connections to the other cells, each made when it is first used."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice import address
from knocktwice.broker import KombuBroker
from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.database import engine
from knocktwice_worker.embedded.installation import connect_redis, sqlalchemy_url

if TYPE_CHECKING:
    from redis import Redis
    from sqlalchemy import Engine

    from knocktwice_shared.cells import Cell, Cells

#: Seconds that another cell gets to accept a message.
_TIMEOUT_S = 1.0
#: Seconds that another cell gets to count texts. All texts of a batch wait for it, also those to numbers of other
#: cells.
_COUNTING_S = 0.5
_IDLE = timedelta(seconds=20)


class Neighbours:
    """The cells, seen from one of them.

    Args:
        cells: all cells.
        name: this one's name.
    """

    def __init__(self, cells: Cells, name: str) -> None:
        self.cells = cells
        self.own = cells.named(name)
        self._redis: dict[int, Redis] = {}
        self._engines: dict[int, Engine] = {}
        self._brokers: dict[int, KombuBroker] = {}

    @property
    def others(self) -> list[Cell]:
        """The other cells."""
        return [cell for cell in self.cells.all if cell is not self.own]

    def redis(self, cell: Cell) -> Redis:
        """Return a client of a cell's Redis, which waits only briefly."""
        if cell.number not in self._redis:
            self._redis[cell.number] = connect_redis(cell.broker, timeout_s=_COUNTING_S, hurried=True)
        return self._redis[cell.number]

    def broker(self, cell: Cell) -> KombuBroker:
        """Return the broker that accepts messages for a cell."""
        if cell.number not in self._brokers:
            self._brokers[cell.number] = KombuBroker(address.find(cell.broker), _TIMEOUT_S)
        return self._brokers[cell.number]

    def engine(self, cell: Cell) -> Engine:
        """Return the engine of a cell's database.

        Raises:
            KnocktwiceError: the file does not say where it is.
        """
        if cell.database is None:
            raise KnocktwiceError(
                f"the file of cells names no database of cell {cell.name}; workers and operators need it"
            )
        if cell.number not in self._engines:
            self._engines[cell.number] = engine.create(sqlalchemy_url(cell.database), pool_size=2, idle=_IDLE)
        return self._engines[cell.number]

    def other_engines(self) -> list[Engine]:
        """Return the engines of the other cells' databases."""
        return [self.engine(other) for other in self.others]

    def close(self) -> None:
        """Close all connections."""
        for client in self._redis.values():
            client.close()
        for broker in self._brokers.values():
            broker.close()
        for one in self._engines.values():
            one.dispose()
