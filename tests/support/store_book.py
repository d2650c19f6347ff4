"""The store with a transaction per call, and batches to put into it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Batch, Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from knocktwice_worker.services import Services


LEASE, TTL, HOUR = timedelta(minutes=1), timedelta(hours=1), timedelta(hours=1)
AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def batch(
    *users: str,
    when: str | None = "not_delivered",
    after: float = 3600,
    keys: Sequence[str] = (),
    category: str = "transactional",
) -> Batch:
    return parse_batch(
        {
            "v": 1,
            "id": str(uuid7()),
            "category": category,
            "content": {"push": {"title": "t", "body": "b"}},
            "plan": [{"channel": "sms", "when": when, "after_s": after}] if when else [],
            "recipients": [
                {"id": str(uuid7()), "user": user} | ({"key": keys[i]} if keys else {}) for i, user in enumerate(users)
            ],
        }
    )


def ids(of: Batch) -> list[str]:
    return [str(r.id) for r in of.recipients]


class Book:
    """The store with a transaction per call, and a look at its tables."""

    def __init__(self, here: Services) -> None:
        self.engine = here.engine

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self.engine.begin() as conn:
            return function(conn, *args, **kwargs)

    def accept(self, of: Batch, problems: dict[str, str] | None = None) -> list[store.PushWork]:
        work: list[store.PushWork] = self(store.accept, [store.Intake(of, problems or {}, TTL)], lease=LEASE)
        return work

    def pushed(self, of: Batch, *, state: str = "sent", **facts: Any) -> None:
        work = self.accept(of)
        self(
            store.record_push,
            [store.PushResult(w.notification_id, w.registration, state=AttemptState(state), **facts) for w in work],
            retry_for=HOUR,
        )

    def receipt(self, id_: str, kind: Receipt = Receipt.DELIVERED, registration: str = "reg-ada") -> None:
        self(store.settle_receipts, self(store.record_receipts, [ReceiptEvent(UUID(id_), kind, AT, registration)]))

    def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(sa.text(query), values)]

    def states(self, id_: str) -> dict[str, tuple[str, str | None]]:
        """Return ``{"notification": (state, reason), "push": …, "sms": …}``."""
        found = self.rows(
            "SELECT 'notification', state, reason FROM notifications WHERE id = CAST(:id AS uuid)", id=id_
        )
        found += self.rows(
            "SELECT channel, state, reason FROM deliveries WHERE notification_id = CAST(:id AS uuid)", id=id_
        )
        return {name: (state, reason) for name, state, reason in found}

    def reserve(self, *wanted: str) -> set[str]:
        won: set[str] = self(store.reserve, [store.Reservation(i, "+16505550100", "b", b"f") for i in wanted], LEASE)
        return won
