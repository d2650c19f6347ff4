"""Where a blast stands: it is found by its key or id, and watched until it has ended."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from knocktwice_shared.counted import many
from knocktwice_worker.blasts import standing
from knocktwice_worker.blasts.states import BlastState
from knocktwice_worker.cli.output import fail, out, reading
from knocktwice_worker.cli.progress import progress
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from knocktwice_worker.blasts.standing import Standing

#: Seconds between two looks at a blast that is watched.
_LOOK_EVERY_S = 0.5


def find(conn: Connection, blast: str) -> Standing:
    """Return a blast by its key or id; end the command if there is none."""
    return standing.find(conn, blast) or fail(f"there is no blast {blast}; 'knocktwice blast list' lists them")


def watch(blast: str) -> None:
    """Show a blast's progress until it has ended; end the command if it was aborted."""
    with progress("starting") as bar:
        while True:
            with reading(services()) as conn:
                row = find(conn, blast)
            bar.update(done=row.sent, total=row.total if row.expanded_at else None, doing=row.state)
            if row.finished_at:
                break
            time.sleep(_LOOK_EVERY_S)
    if row.state is BlastState.ABORTED:
        fail(f"blast {row.key} was aborted: {row.reason}")
    out.print(f"blast {row.key}: {many(row.sent, 'person was', 'people were')} notified", markup=False)
