"""The file of cells in force: each cell's Redis holds its digest, and nobody counts texts there with another file.

To put a file in force, all counting stops first, in all cells: from then on no worker counts by the old file. Then all
counters are declared incomplete, because some numbers have another home now, and the new digest is written. Texts to
numbers wait meanwhile, which takes a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_worker.limits.asks import TAG
from knocktwice_worker.limits.homes import AGREEMENT as AGREEMENT

if TYPE_CHECKING:
    from knocktwice_worker.cells.neighbours import Neighbours

#: Nobody's digest: no worker counts.
_MOVING = "moving"


def adopt(neighbours: Neighbours, agreement: str) -> None:
    """Put this process's file of cells in force in all cells. All must answer; if it fails half-way, call it again.

    Args:
        agreement: the file's digest.

    Raises:
        RedisError: a cell does not answer. Texts wait until this was repeated with success.
    """
    homes = [neighbours.redis(cell) for cell in neighbours.cells.all]
    for redis in homes:
        redis.ping()
    for redis in homes:
        redis.set(AGREEMENT, _MOVING)
    for redis in homes:
        redis.delete(f"{TAG}:complete")
    for redis in homes:
        redis.set(AGREEMENT, agreement)


def restore(neighbours: Neighbours, agreement: str) -> None:
    """Write the digest into this cell's Redis if that was wiped, and all others go by the same file.

    Raises:
        RedisError: a cell does not answer.
    """
    own = neighbours.redis(neighbours.own)
    if not neighbours.others or own.exists(AGREEMENT):
        return
    others = {neighbours.redis(cell).get(AGREEMENT) for cell in neighbours.others}
    if others == {agreement.encode()}:
        # Incomplete before anybody may count. NX: an adoption that began meanwhile has the last word.
        own.delete(f"{TAG}:complete")
        own.set(AGREEMENT, agreement, nx=True)
