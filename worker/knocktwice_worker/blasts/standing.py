"""The state and progress of blasts, for the command line and the gateway. Reads only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.ids import blast_id
from knocktwice_shared.messages import parse_blast
from knocktwice_shared.names import VERSION
from knocktwice_shared.test_side import is_test, real_side
from knocktwice_worker.blasts.states import BlastState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Row

    from knocktwice_shared.messages import Blast


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a blast.

    Attributes:
        key: the application's name for it, which starts once in its project.
        project: the application to which it belongs; ``None``: to none.
        segment: the saved segment it is for; ``None``: a filter of its own.
        schedule: the recurring blast that it is one of.
        reason: why it is paused or aborted.
        throttle_per_min: most people in any minute; ``None``: no throttle.
        total: people taken from the segment so far; all of them once ``expanded_at`` is set.
        sent: of these, how many were notified.
        cancelled: of those, how many belong to pages that were cancelled.
        expanded_at: when the last people were taken from the segment.
        template: the template that it says; ``None``: a text of its own, or its content was deleted since.
    """

    id: str
    key: str
    project: str | None
    segment: str | None
    schedule: str | None
    state: BlastState
    reason: str | None
    throttle_per_min: int | None
    total: int
    sent: int
    cancelled: int
    created_at: datetime
    started_at: datetime | None
    expanded_at: datetime | None
    finished_at: datetime | None
    template: str | None

    @property
    def test(self) -> bool:
        """Whether no provider is called for it."""
        return is_test(self.project)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data; of a test with its project's own name, and the mark beside it."""
        return {**asdict(self), "project": real_side(self.project), "test": self.test}


_STANDING = """
SELECT
  b.id,
  b.key,
  b.project,
  b.segment,
  b.schedule,
  b.state,
  b.reason,
  b.throttle_per_min,
  b.total,
  p.sent,
  p.cancelled,
  b.created_at,
  b.started_at,
  b.expanded_at,
  b.finished_at,
  b.message -> 'content' ->> 'template' AS template
FROM blasts b
CROSS JOIN LATERAL (
  SELECT
    b.purged + coalesce(sum(count) FILTER (WHERE sent_at IS NOT NULL), 0) AS sent,
    coalesce(sum(count) FILTER (WHERE cancelled_at IS NOT NULL), 0) AS cancelled
  FROM blast_pages
  WHERE blast_id = b.id AND sent_at IS NOT NULL
) p
"""
_OWN = "(CAST(:project AS text) IS NULL OR b.project = :project)"
_ONE = text(_STANDING + f"WHERE (b.key = :value OR CAST(b.id AS text) = :value) AND {_OWN}")
_LATEST = text(_STANDING + f"WHERE {_OWN} ORDER BY b.created_at DESC, b.id LIMIT :limit")
_BY_ID = text(_STANDING + "WHERE b.id = :id")


def find(conn: Connection, key_or_id: str, project: str | None = None) -> Standing | None:
    """Return a blast by its key or its id.

    Args:
        project: only one of this project. Without it, of several blasts with one key the one without a project is meant;
            if all have one, only their ids find them.
    """
    value = key_or_id.replace("\0", "")
    rows = conn.execute(_ONE, {"value": value, "project": project}).all()
    by_id = [row for row in rows if str(row.id) == value]
    found = by_id or [row for row in rows if row.project == project] or rows
    return _standing(found[0]) if len(found) == 1 else None


def of(conn: Connection, blast: Blast) -> Standing | None:
    """Return the blast that has a wanted one's key in the same project."""
    row = conn.execute(_BY_ID, {"id": blast_id(blast.key, blast.project)}).first()
    return None if row is None else _standing(row)


# Of a blast whose words were deleted since, only the audience can be compared.
_DIFFERS = text("""
SELECT
  segment IS DISTINCT FROM :segment
  OR (:segment IS NULL AND filter <> CAST(:filter AS jsonb))
  OR (message <> '{}' AND message - CAST(:not_said AS text[]) <> CAST(:message AS jsonb)) AS differs
FROM blasts
WHERE id = :id
""")
#: Fields of a blast's message that are not about who gets which words.
_NOT_SAID = ("send_at", "ttl_s", "valid_for_s", "reference")


def differs(conn: Connection, blast: Blast, filter: Mapping[str, Any] | None) -> bool:  # noqa: A002
    """Return whether the blast that has this key already is for others, or says something else.

    Args:
        filter: the blast's own, as stored ones are written.
    """
    said = {name: value for name, value in blast.message.items() if name not in _NOT_SAID}
    wanted = {
        "id": blast_id(blast.key, blast.project),
        "segment": blast.segment,
        "filter": json.dumps(filter),
        "message": json.dumps({**said, "params": blast.params}),
        "not_said": list(_NOT_SAID),
    }
    return bool(conn.execute(_DIFFERS, wanted).scalar_one_or_none())


def latest(conn: Connection, limit: int, project: str | None = None) -> Sequence[Standing]:
    """Return the latest blasts, of all projects or of one, the last one first."""
    return [_standing(row) for row in conn.execute(_LATEST, {"limit": limit, "project": project})]


_MESSAGE = text("SELECT message FROM blasts WHERE id = CAST(:id AS uuid)")


def message(conn: Connection, id_: str) -> dict[str, Any]:
    """Return what a blast says, as the contract has it; empty once its words were deleted."""
    found: dict[str, Any] | None = conn.execute(_MESSAGE, {"id": id_}).scalar_one_or_none()
    return found or {}


_ASKED = text("SELECT key, filter, message FROM blasts WHERE id = CAST(:id AS uuid) AND message <> '{}'")


def asked(conn: Connection, id_: str) -> Blast | None:
    """Return a blast as it was asked for, to everybody who belongs now; ``None`` once its words were deleted."""
    row = conn.execute(_ASKED, {"id": id_}).first()
    return None if row is None else parse_blast({"v": VERSION, "key": row.key, "filter": row.filter, **row.message})


# A page's notifications are found by the primary key: their ids lie between the page's own and its last.
_OUTCOMES = text("""
SELECT
  n.state,
  count(*) AS n
FROM blast_pages p
JOIN notifications n ON n.id > p.id AND n.id <= p.last_id AND n.batch_id = p.id
WHERE p.blast_id = :id AND p.sent_at IS NOT NULL
GROUP BY n.state
""")


def outcomes(conn: Connection, id_: str) -> dict[str, int]:
    """Return how many notifications of a blast are in which state. Reads all of them."""
    return {row.state: row.n for row in conn.execute(_OUTCOMES, {"id": id_})}


def _standing(row: Row[Any]) -> Standing:
    return Standing(**{**row._mapping, "id": str(row.id), "state": BlastState(row.state)})
