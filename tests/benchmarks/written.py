"""What a piece of work leaves on the servers: bytes of WAL, row versions, round trips.

PostgreSQL's statistics of a table lag behind until a connection ends. So row versions are read when the workers are
gone, for all that they did in their database; the other figures are read for each round.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

if TYPE_CHECKING:
    from redis import Redis

#: Where the workers of :func:`count_statements` keep their counts.
_FOLDER = "BENCHMARK_STATEMENTS"


@dataclass(frozen=True)
class Written:
    """Figures of the servers, since they started or between two looks.

    Attributes:
        wal_bytes: what PostgreSQL wrote to its log.
        statements: what our workers sent to PostgreSQL, commits included; other workers do not count them.
        commands: requests that Valkey read; several commands sent together are one.
    """

    wal_bytes: int
    statements: int
    commands: int

    def since(self, before: Written) -> Written:
        """Return what came after another look."""
        return Written(
            self.wal_bytes - before.wal_bytes, self.statements - before.statements, self.commands - before.commands
        )


def look(engine: sa.Engine, redis: Redis, folder: Path) -> Written:
    """Read the figures of now."""
    with engine.connect() as conn:
        wal = conn.execute(sa.text("SELECT pg_current_wal_insert_lsn() - '0/0'")).scalar_one()
    statements = sum(struct.unpack("q", file.read_bytes())[0] for file in folder.glob("*.statements"))
    return Written(int(wal), statements, int(redis.info("stats")["total_reads_processed"]))


def row_versions(engine: sa.Engine) -> int:
    """Return how many row versions were written in a database since it was made; its writers must have ended."""
    with engine.connect() as conn:
        return int(
            conn.execute(
                sa.text("SELECT coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0) FROM pg_stat_user_tables")
            ).scalar_one()
        )


def counting(folder: Path) -> dict[str, str]:
    """Return the environment of a worker that counts its statements in this folder."""
    return {_FOLDER: str(folder)}


def count_statements() -> None:
    """Count this process's round trips to PostgreSQL, in memory that is shared with a file."""
    folder = os.environ.get(_FOLDER)
    if folder is None:
        return
    path = Path(folder) / f"{os.getpid()}.statements"
    path.write_bytes(bytes(8))
    with path.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 8)
    seen = 0

    def one_more(*_: Any) -> None:
        nonlocal seen
        seen += 1
        struct.pack_into("q", shared, 0, seen)

    for name in ("after_cursor_execute", "commit", "rollback"):
        event.listen(sa.Engine, name, one_more)
