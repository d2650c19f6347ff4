"""The traces of ended notifications, read from their rows: what happened when, over the delay and in whatever process.

A notification's id, a UUID, is its trace id. So an application that knows the id finds the trace, and nothing has to be
carried through queues and rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from knocktwice_worker.notifications.store.change_feed import Window


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened at one moment: a receipt, or a line of the ledger."""

    name: str
    at: datetime
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time: the whole notification, or one of its steps. Nothing in it is personal.

    Attributes:
        notification_id: whose; the trace.
        step: which step; ``None``: the whole.
        name: what it is.
        begin, end: when.
        failed: whether it failed.
        facts: what is known of it.
        moments: what happened meanwhile.
    """

    notification_id: str
    step: int | None
    name: str
    begin: datetime
    end: datetime
    failed: bool
    facts: Mapping[str, Any]
    moments: Sequence[Moment]


_ENDED = text("""
SELECT id FROM notifications WHERE finished_at > :after AND finished_at <= :until AND state <> 'duplicate'
""")

# The first word of a reason is ours. What follows the colon may be a provider's, and quote a number.
_WHOLE = text("""
SELECT
  n.id,
  n.state,
  split_part(coalesce(n.reason, ''), ':', 1) AS reason,
  b.category,
  coalesce(b.content ->> 'template', '') AS template,
  n.created_at,
  n.finished_at
FROM notifications n
JOIN batches b ON b.id = n.batch_id
WHERE n.id = ANY(CAST(:ids AS uuid[]))
""")
_STEPS = text("""
SELECT
  notification_id,
  step,
  channel,
  provider,
  state,
  split_part(coalesce(reason, ''), ':', 1) AS reason,
  tries,
  coalesce(claimed_at, due_at, finished_at) AS begun_at,
  finished_at
FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND finished_at IS NOT NULL
ORDER BY notification_id, step
""")
_MOMENTS = text("""
SELECT notification_id, step, verdict AS name, at FROM decisions WHERE notification_id = ANY(CAST(:ids AS uuid[]))
UNION ALL
SELECT notification_id, step, kind, received_at FROM events WHERE notification_id = ANY(CAST(:ids AS uuid[]))
ORDER BY 4
""")


def ended(conn: Connection, window: Window, share: float) -> list[str]:
    """Return the notifications that ended in a window, of all or of a share, which their ids choose."""
    found = conn.execute(_ENDED, {"after": window.after, "until": window.until}).scalars()
    # The last bits of a UUIDv7 are random.
    return [str(id_) for id_ in found if int(str(id_)[-8:], 16) / 2**32 < share]


def spans(conn: Connection, ids: Sequence[str]) -> list[Span]:
    """Return the spans of some ended notifications: of each the whole first, and then its steps."""
    moments: dict[str, list[Moment]] = {}
    for row in conn.execute(_MOMENTS, {"ids": list(ids)}):
        moments.setdefault(str(row.notification_id), []).append(Moment(row.name, row.at, {"step": row.step}))
    steps: dict[str, list[Span]] = {}
    for row in conn.execute(_STEPS, {"ids": list(ids)}):
        id_ = str(row.notification_id)
        facts = {name: getattr(row, name) for name in ("step", "channel", "provider", "state", "reason", "tries")}
        begin = min(row.begun_at, row.finished_at)
        steps.setdefault(id_, []).append(
            Span(id_, row.step, row.channel, begin, row.finished_at, row.state == "failed", facts, ())
        )
    found: list[Span] = []
    for row in conn.execute(_WHOLE, {"ids": list(ids)}):
        id_ = str(row.id)
        facts = {name: getattr(row, name) for name in ("state", "reason", "category", "template")}
        own = moments.get(id_, [])
        found.append(
            Span(id_, None, "notification", row.created_at, row.finished_at, row.state == "failed", facts, own)
        )
        found += steps.get(id_, [])
    return found
