"""What runs for each notification, and what tells of it, reads indexes: nobody ever reads a whole table for it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Batch, Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.audience import opt_outs, people
from knocktwice_worker.brake import place, push_counts, text_counts, text_ranges
from knocktwice_worker.brake.pumping import Numbers
from knocktwice_worker.content import resolution
from knocktwice_worker.database import planner
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import change_feed, push_claims, removal
from knocktwice_worker.privacy import erasure, notifications, retention
from knocktwice_worker.reporting.story import tell
from support.databases import new_database
from support.sent_messages import placed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from knocktwice_worker.embedded.servers import Servers

#: Enough that reading them all costs more than an index, as PostgreSQL reckons.
BATCHES, PEOPLE = 5_000, 4
MINUTE = timedelta(minutes=1)
#: Tables of a few rows, which an index would only make larger.
SMALL = {"brakes", "followers", "pauses"}

GENERATE = (
    "INSERT INTO users (id) SELECT 'u-' || g FROM generate_series(1, :people) g",
    "INSERT INTO devices (registration, user_id) SELECT 'r-' || g, 'u-' || g FROM generate_series(1, :people) g",
    "INSERT INTO phones (user_id, number) SELECT 'u-' || g, '+43660' || 1000000 + g FROM generate_series(1, :people) g",
    "INSERT INTO untextable (number, channel, reason) SELECT '+43660' || 1000000 + g, 'sms', 'landline' FROM generate_series(1, :people) g",
    """
    INSERT INTO batches (id, content, category, ttl, reference, created_at)
    SELECT DISTINCT ON (batch) batch, CAST('{}' AS jsonb), 'transactional', interval '1 hour', CAST('{}' AS jsonb), now() - interval '1 year'
    FROM unnest(CAST(:ids AS uuid[]), CAST(:batches AS uuid[])) AS r(id, batch)
    """,
    """
    INSERT INTO notifications (id, batch_id, user_id, params, key, state, reason, finished_at)
    SELECT id, batch, 'u-' || n, '{}', 'k-' || n, CASE WHEN n % 10 = 0 THEN 'active' ELSE 'reached' END,
           CASE WHEN n % 10 > 0 THEN 'x' END, CASE WHEN n % 10 > 0 THEN now() - interval '1 year' END
    FROM unnest(CAST(:ids AS uuid[]), CAST(:batches AS uuid[])) WITH ORDINALITY AS r(id, batch, n)
    """,
    """
    INSERT INTO deliveries (notification_id, step, channel, state, trigger, due_at, wake_at, finished_at, number, counted_at)
    SELECT id, step, CASE step WHEN 0 THEN 'push' ELSE 'sms' END,
           CASE WHEN state <> 'active' THEN 'sent' WHEN step = 0 THEN 'sending' ELSE 'scheduled' END,
           CASE step WHEN 1 THEN 'not_clicked' END, now(), CASE state WHEN 'active' THEN now() + interval '1 hour' END,
           CASE WHEN state <> 'active' THEN now() END, CASE WHEN step = 1 AND state <> 'active' THEN '+43660' || 1000000 + n END, now()
    FROM (SELECT *, row_number() OVER () AS n FROM notifications) r, generate_series(0, 1) AS step
    """,
    "INSERT INTO attempts (notification_id, registration, state) SELECT id, 'r-1', 'open' FROM notifications",
    "INSERT INTO events (notification_id, kind, registration, at) SELECT id, 'clicked', '', now() FROM notifications WHERE state <> 'active'",
    "INSERT INTO decisions (notification_id, step, verdict, inputs) SELECT id, 1, 'x', '{}' FROM notifications",
    """INSERT INTO blasts (id, key, filter, message, state, finished_at)
       SELECT gen_random_uuid(), 'b-' || g, '{}', '{}', 'finished', now() FROM generate_series(1, 5000) g""",
    "INSERT INTO blast_pages (id, last_id, blast_id, count) SELECT gen_random_uuid(), id, id, 1 FROM blasts",
    "INSERT INTO links (token, notification_id, step, target) SELECT md5(CAST(id AS text)), id, 1, 'https://x' FROM notifications",
    "INSERT INTO opt_outs (number, source) SELECT number, 'STOP' FROM phones",
    "INSERT INTO channel_opt_outs (number, channel, source) SELECT number, 'whatsapp', 'letter' FROM phones",
    "INSERT INTO suppressions (number) SELECT sha256(CAST(number AS bytea)) FROM phones",
    "INSERT INTO erasures (person, erased_at) SELECT sha256(CAST(id AS bytea)), now() FROM users",
)


class Archive:
    """A database with a history."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        with engine.begin() as conn:
            batches = [str(uuid7()) for _ in range(BATCHES)]
            self.ids = [str(uuid7()) for _ in range(BATCHES * PEOPLE)]
            values = {"ids": self.ids, "batches": sorted(batches * PEOPLE), "people": len(self.ids)}
            for statement in GENERATE:
                names = re.findall(r"(?<!:):(\w+)", statement)
                conn.execute(sa.text(statement), {name: values[name] for name in names})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(sa.text("VACUUM ANALYZE"))
        self.open = self.ids[9::10]
        self.batch = batches[0]

    def plans(self, work: Callable[[sa.Connection], object]) -> str:
        """Return how PostgreSQL executes all statements that ``work`` sends."""
        sent: list[tuple[str, Any]] = []

        def note(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            sent.append((statement, parameters))

        with self.engine.connect() as conn:
            sa.event.listen(conn, "before_cursor_execute", note)
            try:
                work(conn)
            finally:
                sa.event.remove(conn, "before_cursor_execute", note)
                conn.rollback()
            rows = [
                str(line)
                for statement, parameters in sent
                for (line,) in conn.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            ]
            conn.rollback()
        return "\n".join(rows)


@pytest.fixture(scope="module")
def archive(servers: Servers) -> Iterator[Archive]:
    with new_database(servers) as url:
        engine = sa.create_engine(url, poolclass=sa.StaticPool)
        yield Archive(engine)
        engine.dispose()


def _receipts(ids: Sequence[str]) -> list[ReceiptEvent]:
    return [ReceiptEvent(UUID(i), Receipt.CLICKED, datetime.now(UTC), "r-1") for i in ids]


def _push(conn: sa.Connection, ids: Sequence[str]) -> None:
    results = [store.PushResult(i, "r-1", state=AttemptState.SENT) for i in ids]
    store.record_push(conn, results, retry_for=MINUTE)


def _given() -> Batch:
    recipients = [{"id": str(uuid7()), "registrations": [f"r-{n}", f"unheard-of-{n}"]} for n in range(1, 51)]
    content = {"push": {"title": "t", "body": "b"}}
    return parse_batch({"v": 1, "id": str(uuid7()), "content": content, "recipients": recipients})


HOT: dict[str, tuple[Callable[[sa.Connection, Archive], object], list[str]]] = {
    "the dispatcher": (lambda c, _: store.ring(c, limit=500, lease=MINUTE), ["deliveries_wake_at_idx"]),
    "the record of pushes": (lambda c, a: _push(c, a.open[:50]), ["attempts_pkey", "notifications_pkey"]),
    "the decision": (
        lambda c, a: store.due(c, a.open[:50]),
        [
            "deliveries_pkey",
            "notifications_pkey",
            "phones_pkey",
            "opt_outs_pkey",
            "channel_opt_outs_pkey",
            "untextable_pkey",
            "events_pkey",
        ],
    ),
    "the reservation": (
        lambda c, a: store.reserve(c, [store.Reservation(i, "+436601234567", "t", b"f") for i in a.open[:50]], MINUTE),
        ["deliveries_pkey"],
    ),
    "the last look": (lambda c, a: store.reserved(c, a.open[:50]), ["deliveries_pkey"]),
    "the claim": (lambda c, a: store.claim_steps(c, placed(a.open[:50]), MINUTE), ["deliveries_pkey"]),
    "receipts": (
        lambda c, a: store.settle_receipts(c, store.record_receipts(c, _receipts(a.open[:50]))),
        ["deliveries_pkey", "events_pkey"],
    ),
    "receipts that name devices": (lambda c, a: people.see(c, _receipts(a.open[:50])), ["devices_pkey"]),
    "a cancellation by key": (
        lambda c, _: store.cancel(c, [], ["k-10"], datetime.now(UTC)),
        ["notifications_project_key_idx", "deliveries_pkey"],
    ),
    "the acceptance of given registrations": (
        lambda c, _: store.accept(c, [store.Intake(_given(), {}, MINUTE)], lease=MINUTE),
        ["devices_pkey"],
    ),
    "the languages of given registrations": (
        lambda c, _: resolution._known_locales(c, [_given()]),
        ["devices_pkey", "users_pkey"],
    ),
    "the claim of given registrations": (
        lambda c, a: c.execute(push_claims._SETTLE_GIVEN, {"ids": a.open[:50]}),
        ["attempts_pkey", "devices_pkey", "notifications_pkey"],
    ),
    "a story by id": (lambda c, a: tell(c, a.ids[7]), ["notifications_pkey", "deliveries_pkey", "decisions_pkey"]),
    "a story by key": (lambda c, _: tell(c, "k-7"), ["notifications_project_key_idx", "attempts_pkey", "events_pkey"]),
    "opt-outs of erased people": (lambda c, _: opt_outs.suppressed(c, {"+43660100"}, b"s"), ["suppressions_pkey"]),
}


@pytest.mark.parametrize("name", HOT)
def test_nothing_that_runs_for_each_notification_reads_a_table(archive: Archive, name: str) -> None:
    work, indexes = HOT[name]
    told = archive.plans(lambda conn: work(conn, archive))
    assert [index for index in indexes if index not in told] == [], told
    assert set(re.findall(r"Seq Scan on (\w+)", told)) - SMALL == set(), told


def test_a_person_is_found_by_index(archive: Archive) -> None:
    page = {
        "user": "u-7", "people": ["u-7", "+436601000007"], "inline": ["+436601000007"], "until": datetime.now(UTC),
        "boundary": str(uuid7()), "after": str(UUID(int=0)), "limit": 500,
    }  # fmt: skip
    told = archive.plans(lambda conn: conn.execute(notifications.PAGE, page))
    told += archive.plans(lambda conn: conn.execute(erasure.OF_PERSON, {"user": "u-7", "until": datetime.now(UTC)}))
    told += archive.plans(
        lambda conn: conn.execute(notifications.BLANK_BATCHES, {"ids": archive.ids[:1], "batches": [archive.batch]})
    )
    told += archive.plans(lambda conn: conn.execute(erasure.SHARED, {"user": "u-7", "numbers": ["+436601000007"]}))
    assert "phones_number_idx" in told
    assert "notifications_person_by_time_idx" in told
    assert "notifications_batch_id_idx" in told
    assert re.findall(r"Seq Scan on (\w+)", told) == [], told


def test_old_rows_are_found_by_index(archive: Archive) -> None:
    until = datetime.now(UTC) - timedelta(days=90)
    page = {"until": until, "after": str(UUID(int=0)), "boundary": str(uuid7()), "limit": 100}
    told = archive.plans(lambda conn: conn.execute(retention._OLD, page))
    assert "notifications_pkey" in told
    told += archive.plans(lambda conn: conn.execute(retention._BATCHES, page))
    assert "notifications_batch_id_idx" in told
    told += archive.plans(lambda conn: conn.execute(retention._LINKS, {"ids": archive.ids[:100]}))
    told += archive.plans(lambda conn: removal.delete(conn, archive.ids[:100]))
    assert set(re.findall(r"Seq Scan on (\w+)", told)) <= {"batches"}, told


def test_a_registered_follower_reads_no_notification_when_it_looks_again(archive: Archive) -> None:
    read = sa.text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'notifications'")
    with archive.engine.connect() as conn:
        before = conn.execute(read).scalar_one()
        change_feed.join(conn, "a follower")
        first = conn.execute(read).scalar_one()
        change_feed.join(conn, "a follower")
        again = conn.execute(read).scalar_one()
        conn.rollback()
    assert (first - before, again - first) == (len(archive.ids), 0)


@pytest.mark.parametrize(
    "statement",
    [change_feed.CHANGED, push_counts._COUNT.text, text_counts._COUNT.text, text_counts._SETTLE.text],
    ids=["the change feed", "pushes that went", "messages that went", "messages that are settled"],
)
def test_a_moment_that_is_over_is_looked_at_without_the_pages_of_others(archive: Archive, statement: str) -> None:
    moment = datetime.now(UTC) - timedelta(days=180)
    span = {"after": moment, "until": moment + MINUTE, "settle": MINUTE, "slot": MINUTE, "origin": place.ORIGIN}
    with archive.engine.connect() as conn:
        # Old and new rows lie side by side on every page.
        conn.execute(
            sa.text("UPDATE deliveries SET finished_at = now() - interval '1 year' WHERE step = 1 AND wake_at IS NULL")
        )
        conn.execute(sa.text("UPDATE deliveries SET heard_at = finished_at WHERE wake_at IS NULL"))
        conn.execute(
            sa.text(
                "INSERT INTO text_counts (template, project, slot, prefix, messages) VALUES ('', '', now(), '+4366010', 1)"
            )
        )
        (pages,) = conn.execute(sa.text("SELECT pg_relation_size('deliveries') / 8192")).one()
        planner.by_index(conn)
        ((told,),) = conn.execute(sa.text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"), span).all()
        conn.rollback()
    read = told[0]["Plan"]["Shared Hit Blocks"] + told[0]["Plan"]["Shared Read Blocks"]
    assert read < pages / 5


def test_the_pumping_guard_asks_number_by_number_whether_it_was_texted_before(archive: Archive) -> None:
    told = archive.plans(lambda conn: text_ranges.crowding_of(conn, Numbers("+43660", "", ""), MINUTE, most=1_000))
    # As a join it may be planned for the single number that the planner expects, and read all messages for each of
    # many.
    one = r"Limit .*\n +->  Index Scan using deliveries_number_by_day_idx on deliveries o .*\n"
    assert re.search(one + r" +Index Cond: .* AND \(number = ", told), told


def test_the_brake_finds_refused_pushes_without_what_else_waits(archive: Archive) -> None:
    now = datetime.now(UTC)
    given = {
        "after": now - MINUTE, "until": now, "settle": push_counts.SETTLE,
        "slot": push_counts.SLOT, "origin": place.ORIGIN,
    }  # fmt: skip
    told = archive.plans(lambda conn: conn.execute(push_counts._COUNT, given))
    assert "attempts_tried_again_idx" in told
    assert "deliveries_wake_at_idx" not in told
