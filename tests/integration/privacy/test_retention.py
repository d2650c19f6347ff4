"""What is old and over is deleted, in pieces, by any number of workers; what is open stays, however old."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch, parse_blast
from knocktwice_worker import tasks
from knocktwice_worker.blasts import pages, standing, states
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.privacy import retention

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services
    from support.clock import Clock

KEEP, DAY = timedelta(days=90), timedelta(days=1)
TABLES = ("batches", "notifications", "deliveries", "attempts", "events", "decisions", "dead_letters")


class History:
    """Notifications of another time."""

    def __init__(self, here: Services) -> None:
        self.here = here

    def happen(
        self, people: int = 2, *, open_: bool = False, key: str | None = None, id_: Callable[[], UUID] = uuid7
    ) -> None:
        """Have a batch accepted, and answered unless it stays open."""
        # In order: a blast finds the notifications of a page by their ids, which come after the page's own.
        batch, *ids = sorted(id_() for _ in range(people + 1))
        recipients: list[dict[str, Any]] = [{"id": str(i), "registrations": [f"r-{n}"]} for n, i in enumerate(ids)]
        if key:
            recipients[0]["key"] = key
        wire = {
            "v": 1,
            "id": str(batch),
            "content": {"push": {"title": "t", "body": "b"}},
            "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 60}],
            "recipients": recipients,
        }
        with self.here.engine.begin() as conn:
            work = store.accept(conn, [store.Intake(parse_batch(wire), {}, DAY)], lease=DAY)
            results = [store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT) for w in work]
            store.record_push(conn, results, retry_for=DAY)
            if not open_:
                clicks = [ReceiptEvent(UUID(w.notification_id), Receipt.CLICKED, datetime.now(UTC)) for w in work]
                store.settle_receipts(conn, store.record_receipts(conn, clicks))
            dead_letters.park(conn, message_id=None, task=None, reason="test", payload=json.dumps(wire))

    def counts(self) -> dict[str, int]:
        with self.here.engine.connect() as conn:
            return {t: int(conn.execute(sa.text(f"SELECT count(*) FROM {t}")).scalar_one()) for t in TABLES}  # noqa: S608

    def purge(self) -> retention.Removed:
        return retention.purge(self.here.engine, KEEP)


@pytest.fixture
def history(here: Services) -> History:
    return History(here)


def test_what_ended_long_ago_goes_with_all_that_belongs_to_it(history: History, clock: Clock) -> None:
    history.happen(3)
    clock.advance(KEEP + DAY)
    history.happen(2)
    assert history.purge() == (3, 1, 1, 0, False)
    left = {
        "batches": 1,
        "notifications": 2,
        "deliveries": 4,
        "attempts": 2,
        "events": 2,
        "decisions": 2,
        "dead_letters": 1,
    }
    assert history.counts() == left
    assert history.purge() == (0, 0, 0, 0, False)


def test_a_day_too_early_nothing_goes_and_zero_keeps_for_ever(history: History, clock: Clock) -> None:
    history.happen()
    before = history.counts()
    clock.advance(KEEP - DAY)
    assert history.purge() == (0, 0, 0, 0, False)
    clock.advance(10 * KEEP)
    assert retention.purge(history.here.engine, timedelta()) == (0, 0, 0, 0, False)
    assert history.counts() == before


def test_what_is_open_stays_however_old_and_its_batch_with_it(history: History, clock: Clock) -> None:
    history.happen(2, open_=True)
    history.happen(2)
    clock.advance(10 * KEEP)
    assert history.purge()[:2] == (2, 1)
    counts = history.counts()
    assert (counts["notifications"], counts["batches"], counts["deliveries"]) == (2, 1, 4)


def test_a_key_may_be_used_again_once_its_notification_is_deleted(history: History, clock: Clock) -> None:
    history.happen(1, key="order-4711")
    clock.advance(KEEP - DAY)
    history.happen(1, key="order-4711")
    states = sa.text("SELECT state FROM notifications ORDER BY id")
    with history.here.engine.connect() as conn:
        assert list(conn.execute(states).scalars()) == ["reached", "duplicate"]
    clock.advance(2 * DAY)
    history.purge()
    history.happen(1, key="order-4711")
    with history.here.engine.connect() as conn:
        assert list(conn.execute(states).scalars()) == ["duplicate", "reached"]


def test_ids_that_are_no_uuid7_are_found_as_well(history: History, clock: Clock) -> None:
    history.happen(3, id_=lambda: UUID(int=uuid4().int | 0xF << 124))
    clock.advance(KEEP + DAY)
    assert history.purge()[:2] == (3, 1)


@pytest.mark.parametrize("id_", [uuid7(), UUID(int=uuid4().int | 0xF << 124)], ids=["uuid7", "another"])
def test_a_batch_that_was_only_a_repeat_goes_when_its_time_comes(history: History, clock: Clock, id_: UUID) -> None:
    with history.here.engine.begin() as conn:
        insert = (
            "INSERT INTO batches (id, content, category, ttl, reference) VALUES (:id, '{}', 'critical', '1 day', '{}')"
        )
        conn.execute(sa.text(insert), {"id": str(id_)})
    clock.advance(KEEP - DAY)
    assert history.purge() == (0, 0, 0, 0, False)
    clock.advance(2 * DAY)
    assert history.purge() == (0, 1, 0, 0, False)


def _blast(history: History, key: str, *, finished: bool) -> str:
    """A blast with a page that was sent and one that waits, or was thrown away."""
    history.happen(2)
    with history.here.engine.begin() as conn:
        batch = conn.execute(
            sa.text("SELECT id FROM batches WHERE id NOT IN (SELECT id FROM blast_pages) ORDER BY id DESC LIMIT 1")
        ).scalar_one()
        wire = {"v": 1, "key": key, "filter": {"everyone": True}, "content": {"push": {"title": "t", "body": "b"}}}
        states.start(conn, parse_blast(wire), {"everyone": True})
        blast = conn.execute(sa.text("SELECT id FROM blasts WHERE key = :key"), {"key": key}).scalar_one()
        pages = """INSERT INTO blast_pages (id, last_id, blast_id, count, users, sent_at) VALUES
          (:batch, :last, :blast, 2, NULL, knocktwice_now()), (:next, :last, :blast, 1, :left, NULL)"""
        left = None if finished else ["u-1"]
        conn.execute(
            sa.text(pages),
            {"batch": batch, "next": uuid7(), "last": UUID(int=2**128 - 1), "blast": blast, "left": left},
        )
        if finished:
            end = "UPDATE blasts SET state = 'finished', wake_at = NULL, finished_at = knocktwice_now() WHERE id = :id"
            conn.execute(sa.text(end), {"id": blast})
    return str(blast)


def test_of_a_blast_that_is_over_its_key_and_numbers_stay_and_one_that_runs_stays_whole(
    history: History, clock: Clock
) -> None:
    _blast(history, "over", finished=True)
    running = _blast(history, "runs", finished=False)
    clock.advance(KEEP + DAY)
    assert history.purge() == (4, 2, 2, 2, False)
    with history.here.engine.begin() as conn:
        over = standing.find(conn, "over")
        assert over is not None
        assert (over.sent, over.state) == (2, "finished")
        again = parse_blast({"v": 1, "key": "over", "filter": {"everyone": True}, "content": {"template": "x"}})
        assert not states.start(conn, again, {"everyone": True})
        found = standing.find(conn, running)
        assert found is not None
        assert found.sent == 2
        said = {row.key: row.message for row in conn.execute(sa.text("SELECT key, message FROM blasts"))}
        assert [key for key, message in said.items() if message] == ["runs"]
        (waiting,) = conn.execute(sa.text("SELECT CAST(id AS text) FROM blast_pages WHERE users IS NOT NULL")).scalars()
        page = pages.find(conn, waiting)
        assert page is not None
        assert list(page.people.values()) == ["u-1"]
        assert pages.take(conn, waiting)


def test_pages_that_go_in_pieces_are_all_counted(
    history: History, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNK", 1)
    _blast(history, "over", finished=True)
    history.happen(3)
    with history.here.engine.begin() as conn:
        more = """INSERT INTO blast_pages (id, last_id, blast_id, count, sent_at)
          SELECT b.id, :last, (SELECT id FROM blasts), 3, knocktwice_now() FROM batches b
          WHERE b.id NOT IN (SELECT id FROM blast_pages)"""
        conn.execute(sa.text(more), {"last": UUID(int=2**128 - 1)})
    clock.advance(KEEP + DAY)
    assert history.purge() == (5, 2, 2, 3, False)
    with history.here.engine.begin() as conn:
        over = standing.find(conn, "over")
    assert over is not None
    assert over.sent == 5


def test_a_page_stays_while_somebody_in_it_is_waiting_so_that_an_abort_finds_them(
    history: History, clock: Clock
) -> None:
    blast = _blast(history, "k", finished=True)
    with history.here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE notifications SET state = 'active', reason = NULL, finished_at = NULL"))
    clock.advance(KEEP + DAY)
    assert history.purge() == (0, 0, 1, 1, False)
    with history.here.engine.begin() as conn:
        assert states.abort(conn, "k", "test")
        assert pages.next_to_cancel(conn, blast)
        assert conn.execute(sa.text("SELECT count(*) FROM blast_pages")).scalar_one() == 1


def test_workers_at_the_same_time_share_the_work(
    history: History, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "CHUNK", 7)
    for _ in range(10):
        history.happen(20)
    clock.advance(KEEP + DAY)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: history.purge(), range(3)))
    history.purge()
    assert not any(history.counts().values())


def test_a_run_that_takes_too_long_says_that_there_is_more(history: History, clock: Clock) -> None:
    history.happen()
    clock.advance(KEEP + DAY)
    first = retention.purge(history.here.engine, KEEP, run=timedelta())
    assert first == (2, 0, 0, 0, True)
    assert retention.purge(history.here.engine, KEEP) == (0, 1, 1, 0, False)


@pytest.mark.usefixtures("configured")
def test_housekeeping_does_it(history: History, here: Services, clock: Clock) -> None:
    assert here.settings.retention == KEEP
    history.happen()
    clock.advance(KEEP + DAY)
    tasks.housekeeping()
    assert not any(history.counts().values())
