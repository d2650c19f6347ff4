"""Limits over cells: a number's texts are counted in one cell, whichever cells send them.

The number's *home* is the cell of its slot. A cell asks the home's Redis with the same script as its own. While the
home does not answer, the text waits, in every category: nobody else knows what the other cells have sent to the number.

Two cells with different files would take different cells for a number's home, and each would count alone. So each
cell's Redis holds the digest of the file in force, and the script counts for nobody with another one
(``knocktwice cells adopt``).
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from knocktwice_shared import cells as naming
from knocktwice_worker.lifecycle import Delay
from knocktwice_worker.limits.asks import TAG, Answer
from knocktwice_worker.limits.counting import Counting
from knocktwice_worker.limits.in_postgres import known_rows, unsent_in_postgres
from knocktwice_worker.limits.per_number import LimitsUnavailable, RedisLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from redis import Redis
    from sqlalchemy import Connection, Engine

    from knocktwice_shared.cells import Cells
    from knocktwice_worker.limits.asks import Ask, Limits
    from knocktwice_worker.limits.in_postgres import Known

log = structlog.get_logger(__name__)

#: The key of the digest of the file of cells in force.
AGREEMENT = f"{TAG}:cells"
#: Seconds for which a home that did not answer is not asked again, so that its numbers do not hold up the others.
_REST_S = 5.0


class HomeLimits(RedisLimits):
    """The counters of one cell, for all texts to the numbers whose home it is.

    Args:
        redis: the cell's Redis.
        limits: the limits.
        agreement: the digest of this process's file of cells.
        others: makes the engines of the other cells' databases, whose rows count when the cell's Redis was wiped.

    All that keeps it from counting is raised as :class:`LimitsUnavailable`.
    """

    def __init__(self, redis: Redis, limits: Limits, agreement: str, others: Callable[[], Sequence[Engine]]) -> None:
        self._agreement = agreement
        self._others = others
        super().__init__(redis, limits)

    def _text(self) -> str:
        # In the script itself, so that no count can begin with one file and end with another.
        guard = f"if redis.call('GET', '{AGREEMENT}') ~= '{self._agreement}' then return {{'moved'}} end\n"
        return guard + super()._text()

    def _known(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[tuple[list[str], str]]:
        told = [known_rows(conn, asks, self.limits, now)]
        try:
            for engine in self._others():
                with engine.connect() as other:
                    told.append(known_rows(other, asks, self.limits, now))
        except SQLAlchemyError as error:
            raise LimitsUnavailable from error
        most = [self.limits.level(of).per_day or 1_000 for ask in asks for of in self.limits.levels(ask)]
        return [_together(rows, limit) for *rows, limit in zip(*told, most, strict=True)]

    def _unsent(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Ask]:
        told = unsent_in_postgres(conn, asks, self.limits, now)
        for engine in self._others():
            # What a cell that does not answer has not sent stays counted, which only makes the limits stricter.
            with suppress(SQLAlchemyError), engine.connect() as other:
                told += unsent_in_postgres(other, asks, self.limits, now)
        return told

    def _run(self, keys: Sequence[str], args: Sequence[str | float]) -> list[bytes]:
        try:
            answer = super()._run(keys, args)
        except RedisError as error:
            raise LimitsUnavailable from error
        if answer[0] == b"moved":
            raise LimitsUnavailable
        return answer


def _together(known: Sequence[Known], most: int) -> tuple[list[str], str]:
    """Return what all databases know of a number: sent messages first, then reservations by age, cut at the limit."""
    today = sorted(one for rows in known for one in rows.today)[:most]
    holders = sorted(rows.holder for rows in known if rows.holder is not None)
    return [id_ for _, _, id_ in today], holders[0][2] if holders else ""


@dataclass(frozen=True, kw_only=True)
class CellCounting(Counting):
    """Counts each message in the home of its number.

    Attributes:
        redis: this cell's own counters.
        cells: the cells.
        homes: a cell's number → its counters.
        away: a cell's number → until when it is not asked, on the monotonic clock.
    """

    cells: Cells
    homes: Mapping[int, HomeLimits]
    away: dict[int, float] = field(default_factory=dict)

    def count(self, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Answer]:
        """Count messages against their numbers. Those whose home does not answer wait, in every category.

        Args:
            conn: the transaction that writes the reservations.
            asks: one per message, oldest first.
            now: the database's clock.

        Returns:
            One answer per ask, in the same order.
        """
        answers = [Answer(Delay.LIMITS_UNAVAILABLE, 0)] * len(asks)
        for home, places in self._by_home(asks).items():
            try:
                counted = self._count_at(home, conn, [asks[place] for place in places], now)
            except LimitsUnavailable:
                log.warning("texts wait for the cell that counts their numbers", cell=home, messages=len(places))
                continue
            for place, answer in zip(places, counted, strict=True):
                answers[place] = answer
        return answers

    def _counters(self, asks: Sequence[Ask]) -> Iterable[tuple[RedisLimits, Sequence[Ask]]]:
        """Yield the counters of these messages' numbers, each with its own messages."""
        for home, places in self._by_home(asks).items():
            yield self.homes[home], [asks[place] for place in places]

    def forget(self, numbers: Sequence[str], now: datetime) -> None:
        """Delete the counters of numbers whose owner is erased. Where that fails they expire within two days."""
        homes: dict[int, list[str]] = {}
        for number in numbers:
            homes.setdefault(self._home(number), []).append(number)
        for home, own in homes.items():
            try:
                self.homes[home].forget(own, now)
            except RedisError:
                log.warning("counters of erased numbers not deleted", numbers=len(own))

    def _count_at(self, home: int, conn: Connection, asks: Sequence[Ask], now: datetime) -> list[Answer]:
        if time.monotonic() < self.away.get(home, 0.0):
            raise LimitsUnavailable
        try:
            return self.homes[home].count(conn, asks, now)
        except LimitsUnavailable:
            self.away[home] = time.monotonic() + _REST_S
            raise

    def _by_home(self, asks: Sequence[Ask]) -> dict[int, list[int]]:
        homes: dict[int, list[int]] = {}
        for place, ask in enumerate(asks):
            homes.setdefault(self._home(ask.number), []).append(place)
        return homes

    def _home(self, number: str) -> int:
        return self.cells.of(naming.number(number)).number
