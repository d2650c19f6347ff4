"""Replies: which message a text that a person wrote answers, kept as an event of that message's notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.records import record
from knocktwice_worker.database import by_time
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.notifications.store.receipts import Event, insert_events
from knocktwice_worker.notifications.store.trigger_sql import REPLIED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

#: Messages to a number that are looked at, the newest ones; the limit per number and day keeps them few.
_MOST = 30


@record
class Answerable:
    """A message that a reply may be about.

    Attributes:
        reply: the id of the reply.
        notification_id, step: the message.
        provider: who sent it.
        sender: its sender, as the row names it.
        arrived: the provider has it, as far as anybody knows; otherwise its sender waits for the answer, or has died.
    """

    reply: str
    notification_id: str
    step: int
    provider: str
    sender: str | None
    arrived: bool


@record
class Reply:
    """A text that a person wrote, and that is no wish about texts as such.

    Attributes:
        id: its id.
        number: who wrote, in E.164.
        channel: how it came.
        at: when it came.
    """

    id: str
    number: str
    channel: str
    at: datetime


# Nobody can answer a test. A message whose sender still waits for the provider's answer may have arrived already. Of
# two that left together the one is answered behind which more steps may follow: for the other nothing depends on it.
_FIND = text(f"""
SELECT
  r.id,
  d.notification_id,
  d.step,
  d.provider,
  d.sender,
  d.arrived
FROM {rows("r", id="uuid", number="text", channel="text")}
CROSS JOIN LATERAL (
  SELECT
    d.notification_id,
    d.step,
    d.provider,
    d.sender,
    d.state <> 'sending' AS arrived,
    d.claimed_at,
    d.steps_left
  FROM deliveries d
  WHERE d.number = r.number
    AND {by_time.since("d.counted_at", "(knocktwice_now() - CAST(:within AS interval))")}
    AND d.channel = r.channel
    AND d.provider <> '{STAND_IN}'
    AND d.state IN ('sending', 'sent', 'unknown')
  ORDER BY d.counted_at DESC
  LIMIT :most
) d
ORDER BY r.id, d.claimed_at DESC, d.steps_left DESC, d.notification_id
""")


def answerable(conn: Connection, replies: Sequence[Reply], within: timedelta) -> list[Answerable]:
    """Return the messages that replies may be about, for each reply the newest first.

    Args:
        within: how long ago a message may have been sent.
    """
    found = conn.execute(
        _FIND,
        {
            "id": [r.id for r in replies],
            "number": [r.number for r in replies],
            "channel": [r.channel for r in replies],
            "within": within,
            "most": _MOST,
        },
    )
    return [
        Answerable(str(row.id), str(row.notification_id), row.step, row.provider, row.sender, row.arrived)
        for row in found
    ]


def record_replies(conn: Connection, answers: Sequence[tuple[Reply, Answerable]]) -> list[str]:
    """Write each reply once as an event of the message that it answers; return the notifications' ids, sorted."""
    insert_events(conn, [Event(a.notification_id, REPLIED, r.id, r.at, a.step) for r, a in answers])
    return sorted({a.notification_id for _, a in answers})
