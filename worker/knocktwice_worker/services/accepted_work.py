"""Carrying out the accepted messages of the contract, task by task."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_shared.messages import (
    Cancellation,
    OptOutSet,
    parse_audience,
    parse_batch,
    parse_blast,
    parse_cancellation,
    parse_receipts,
)
from knocktwice_shared.names import scoped
from knocktwice_worker.audience import opt_out_log, people
from knocktwice_worker.blasts import request, states
from knocktwice_worker.counters.counters import Count, Counters, Span
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.notifications.pipeline import cancellation, receipts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine

    from knocktwice_shared.messages import Batch
    from knocktwice_worker.config import Settings
    from knocktwice_worker.notifications.inbox.accepted import Inbox
    from knocktwice_worker.privacy.erasure import Erasure
    from knocktwice_worker.privacy.guard import ErasureGuard


@dataclass(frozen=True)
class AcceptedWork:
    """Carries out accepted messages. Each method takes the messages of one task as they came.

    Attributes:
        settings: the settings of the installation.
        engine: the engine for short transactions.
        inbox: knows the notifications of keys that are not in PostgreSQL yet.
        guard: takes out people who were erased after the message was made.
        erasure: erases people.
        counters: count receipts and delays.
        send: accepts batches and pushes them.
    """

    settings: Settings
    engine: Engine
    inbox: Inbox
    guard: ErasureGuard
    erasure: Erasure
    counters: Counters
    send: Callable[[Sequence[Batch]], None]

    def push_batches(self, messages: Sequence[object]) -> None:
        """Accept batches and push them."""
        batches = [parse_batch(message) for message in messages]
        self.send(batches)
        if (called := _called_at(batches)) is not None:
            self.counters.took(Span.ENQUEUE_TO_PROVIDER, time.time() - called, sum(len(b.recipients) for b in batches))

    def record_receipts(self, messages: Sequence[object]) -> None:
        """Record receipts."""
        parsed = [receipt for message in messages for receipt in parse_receipts(message)]
        receipts.record(self.engine, parsed)
        self.counters.add_each(Count.RECEIPTS, (r.kind.value for r in parsed))
        self.counters.took(Span.RECEIPT_DELAY, time.time() - min(r.at for r in parsed).timestamp(), len(parsed))

    def cancel(self, messages: Sequence[object]) -> None:
        """Cancel notifications and abort blasts."""
        wanted: dict[str | None, list[Cancellation]] = {}
        for message in messages:
            one = parse_cancellation(message)
            wanted.setdefault(one.project, []).append(one)
        for project, own in wanted.items():
            self._cancel_in(project, own)

    def _cancel_in(self, project: str | None, wanted: Sequence[Cancellation]) -> None:
        keys = [key for one in wanted for key in one.keys]
        ids = [str(id_) for one in wanted for id_ in one.ids]
        ids += self.inbox.ids_of([scoped(key, project) for key in keys])

        def abort_blasts(conn: Connection) -> None:
            for one in wanted:
                for key in one.blasts:
                    states.abort(conn, key, "cancelled by the application", project)

        cancellation.cancel(self.engine, ids, keys, project, also=abort_blasts)

    def update_audience(self, messages: Sequence[object]) -> None:
        """Write what was said about people, and erase those who are to be erased."""
        changes = [change for message in messages for change in parse_audience(message)]
        with self.engine.begin() as conn:
            valid = self.guard.still_valid(conn, changes)
            people.apply(conn, valid)
            self.guard.restore_opt_outs(conn, valid)
            said = [change for change in valid if isinstance(change, OptOutSet)]
            opt_out_log.say(conn, said, secret(self.settings).encode())
        self.erasure.erase_all(changes)

    def start_blasts(self, messages: Sequence[object]) -> None:
        """Start blasts."""
        wanted = [parse_blast(message) for message in messages]
        with self.engine.begin() as conn:
            for one in wanted:
                request.start(conn, one, settings=self.settings)


def _called_at(batches: Sequence[Batch]) -> float | None:
    """Return when the oldest of some batches was made, as Unix time, which its id (UUIDv7) begins with."""
    return min(((b.id.int >> 80) / 1000 for b in batches if b.id.version == 7), default=None)
