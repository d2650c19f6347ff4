"""The push that a message of a later step has overtaken is taken off the screen: a silent push tells the app to.

Best effort: it goes after that message has been recorded, in a task of its own, is tried once, and nothing waits for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from knocktwice_worker.channels.messages import Withdrawal
from knocktwice_worker.channels.outcomes import Sent
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.lifecycle import Note
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.outbound.pacing import Pace
    from knocktwice_worker.channels.provider import Provider

log = structlog.get_logger(__name__)

#: How long the provider may hold it for a device that is away with the push on its screen.
_TTL = timedelta(days=1)

_SHOWN = text("""
SELECT a.notification_id, a.registration FROM attempts a
WHERE a.notification_id = ANY(CAST(:ids AS uuid[])) AND a.state = 'sent' AND NOT EXISTS (
  SELECT FROM decisions l WHERE l.notification_id = a.notification_id AND l.verdict = 'withdrawn')
ORDER BY 1, 2
""")


@dataclass(frozen=True, kw_only=True)
class Withdrawals:
    """Takes pushes off screens.

    Attributes:
        engine: for short transactions.
        channel: the push channel.
        transport: carries its requests.
        pace: how fast the push provider may be spoken to.
    """

    engine: Engine
    channel: Provider[Withdrawal]
    transport: Carrier
    pace: Pace

    def withdraw(self, ids: Sequence[str]) -> None:
        """Tell the devices that got these notifications' pushes to remove them; once each, and so the ledger says."""
        with self.engine.begin() as conn:
            shown = conn.execute(_SHOWN, {"ids": list(ids)}).all()
        if not shown:
            return
        turn = self.pace.take([1] * len(shown))
        told = [Withdrawal(str(row.notification_id), row.registration, _TTL) for row in shown[: turn.granted]]
        outcomes = deliver(self.transport, self.channel, told)
        devices = Counter(str(row.notification_id) for row in shown)
        taken = Counter(w.notification_id for w, o in zip(told, outcomes, strict=True) if isinstance(o, Sent))
        with self.engine.begin() as conn:
            store.write_ledger(
                conn,
                [
                    store.Decision(id_, Note.WITHDRAWN, {"devices": count, "told": taken[id_]}, step=0)
                    for id_, count in devices.items()
                ],
            )
        log.info("pushes withdrawn", notifications=len(devices), devices=len(shown), told=taken.total())
