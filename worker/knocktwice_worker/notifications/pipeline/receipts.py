"""Receipts, recorded and applied to the open steps of their notifications."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from knocktwice_shared.messages import Receipt
from knocktwice_worker.audience import people
from knocktwice_worker.content.links.receipt_urls import MARK, device_hash, device_mark
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Engine

    from knocktwice_shared.messages import ReceiptEvent


def record(engine: Engine, receipts: Sequence[ReceiptEvent]) -> None:
    """Write receipts, and end the steps that they make unnecessary.

    Two transactions: once the receipts are committed, they count for every decision, even if their own step is still
    locked by another transaction.
    """
    with engine.begin() as conn:
        named = _named(conn, receipts)
        ids = store.record_receipts(conn, named)
        people.see(conn, named)
    opened = sorted({str(r.notification) for r in receipts if r.kind is not Receipt.DELIVERED})
    settle(engine, ids, opened)


def settle(engine: Engine, ids: Sequence[str], opened: Sequence[str] | None = None) -> None:
    """End the steps that committed receipts and replies make unnecessary.

    Args:
        ids: the notifications.
        opened: those of them that somebody has clicked or seen; ``None``: it is looked which.
    """
    if not ids:
        return
    with engine.begin() as conn:
        locked = store.settle_receipts(conn, ids, opened)
    if locked:
        with engine.connect() as conn:
            if store.settle_soon(conn, sorted(set(locked))):
                conn.commit()


def _named(conn: Connection, receipts: Sequence[ReceiptEvent]) -> Sequence[ReceiptEvent]:
    """Replace the hashes in receipts by URL with the registrations, if the pushes exist already."""
    marked = sorted({str(r.notification) for r in receipts if (r.registration or "").startswith(MARK)})
    if not marked:
        return receipts
    names = {
        (one.notification_id, device_mark(device_hash(one.registration))): one.registration
        for one in store.attempts(conn, marked)
    }
    return [
        replace(r, registration=names.get((str(r.notification), r.registration or ""), r.registration))
        for r in receipts
    ]
