"""Gathers the evidence of a run: logs and books from their files, and from the system what it shows in the end."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import httpx
import psutil
import sqlalchemy as sa

from knocktwice_shared.names import INBOX_MESSAGES, Queue
from oracle.records import Book, End, Evidence, Rules, Sample, StepEnd, read
from oracle.records_of_load import Parked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from redis import Redis

    from oracle.installation import Installation

#: What stands around the system: wires, and the provider with its phones.
_AROUND = frozenset({"wires", "provider"})
#: How many stories are read at most.
_STORIES = 2_000
_ENDS, _SUMMARY = "ends.jsonl", "summary.json"

_NOTIFICATIONS = """
SELECT id::text, params->>'token' AS token, state, reason, extract(epoch FROM created_at)::float AS created_at,
       extract(epoch FROM finished_at)::float AS finished_at,
       EXISTS (SELECT FROM decisions d WHERE d.notification_id = n.id AND d.verdict = 'wasted_sms') AS wasted
FROM notifications n
"""
_STEPS = "SELECT notification_id::text AS id, step, channel, state, reason, provider_id FROM deliveries ORDER BY step"
_RECEIPTS = """
SELECT notification_id::text AS id, kind, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float AS at FROM events
"""
_PARKED = "SELECT extract(epoch FROM at)::float AS at, task, reason, payload FROM dead_letters ORDER BY id"


def unsettled(here: Installation) -> int:
    """Return how much is left to do: open notifications, and messages that wait."""
    with here.engine.connect() as conn:
        active: int = conn.execute(sa.text("SELECT count(*) FROM notifications WHERE state = 'active'")).scalar_one()
    waiting = [int(here.redis.llen(queue.value)) for queue in Queue]
    return active + sum(waiting) + int(here.redis.hlen(INBOX_MESSAGES))


def ended(here: Installation) -> int:
    """Return how many notifications have ended."""
    with here.engine.connect() as conn:
        return int(conn.execute(sa.text("SELECT count(*) FROM notifications WHERE state <> 'active'")).scalar_one())


def gather(here: Installation, rules: Rules, *, settled: bool) -> Evidence:
    """Write down what the system shows, and return all evidence.

    Args:
        settled: nothing is left to do, so that looking longer would show nothing new.
    """
    book = Book(here.home / _ENDS)
    for end in _ends(here):
        book.write(end)
    for sample in _keys(here.redis):
        book.write(sample)
    with here.engine.connect() as conn:
        for row in conn.execute(sa.text(_PARKED)):
            book.write(Parked(row.at, row.task, row.reason, row.payload))
        opted_out = conn.execute(sa.text("SELECT number FROM opt_outs")).scalars().all()
    summary = {
        "ended_at": time.time() + (3_600 if settled else 0),
        "rules": asdict(rules),
        "opted_out": sorted(opted_out),
        "unprocessed": here.redis.hlen(INBOX_MESSAGES),
    }
    (here.home / _SUMMARY).write_text(json.dumps(summary))
    return evidence(here.home)


def evidence(home: Path) -> Evidence:
    """Read the evidence of a run from its folder."""
    summary = json.loads((home / _SUMMARY).read_text())
    found = Evidence(
        summary["ended_at"],
        Rules(**summary["rules"]),
        opted_out=set(summary["opted_out"]),
        unprocessed=summary["unprocessed"],
    )
    for name in ("callers.jsonl", "provider.jsonl", _ENDS):
        for record in read(home / name):
            found.add(record)
    return found


def measure(here: Installation) -> Iterator[Sample]:
    """Return what each part of the system uses now. What stands around it is not judged."""
    now = time.time()
    with suppress(sa.exc.DBAPIError), here.engine.connect() as conn:
        sessions = conn.execute(sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL")).scalar_one()
        yield Sample(now, "database", "connections", sessions)
    for name, part in here.parts.items():
        if name in _AROUND or not part.child.alive:
            continue
        try:
            process = psutil.Process(part.child.pid)
            with process.oneshot():
                used = {
                    "memory": process.memory_info().rss,
                    "threads": process.num_threads(),
                    "files": process.num_fds(),
                }
        except psutil.Error:
            continue
        yield from (Sample(now, f"{name} {part.child.pid}", what, value) for what, value in used.items())


def _ends(here: Installation) -> Iterator[End]:
    with here.engine.connect() as conn:
        rows = conn.execute(sa.text(_NOTIFICATIONS)).all()
        steps: dict[str, list[StepEnd]] = defaultdict(list)
        for step in conn.execute(sa.text(_STEPS)):
            steps[step.id].append(StepEnd(step.step, step.channel, step.state, step.reason, step.provider_id))
        receipts: dict[str, list[tuple[str, float]]] = defaultdict(list)
        for receipt in conn.execute(sa.text(_RECEIPTS)):
            receipts[receipt.id].append((receipt.kind, receipt.at))
    unreadable = _unreadable(here, [row.id for row in rows[:_STORIES]])
    for row in rows:
        yield End(
            row.id, row.token or "", row.state, row.reason, row.created_at, row.finished_at, tuple(steps[row.id]),
            tuple(receipts[row.id]), row.wasted, unreadable.get(row.id),
        )  # fmt: skip


def _unreadable(here: Installation, ids: list[str]) -> dict[str, str]:
    """Return what the gateway answers for notifications whose story it cannot tell."""
    failed = {}
    with httpx.Client(base_url=here.gateway_url, headers={"Authorization": f"Bearer {here.key}"}, timeout=30) as client:
        for id_ in ids:
            answer = client.get(f"/v1/notifications/{id_}")
            if answer.status_code != 200:
                failed[id_] = f"the gateway answers {answer.status_code}"
    return failed


def _keys(redis: Redis) -> Iterator[Sample]:
    kept = sum(redis.ttl(key) == -1 for key in redis.scan_iter(count=1_000))
    yield Sample(time.time(), "broker", "keys", kept)
