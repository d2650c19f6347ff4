"""What a message that kills its workers may do, and what more messages than can be worked on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oracle.violations import Finding, Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oracle.case import World
    from oracle.records_of_load import Backlog

#: So many workers may die of one message.
_DEATHS = 10
#: Bytes of the broker's memory for each waiting message of one person, and for everything else.
_BYTES_EACH, _BYTES_BESIDE = 4_000, 20_000_000
#: By how much a worker may grow while it works a backlog off.
_WORKER_GROWS = 150_000_000


def poison(world: World) -> Iterator[Finding]:
    """A message that kills its workers and is not put aside, and others that are."""
    known = world.evidence
    for bad in known.poisons:
        parked = [one for one in known.parked if bad.mark in one.payload]
        if not parked:
            yield Finding(Violation.POISON, bad.mark, bad.at, f"{bad.deaths} workers died of it, and it is not parked")
        elif bad.deaths > _DEATHS:
            yield Finding(Violation.POISON, bad.mark, bad.at, f"it is parked after {bad.deaths} deaths")
        for one in parked:
            if not one.reason:
                yield Finding(Violation.POISON, bad.mark, one.at, "it is parked without a reason")
    marks = [bad.mark for bad in known.poisons]
    for one in known.parked:
        # A token stands in every text, so a message of a caller can be told from garbage.
        token = next((token for token in world.cases if token and token in one.payload), None)
        if token and not any(mark in one.payload for mark in marks):
            yield Finding(Violation.POISON, token, one.at, f"{one.task} of it is parked, and it is sound: {one.reason}")


def overload(world: World) -> Iterator[Finding]:
    """A backlog that fills broker or workers, or of which callers are not told the truth."""
    for backlog in world.evidence.backlogs:
        for story in _wrong(backlog):
            yield Finding(Violation.OVERLOAD, "backlog", world.evidence.ended_at, story)


def _wrong(backlog: Backlog) -> Iterator[str]:
    if missing := backlog.accepted - backlog.rows.keys():
        yield f"{len(missing)} accepted notifications have no row"
    if more := backlog.rows.keys() - backlog.accepted:
        yield f"{len(more)} notifications have a row though their caller was told that they were refused"
    if len(backlog.accepted) > backlog.limit:
        yield f"{len(backlog.accepted)} were accepted, and {backlog.limit} may wait"
    if sent := [id_ for id_ in backlog.stopped if backlog.rows.get(id_) not in (None, "cancelled")]:
        yield f"{len(sent)} were sent though their cancellation was accepted"
    if backlog.broker > backlog.limit * _BYTES_EACH + _BYTES_BESIDE:
        yield f"the broker grew by {backlog.broker:,} bytes"
    if backlog.worker > _WORKER_GROWS:
        yield f"a worker grew by {backlog.worker:,} bytes"
    if backlog.left:
        yield f"{backlog.left} messages remain in the inbox"
