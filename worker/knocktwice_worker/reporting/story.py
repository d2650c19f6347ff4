"""The story of a notification, read from its rows, for ``knocktwice status`` and ``knocktwice explain``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from knocktwice_shared.test_side import is_test, real_side
from knocktwice_worker.reporting.moments import Moment, device_ending, moments
from knocktwice_worker.reporting.provider_status import error_code, given_up, last_report, status, taken_by
from knocktwice_worker.reporting.unsent import Unsent, unsent
from knocktwice_worker.reporting.waiting import Waiting, due_at, waits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Step:
    """The state of one step.

    Attributes:
        provider: who took the message; ``None`` for a push, and while nobody has.
        provider_id: what that provider calls it.
        provider_status, provider_error: what it reported afterwards.
    """

    step: int
    channel: str
    state: str
    reason: str | None
    due_at: datetime | None
    provider: str | None
    provider_id: str | None
    provider_status: str | None = None
    provider_error: int | str | None = None
    price: str | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """A device that the push was for.

    Attributes:
        place: its place among the registrations that the application gave, from 0; ``None``: it is one of the person's.
        registration: the ending of it.
        state: ``open``, ``sent`` or ``rejected``.
        reason: why it was rejected, or is tried again.
    """

    place: int | None
    registration: str
    state: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class Story:
    """A notification with its steps and what happened, oldest first. Numbers are masked, texts left out.

    Attributes:
        devices: for which the push was, in the order in which the application gave them.
        blast: the key of the blast that it is one of.
        provider_status: what became of the last message that a provider took, as the provider reported it.
        waits: what its open steps wait for now.
        test: no provider was called for it.
        would_have_sent: what providers would have got.
    """

    id: str
    state: str
    reason: str | None
    category: str
    user: str | None
    project: str | None
    created_at: datetime
    finished_at: datetime | None
    steps: Sequence[Step]
    moments: Sequence[Moment]
    blast: str | None = None
    provider_status: str | None = None
    waits: Sequence[Waiting] = ()
    devices: Sequence[Device] = ()
    test: bool = False
    would_have_sent: Sequence[Unsent] = ()


_OF = """
SELECT
  n.*,
  knocktwice_now() AS now,
  b.category,
  b.content,
  bl.key AS blast
FROM notifications n
JOIN batches b ON b.id = n.batch_id
LEFT JOIN blast_pages p ON p.id = n.batch_id
LEFT JOIN blasts bl ON bl.id = p.blast_id
"""
_IN_PROJECT = " AND (CAST(:project AS text) IS NULL OR n.project = :project)"
_BY_ID = text(_OF + "WHERE n.id = :wanted" + _IN_PROJECT)

# In the words of the index that makes a key unique, or every notification would be read.
_BY_KEY = text(_OF + "WHERE n.key = :wanted" + _IN_PROJECT + " ORDER BY n.project NULLS FIRST LIMIT 1")


def tell(conn: Connection, id_or_key: str, *, project: str | None = None) -> Story | None:
    """Return the story of a notification.

    Args:
        id_or_key: its id, or the idempotency key it was sent with. Of several projects' notifications with one key that
            without a project is meant, else that of the first project by name.
        project: only one of this project.

    Returns:
        ``None`` when there is none. One that is accepted but not yet in Postgres is not there.
    """
    found = _by_id(conn, id_or_key, project)
    if found is None:
        found = conn.execute(_BY_KEY, {"wanted": id_or_key, "project": project}).first()
    if found is None:
        return None
    rows = {table: _rows(conn, table, found.id, order) for table, order in _TABLES.items()}
    steps = rows["deliveries"]
    due = {step.step: due_at(step, steps) for step in steps}
    return Story(
        id=str(found.id),
        state=found.state,
        reason=found.reason,
        category=found.category,
        user=found.user_id,
        project=real_side(found.project),
        created_at=found.created_at,
        finished_at=found.finished_at,
        steps=[_step(s) for s in steps],
        moments=sorted(moments(found, rows), key=lambda m: m.at),
        blast=found.blast,
        provider_status=last_report([(s.step, s.state, _status(s)) for s in steps]),
        waits=tuple(waits(found.now, steps, rows["attempts"], rows["decisions"], due)),
        devices=[Device(a.place, device_ending(a.registration), a.state, a.reason) for a in rows["attempts"]],
        test=is_test(found.project),
        would_have_sent=unsent(found, rows) if is_test(found.project) else (),
    )


#: Tables of what belongs to a notification, and the order in which it is read.
_TABLES = {"deliveries": "step", "attempts": "place, registration", "events": "received_at", "decisions": "id"}


def _step(row: Row[Any]) -> Step:
    price = None if row.price is None else f"{row.price} {row.price_unit or ''}".strip()
    return Step(
        row.step,
        row.channel,
        row.state,
        row.reason,
        row.due_at,
        taken_by(row.step, row.provider, row.provider_id),
        row.provider_id,
        _status(row),
        error_code(row),
        price,
    )


def _status(row: Row[Any]) -> str | None:
    return status(row.provider_status, given_up=given_up(row.provider, row.reported_at))


_BY_PROVIDER_ID = text("""
SELECT notification_id FROM deliveries WHERE step > 0 AND provider_id IS NOT NULL AND provider_id = :wanted
""")


def by_provider_id(conn: Connection, provider_id: str) -> UUID | None:
    """Return the notification with a message that a provider calls so; ``None``: there is none."""
    id_ = conn.execute(_BY_PROVIDER_ID, {"wanted": provider_id}).scalar()
    return None if id_ is None else UUID(str(id_))


def _by_id(conn: Connection, id_: str, project: str | None) -> Row[Any] | None:
    try:
        return conn.execute(_BY_ID, {"wanted": str(UUID(id_)), "project": project}).first()
    except ValueError:  # not an id, so it is a key
        return None


def _rows(conn: Connection, table: str, id_: object, order: str) -> Sequence[Row[Any]]:
    # Table and order are names from this file, never input.
    return conn.execute(
        text(f"SELECT * FROM {table} WHERE notification_id = :id ORDER BY {order}"),
        {"id": id_},
    ).all()
