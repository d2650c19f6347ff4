"""Withdrawals: a silent push tells the app to remove a push that a later step has overtaken.

This is best effort. The silent push goes out in a task of its own after the later step has been recorded. It is tried
once, and no other work waits for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from knocktwice_worker.channels.messages import Withdrawal
from knocktwice_worker.channels.outbound.pacing import Lane, Pace
from knocktwice_worker.channels.outcomes import Sent
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.lifecycle import Note
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.provider import Provider

log = structlog.get_logger(__name__)

#: How long the provider may keep the silent push for a device that is offline with the push on its screen.
_TTL = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Withdrawals:
    """Takes pushes off screens.

    Attributes:
        engine: opens short transactions.
        channel: the push channel.
        transport: sends the channel's requests.
        pace: the greatest speed that the push provider accepts.
    """

    engine: Engine
    channel: Provider[Withdrawal]
    transport: Carrier
    pace: Pace

    def withdraw(self, ids: Sequence[str]) -> None:
        """Tell the devices that got these notifications' pushes to remove them, once, and write that to the ledger."""
        with self.engine.begin() as conn:
            shown = store.shown(conn, ids)
        if not shown:
            return
        real = [one for one in shown if not one.test]
        turn = self.pace.take([1] * len(real), Lane.NONE)
        withdrawals = [Withdrawal(one.notification_id, one.registration, _TTL) for one in real[: turn.granted]]
        outcomes = deliver(self.transport, self.channel, withdrawals)
        devices = Counter(one.notification_id for one in shown)
        taken = Counter(w.notification_id for w, o in zip(withdrawals, outcomes, strict=True) if isinstance(o, Sent))
        with self.engine.begin() as conn:
            store.write_ledger(
                conn,
                [
                    store.Decision(id_, Note.WITHDRAWN, {"devices": count, "told": taken[id_]}, step=0)
                    for id_, count in devices.items()
                ],
            )
        log.info("pushes withdrawn", notifications=len(devices), devices=len(shown), told=taken.total())
