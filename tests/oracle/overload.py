"""``make overload MESSAGES=1000000``: what a backlog does to the broker, to its callers and to the workers that come to
it late.

Nobody works while the messages come. Then the workers come back and work them off, and a judge compares what callers
were told with the rows, and what broker and workers used with what they may.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa

from knocktwice import Client, Push, QueueFull, Recipient, drafts, wire
from knocktwice_shared.names import INBOX_BACKLOG, INBOX_MESSAGES
from oracle.installation import Installation
from oracle.judge import judge
from oracle.records import Evidence
from oracle.records_of_load import Backlog
from support.system import eventually

if TYPE_CHECKING:
    from uuid import UUID

    from oracle.violations import Finding

#: Messages that one call sends.
_AT_ONCE = 200
_PUSH = Push("Hello", "Is anybody there?")


def problems(found: Backlog) -> list[Finding]:
    """Return what the judge says of a backlog."""
    return judge(Evidence(time.time(), backlogs=[found]))


def pile_up(home: Path, *, messages: int, limit: int) -> Backlog:
    """Let messages come while nobody works, and let workers work them off.

    Args:
        home: an empty folder.
        messages: how many notifications are asked for, each a message of its own.
        limit: the most messages that may wait.
    """
    settings = {"KNOCKTWICE_BACKLOG_MESSAGES": str(limit), "KNOCKTWICE_INBOX_GRACE_S": "5", "KNOCKTWICE_TICK_S": "0.1"}
    with Installation(home, settings) as here:
        eventually(lambda: here.redis.hget(INBOX_BACKLOG, "messages") == str(limit).encode(), within=120)
        workers = [here.pid(name) for name in here.parts if name.startswith("worker")]
        before = _used(here)
        at_rest = {pid: psutil.Process(pid).memory_info().rss for pid in workers}
        for pid in workers:
            here.signal(pid, signal.SIGSTOP)
        with Client(here.broker_url, timeout=30) as client:
            accepted, refused = _ask(client, messages)
            stopped = frozenset(sorted(accepted)[:10]) if refused else frozenset[Any]()
            if stopped:
                client.cancel(*stopped)
        broker = _used(here) - before
        for pid in workers:
            here.signal(pid, signal.SIGCONT)
        began, worker = time.monotonic(), 0
        while here.redis.hlen(INBOX_MESSAGES) and time.monotonic() - began < 120 + messages / 100:
            here.look()
            broker = max(broker, _used(here) - before)
            grown = (psutil.Process(p).memory_info().rss - r for p, r in at_rest.items() if psutil.pid_exists(p))
            worker = max(worker, *grown)
            time.sleep(0.2)
        seconds = time.monotonic() - began
        open_ = "SELECT count(*) FROM notifications WHERE state = 'active'"
        eventually(lambda: _scalar(here, open_) == 0, within=120 + messages / 100)
        with here.engine.connect() as conn:
            rows = {row.id: row.state for row in conn.execute(sa.text("SELECT id, state FROM notifications"))}
        left = int(here.redis.hlen(INBOX_MESSAGES))
    return Backlog(limit, accepted, refused, stopped, broker, worker, rows, left, seconds)


def _ask(client: Client, messages: int) -> tuple[frozenset[UUID], int]:
    """Ask for notifications, each in a message of its own; return what was accepted, and how many were refused."""
    shared = wire.Shared(_PUSH, None, None, None, None)
    accepted: set[UUID] = set()
    refused = 0
    for start in range(0, messages, _AT_ONCE):
        some = [
            drafts.notifications([Recipient(registrations=(f"silent-{n}",))], shared)
            for n in range(start, min(start + _AT_ONCE, messages))
        ]
        without_room: frozenset[str] = frozenset()
        try:
            client._broker.accept(message for draft in some for message in draft.outgoing())
        except QueueFull as error:
            without_room = error.refused
        accepted |= {id_ for draft in some if str(draft.id) not in without_room for id_ in draft.ids}
        refused += len(without_room)
    return frozenset(accepted), refused


def _used(here: Installation) -> int:
    memory: Any = here.redis.info("memory")
    return int(memory["used_memory"])


def _scalar(here: Installation, query: str) -> int:
    with here.engine.connect() as conn:
        return int(conn.execute(sa.text(query)).scalar_one())


def main() -> int:
    """Run it from a command line."""
    options = argparse.ArgumentParser(prog="python -m oracle.overload", description=__doc__)
    options.add_argument("--messages", type=int, default=1_000_000)
    options.add_argument("--limit", type=int, help="left out, nine tenths of the messages")
    given = options.parse_args()
    home = Path(tempfile.mkdtemp(prefix="knocktwice-overload-"))
    found = pile_up(home, messages=given.messages, limit=given.limit or given.messages * 9 // 10)
    print(
        f"{len(found.accepted):,} accepted, {found.refused:,} refused; the broker grew by {found.broker / 1e6:,.0f} MB, a "
        f"worker by {found.worker / 1e6:,.0f} MB; worked off in {found.seconds:,.0f} s"
    )
    wrong = problems(found)
    for finding in wrong:
        print(f"{finding.violation}: {finding.story}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
