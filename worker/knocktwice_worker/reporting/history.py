"""The history of notifications, newest first, page by page.

Pages follow the ids, which are of the time when a notification was asked for, so each page costs about the same however
far back it lies. Filters that no index serves look at a bounded number of rows for each page: a page may then be short,
or empty, and still name a next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, text

from knocktwice_shared.test_side import is_test, real_side
from knocktwice_worker.database import by_time
from knocktwice_worker.database.test_rows import real_message
from knocktwice_worker.reporting.provider_status import given_up, last_report, status, taken_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

#: Most rows that one page looks at.
SCAN_LIMIT = 5_000
#: Most entries of a page.
PAGE_LIMIT = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The part of the history that is asked for.

    Attributes:
        since, until: times of asking; the later one is not included.
        before: the last id of the page before.
        limit: entries of a page.
        provider_status: what a provider reported of one of its messages; ``unknown``: nobody waits for a report any
            longer.
    """

    user: str | None = None
    key: str | None = None
    state: str | None = None
    template: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: UUID | None = None
    limit: int = 100
    provider_status: str | None = None
    #: A number in E.164: what was given it inline, and what its present owners got.
    phone: str | None = None
    #: The key of a blast.
    blast: str | None = None
    #: The id of the notification itself.
    id: UUID | None = None
    #: The project whose notifications they are; ``None``: those of all.
    project: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The state of one step of a notification.

    Attributes:
        provider: who took the message; ``None`` for a push, and while nobody has.
        provider_status, provider_error: what it reported afterwards.
    """

    channel: str
    state: str
    reason: str | None
    provider: str | None
    provider_status: str | None
    provider_error: int | str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One notification of the history.

    Attributes:
        user: the application's id of the person.
        key: the idempotency key it was sent with.
        project: the application to which it belongs.
        provider_status: what became of the last message that a provider took, as the provider reported it.
        test: no provider was called for it.
    """

    id: str
    state: str
    reason: str | None
    user: str | None
    key: str | None
    project: str | None
    category: str
    template: str | None
    created_at: datetime
    finished_at: datetime | None
    steps: Sequence[Step]
    provider_status: str | None
    test: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the history, newest first.

    Attributes:
        next: the id before which the next page begins; ``None``: this was the last.
    """

    messages: Sequence[Entry]
    next: UUID | None


def merged(pages: Sequence[Page], limit: int) -> Page:
    """Return the first page of what several databases hold, from the first page of each."""
    # What is older than where a page ends may be missing from it.
    known_until = max((page.next for page in pages if page.next is not None), default=None)
    found = sorted((one for page in pages for one in page.messages), key=lambda one: UUID(str(one.id)), reverse=True)
    sure = [one for one in found if known_until is None or UUID(str(one.id)) >= known_until]
    if len(sure) > limit:
        return Page(sure[:limit], UUID(str(sure[limit - 1].id)))
    return Page(sure, known_until)


# One row at least: how far it looked. The optional conditions are constants of this file.
_PAGE = """
WITH seen AS MATERIALIZED (
  SELECT
    n.id,
    n.batch_id,
    n.state,
    n.reason,
    n.user_id,
    n.key,
    n.project,
    n.created_at,
    n.finished_at
  {source}
  LIMIT :scan
),
matching AS (
  SELECT
    seen.*,
    b.category,
    b.content ->> 'template' AS template
  FROM seen
  JOIN batches b ON b.id = seen.batch_id
  WHERE coalesce(seen.state = :state, true)
    AND coalesce(b.content ->> 'template' = :template, :template IS NULL)
    AND (CAST(:reported AS text) IS NULL OR EXISTS (
      SELECT FROM deliveries d
      WHERE d.notification_id = seen.id AND d.step > 0 AND d.state = 'sent' AND :reported = CASE
        WHEN d.reported_at IS NOT NULL AND {real} AND coalesce(d.provider_status, 'sent') = 'sent' THEN 'unknown'
        ELSE d.provider_status
      END))
  ORDER BY seen.id DESC
  LIMIT :most
)
SELECT
  m.*,
  (SELECT count(*) FROM seen) AS scanned,
  (SELECT id FROM seen ORDER BY id LIMIT 1) AS reached
FROM (SELECT) one
LEFT JOIN matching m ON true
ORDER BY m.id DESC
"""
_SPAN = "n.id >= CAST(:since AS uuid) AND n.id < CAST(:before AS uuid) {indexed}"
_NEWEST = f"FROM notifications n WHERE {_SPAN} ORDER BY n.id DESC"
_SINCE, _BEFORE = by_time.span("CAST(:since AS uuid)"), by_time.span("CAST(:before AS uuid)")
# Person by person along the index over times, users and numbers. Asked for all at once PostgreSQL may read the whole
# history backwards, for people of whom there is nothing.
_OF_PEOPLE = f"""
FROM unnest(CAST(:people AS text[])) AS own(person)
CROSS JOIN LATERAL (
  SELECT * FROM notifications n
  WHERE {_SPAN} AND coalesce(n.user_id, n.phone) = own.person
    AND {by_time.span("n.id")} BETWEEN {_SINCE} AND {_BEFORE}
  ORDER BY {by_time.span("n.id")} DESC, n.id DESC
  LIMIT :scan
) n
ORDER BY n.id DESC
"""
# Page by page: the ids of a page's notifications lie behind its own and before the next page's.
_OF_BLAST = f"""
FROM (
  SELECT p.id FROM blast_pages p JOIN blasts b ON b.id = p.blast_id
  WHERE b.key = :blast AND p.sent_at IS NOT NULL AND p.id < CAST(:before AS uuid)
  ORDER BY p.id DESC
) p
CROSS JOIN LATERAL (
  SELECT * FROM notifications n
  WHERE {_SPAN} AND n.batch_id = p.id
  ORDER BY n.id DESC
) n
ORDER BY p.id DESC, n.id DESC
"""
# A number may look like the id of a user.
_BY_USER = "AND n.user_id = :user"
_BY_KEY = "AND n.key = :key AND n.state <> 'duplicate'"
_BY_ID = "AND n.id = CAST(:own AS uuid)"
_BY_BLAST = "AND n.batch_id IN (SELECT p.id FROM blast_pages p JOIN blasts b ON b.id = p.blast_id WHERE b.key = :blast)"
# By the index over projects and ids, so that a page looks at no other project's rows, and tells nothing of how many.
_BY_PROJECT = "AND n.project = :project"
_OWNERS = text("SELECT user_id FROM phones WHERE number = :number")


def page(conn: Connection, wanted: Wanted) -> Page:
    """Return a page of the history."""
    rows, all_scanned = _scan(conn, wanted)
    found = [row for row in rows if row.id is not None]
    following = None
    if len(found) > wanted.limit:
        found = found[: wanted.limit]
        following = UUID(str(found[-1].id))
    elif not all_scanned:
        following = UUID(str(rows[0].reached))
    steps = _steps(conn, [str(row.id) for row in found])
    return Page([_entry(row, steps[str(row.id)]) for row in found], following)


def _scan(conn: Connection, wanted: Wanted) -> tuple[Sequence[Row[Any]], bool]:
    """Return the rows that fit, and whether there are no more to look at."""
    filtered = any(value is not None for value in (wanted.state, wanted.template, wanted.provider_status))
    scan = max(SCAN_LIMIT, wanted.limit + 1) if filtered else wanted.limit + 1
    conditions = (
        (_BY_USER, wanted.user),
        (_BY_KEY, wanted.key),
        (_BY_BLAST, wanted.blast),
        (_BY_ID, wanted.id),
        (_BY_PROJECT, wanted.project),
    )
    indexed = [condition for condition, value in conditions if value is not None]
    people = [wanted.user] if wanted.phone is None else [wanted.phone, *_owners(conn, wanted.phone)]
    source = _NEWEST
    if people != [None]:
        source = _OF_PEOPLE
    elif wanted.blast is not None:
        source = _OF_BLAST
    bounds = {
        "since": str(_FIRST if wanted.since is None else _id_at(wanted.since)),
        "before": str(min(wanted.before or _LAST, _LAST if wanted.until is None else _id_at(wanted.until))),
    }
    query = text(_PAGE.format(source=source.format(indexed=" ".join(indexed)), real=real_message("d")))
    # As text, or PostgreSQL cannot tell the type of what is left out.
    filters = {"state": wanted.state or None, "template": wanted.template, "reported": wanted.provider_status or None}
    rows = conn.execute(
        query,
        {
            **bounds,
            **filters,
            "user": wanted.user,
            "key": wanted.key,
            "people": people,
            "blast": wanted.blast,
            "project": wanted.project,
            "own": wanted.id and str(wanted.id),
            "scan": scan,
            "most": wanted.limit + 1,
        },
    ).all()
    return rows, rows[0].scanned != scan


def _owners(conn: Connection, number: str) -> list[str]:
    return [row.user_id for row in conn.execute(_OWNERS, {"number": number})]


_STEPS = text("""
SELECT
  notification_id,
  step,
  channel,
  state,
  reason,
  provider,
  provider_id,
  provider_status,
  reported_at,
  coalesce(to_jsonb(provider_error_text), to_jsonb(provider_error)) AS error
FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[]))
ORDER BY notification_id, step
""")


def _steps(conn: Connection, ids: Sequence[str]) -> dict[str, list[tuple[int, Step]]]:
    """Return notification id → its steps with their numbers."""
    steps: dict[str, list[tuple[int, Step]]] = {id_: [] for id_ in ids}
    for row in conn.execute(_STEPS, {"ids": list(ids)}) if ids else ():
        provider = taken_by(row.step, row.provider, row.provider_id)
        reported = status(row.provider_status, given_up=given_up(row.provider, row.reported_at))
        step = Step(row.channel, row.state, row.reason, provider, reported, row.error)
        steps[str(row.notification_id)].append((row.step, step))
    return steps


def _entry(row: Row[Any], steps: Sequence[tuple[int, Step]]) -> Entry:
    return Entry(
        id=str(row.id),
        state=row.state,
        reason=row.reason,
        user=row.user_id,
        key=row.key,
        project=real_side(row.project),
        category=row.category,
        template=row.template,
        created_at=row.created_at,
        finished_at=row.finished_at,
        steps=[step for _, step in steps],
        provider_status=last_report((place, step.state, step.provider_status) for place, step in steps),
        test=is_test(row.project),
    )


def _id_at(at: datetime) -> UUID:
    """Return the first id of a time; ids carry milliseconds."""
    # Not timestamp(), which fails at the ends of the calendar.
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=min(max(0, milliseconds), 2**48 - 1) << 80)
