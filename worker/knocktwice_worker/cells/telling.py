"""Telling the other cells who opted out or in: each cell follows its own log of opt-outs, once for each other cell.

The position in the log is committed when the other cell has accepted what was read. So a cell that was away is told
everything once it is back, in whatever order it came down. What comes back from there is void, because a repeat has the
same time, and is not logged again.
"""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from knocktwice.envelope import Outgoing
from knocktwice_shared.counted import many
from knocktwice_shared.errors import BrokerUnavailable
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import BATCH_LIMIT, VERSION, Task
from knocktwice_worker.notifications.store import change_feed

if TYPE_CHECKING:
    from sqlalchemy import Engine, Row

    from knocktwice_shared.cells import Cell
    from knocktwice_worker.cells.neighbours import Neighbours

#: The longest span of the log that is told at once. The log is not kept for longer (``opt_out_log.py``).
_MOST = timedelta(days=90)

# What changed nothing here may change something there: an opt-in may have overtaken the opt-out that it ends.
_SAID = text("""
SELECT number, opted_out, source, at, channel
FROM opt_out_changes
WHERE noted_at > :after AND noted_at <= :until AND number <> ''
ORDER BY at, number
""")


def tell(engine: Engine, neighbours: Neighbours) -> None:
    """Tell each other cell what was said here since it was told last.

    Raises:
        BrokerUnavailable: a cell is away. The others were told, and it is told when it is back.
    """
    away: BrokerUnavailable | None = None
    for cell in neighbours.others:
        try:
            while _tell(engine, neighbours, cell):
                pass
        except BrokerUnavailable as error:
            away = error
    if away is not None:
        raise away


def _tell(engine: Engine, neighbours: Neighbours, cell: Cell) -> bool:
    """Tell a cell about one span of the log, and return whether there may be more."""
    follower = f"cell {cell.name}"
    with engine.begin() as conn:
        change_feed.join(conn, follower, neighbours.cells.since)
        window = change_feed.window(conn, follower, most=_MOST)
        if window is None:
            return False
        said = conn.execute(_SAID, {"after": window.after, "until": window.until}).all()
        neighbours.broker(cell).accept(
            _message([_change(row) for row in said[first : first + BATCH_LIMIT]])
            for first in range(0, len(said), BATCH_LIMIT)
        )
        change_feed.seen(conn, follower, window.until)
    return window.until - window.after >= _MOST


def _change(row: Row[Any]) -> dict[str, Any]:
    said = {
        "change": "opt_out" if row.opted_out else "opt_in",
        "phone": row.number,
        "source": row.source,
        "at": row.at.astimezone(UTC).isoformat(),
    }
    return said if row.channel is None else {**said, "channel": row.channel}


def _message(changes: list[dict[str, Any]]) -> Outgoing:
    told = {"v": VERSION, "changes": changes}
    return Outgoing.encode(uuid7(), Task.UPDATE_AUDIENCE, told, many(len(changes), "change"))
