"""Messages whose outcome nobody can tell, for operators: found, sent again, closed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Category
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import DeliveryState, Note, NotificationState
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from datetime import datetime

    from sqlalchemy import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A choice among the messages of unknown outcome; ``None`` stands for all.

    Attributes:
        since, until: when they ended, the second moment not included.
        provider, channel: by whom they went.
        number: to which address.
        category: of which kind.
        key: the idempotency key of the notification.
    """

    since: datetime | None = None
    until: datetime | None = None
    provider: str | None = None
    channel: str | None = None
    number: str | None = None
    category: Category | None = None
    key: str | None = None

    @property
    def everything(self) -> bool:
        """Whether no filter is set."""
        return self == Wanted()


#: Field of :class:`Wanted` → its condition.
_CONDITIONS = {
    "since": "d.finished_at >= :since",
    "until": "d.finished_at < :until",
    "provider": "d.provider = :provider",
    "channel": "d.channel = :channel",
    "number": "d.number = :number",
    "category": "b.category = :category",
    "key": "n.key = :key",
}


@dataclass(frozen=True, slots=True)
class UnknownStep:
    """A message of which nobody can tell whether it went out.

    Attributes:
        notification_id: whose.
        category: what kind of message it is.
        step: which step.
        channel, provider: by whom it went.
        number: to which address; ``None``: the person was erased.
        key: the notification's idempotency key.
        reason: what was unclear.
        ended_at: when it was given up.
        last: the notification ended with it, so it can be sent again; otherwise the plan went on.
    """

    notification_id: str
    category: Category
    step: int
    channel: str
    provider: str
    number: str | None
    key: str | None
    reason: str | None
    ended_at: datetime
    last: bool


#: Where the first page begins.
START = (str(UUID(int=0)), 0)
#: How many are read, or changed in one transaction.
_PAGE = 500


def page(
    conn: Connection, wanted: Wanted, after: tuple[str, int], only: tuple[str, int] | None = None
) -> list[UnknownStep]:
    """Return messages of unknown outcome that are meant and not closed, in the order of their ids.

    Args:
        after: id and step behind which the page begins.
        only: id and step of the only one that is meant.
    """
    given = {name: value for name in _CONDITIONS if (value := getattr(wanted, name)) is not None}
    conditions = "".join(f"\n  AND {_CONDITIONS[name]}" for name in given)
    if only is not None:
        conditions += "\n  AND d.notification_id = CAST(:only AS uuid) AND d.step = CAST(:only_step AS smallint)"
        given |= {"only": only[0], "only_step": only[1]}
    # Along the index of these messages, page by page. Columns as in UnknownStep.
    query = text(f"""
SELECT
  d.notification_id,
  b.category,
  d.step,
  d.channel,
  d.provider,
  d.number,
  n.key,
  d.reason,
  d.finished_at,
  n.state = '{NotificationState.UNKNOWN}'
FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
WHERE d.state = '{DeliveryState.UNKNOWN}' AND d.step > 0
  AND (d.notification_id, d.step) > (CAST(:after AS uuid), CAST(:after_step AS smallint)){conditions}
  AND NOT EXISTS (
    SELECT FROM decisions l
    WHERE l.notification_id = d.notification_id AND l.step = d.step AND l.verdict = '{Note.CLOSED}')
ORDER BY d.notification_id, d.step
LIMIT {_PAGE}
""")
    found = conn.execute(query, {"after": after[0], "after_step": after[1], **given}).all()
    return [UnknownStep(str(id_), Category(category), *rest) for id_, category, *rest in found]


def pages(engine: Engine, wanted: Wanted) -> Iterator[list[UnknownStep]]:
    """Return the messages of unknown outcome that are meant and not closed, page by page, in the order of their ids."""
    after = START
    while True:
        with engine.begin() as conn:
            found = page(conn, wanted, after)
        if not found:
            return
        yield found
        after = (found[-1].notification_id, found[-1].step)


def get(conn: Connection, id_: str, step: int) -> UnknownStep | None:
    """Return one message of unknown outcome; ``None``: its outcome is known, or it was closed."""
    found = page(conn, Wanted(), START, only=(id_, step))
    return found[0] if found else None


# A message that is looked for keeps the time of its claim, from which on the list is read; its reason, so that the look
# needs no end of a lease. It is due now: the operator says that it is of use.
_REOPEN = text(f"""
UPDATE deliveries d SET
  state = CASE WHEN r.look THEN '{DeliveryState.SENDING}' ELSE '{DeliveryState.RESERVED}' END,
  reason = coalesce(d.reason, '{Note.REOPENED}'),
  due_at = knocktwice_now(),
  wake_at = knocktwice_now(),
  finished_at = NULL,
  missed_at = NULL,
  limited_repeats = 0
FROM {rows("r", id="uuid", step="smallint", look="boolean")}
WHERE d.notification_id = r.id AND d.step = r.step AND d.step > 0 AND d.state = '{DeliveryState.UNKNOWN}'
  AND d.number IS NOT NULL
  AND EXISTS (SELECT FROM notifications n WHERE n.id = r.id AND n.state = '{NotificationState.UNKNOWN}')
RETURNING
  d.notification_id,
  d.step
""")

_REOPEN_NOTIFICATIONS = text(f"""
UPDATE notifications SET
  state = '{NotificationState.ACTIVE}',
  reason = NULL,
  finished_at = NULL
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = '{NotificationState.UNKNOWN}'
""")

_LOCK = text(f"""
SELECT
  notification_id,
  step
FROM deliveries
WHERE (notification_id, step) IN (SELECT * FROM {rows("r", id="uuid", step="smallint")})
  AND state = '{DeliveryState.UNKNOWN}'
ORDER BY notification_id, step FOR UPDATE
""")


def _lock(conn: Connection, steps: Sequence[UnknownStep]) -> set[tuple[str, int]]:
    given = {"id": [s.notification_id for s in steps], "step": [s.step for s in steps]}
    return {(str(row.notification_id), row.step) for row in conn.execute(_LOCK, given)}


def reopen(
    conn: Connection, steps: Sequence[UnknownStep], *, reason: str, listable: Collection[tuple[str, str]]
) -> int:
    """Take up messages of unknown outcome again, and their notifications; return how many.

    A message that may be in its provider's list is looked for first, and sent if it is not there. Any other is sent. One is left
    alone whose plan went on, or whose person was erased.

    Args:
        reason: why, for the ledger.
        listable: channel and name of the providers that can be asked.
    """
    _lock(conn, steps)
    given = {
        "id": [s.notification_id for s in steps],
        "step": [s.step for s in steps],
        "look": [(s.channel, s.provider) in listable for s in steps],
    }
    won = conn.execute(_REOPEN, given).all()
    conn.execute(_REOPEN_NOTIFICATIONS, {"ids": [str(row.notification_id) for row in won]})
    write_ledger(conn, [Decision(str(i), Note.REOPENED, {"reason": reason}, step) for i, step in won])
    return len(won)


def close(conn: Connection, steps: Sequence[UnknownStep], *, reason: str) -> int:
    """Take unknown outcomes as settled, so that they are no longer found; return how many. Their states stay.

    Args:
        reason: why, for the ledger.
    """
    won = sorted(_lock(conn, steps))
    write_ledger(conn, [Decision(id_, Note.CLOSED, {"reason": reason}, step) for id_, step in won])
    return len(won)
