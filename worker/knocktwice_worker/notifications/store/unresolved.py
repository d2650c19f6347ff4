"""Claimed messages whose outcome nobody recorded, for the search in the provider's list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.notifications.store.later_steps import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from knocktwice_shared.messages import Category
    from knocktwice_worker.notifications.store.step_results import StepResult


@dataclass(frozen=True, slots=True)
class UnresolvedStep:
    """A claimed message whose sender is gone or got no clear answer.

    Attributes:
        notification_id: whose.
        category: what kind of message it is.
        step: which step.
        channel: by which channel it went.
        number, text, sender: as they were sent.
        provider: by which provider.
        tries: how often it was tried.
        reason: the unclear answer; ``None``: the sender died.
        limited_repeats: how often it was sent again in a way that is limited: its sender had died, or nobody could say.
        missed_at: when the provider's list first answered without it, since it was claimed; ``None``: not yet.
        due_at: when it was due.
        claimed_at: when it was claimed.
        now: the database's clock.
        lost: how many messages of this step its provider had taken and then failed.
    """

    notification_id: str
    category: Category
    step: int
    channel: str
    number: str
    text: str
    sender: str | None
    provider: str
    tries: int
    reason: str | None
    limited_repeats: int
    missed_at: datetime | None
    due_at: datetime
    claimed_at: datetime
    now: datetime
    lost: int


# A sender that lives holds the lock of its message, so the message is skipped. Columns as in UnresolvedStep.
_UNRESOLVED = text("""
SELECT
  d.notification_id,
  b.category,
  d.step,
  d.channel,
  d.number,
  d.text,
  d.sender,
  d.provider,
  d.tries,
  d.reason,
  d.limited_repeats,
  d.missed_at,
  d.due_at,
  d.claimed_at,
  knocktwice_now(),
  coalesce(cardinality(d.lost_ids), 0)
FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sending'
  AND (d.reason IS NOT NULL OR d.claimed_at + :lease <= knocktwice_now())
ORDER BY d.claimed_at, d.notification_id FOR UPDATE OF d SKIP LOCKED
""")


def unresolved(conn: Connection, ids: Sequence[str], lease: timedelta) -> list[UnresolvedStep]:
    """Lock and return claimed messages whose sender is gone or got no clear answer."""
    found = conn.execute(_UNRESOLVED, {"ids": list(ids), "lease": lease}).all()
    return [UnresolvedStep(str(id_), CATEGORIES[category], *rest) for id_, category, *rest in found]


# Reconcile may have decided to send it again.
_TAKE_BACK = text(f"""
UPDATE deliveries SET state = 'sending'
WHERE (notification_id, step) IN (SELECT * FROM {rows("r", id="uuid", step="smallint")}) AND state = 'reserved'
""")


def take_back(conn: Connection, ids: Sequence[str], steps: Sequence[int]) -> None:
    """Claim messages again that their provider has after all, although it was decided to send them again."""
    conn.execute(_TAKE_BACK, {"id": list(ids), "step": list(steps)})


# Few messages are searched for, so those that are sent at once do not pay for these columns.
_NOTE_SEARCHES = text(f"""
UPDATE deliveries d SET
  missed_at = CASE WHEN r.missed THEN knocktwice_now() ELSE d.missed_at END,
  limited_repeats = d.limited_repeats + CAST(r.limited AS int)
FROM {rows("r", id="uuid", missed="boolean", limited="boolean")}
WHERE d.notification_id = r.id AND d.step > 0 AND d.state IN ('sending', 'reserved')
""")


def note_searches(conn: Connection, results: Sequence[StepResult]) -> None:
    """Remember what the search for messages found, after :func:`record_steps` in the same transaction."""
    found = [r for r in results if r.missed or r.limited]
    if found:
        conn.execute(
            _NOTE_SEARCHES,
            {
                "id": [r.notification_id for r in found],
                "missed": [r.missed for r in found],
                "limited": [r.limited for r in found],
            },
        )
