"""Blasts on a real PostgreSQL: everybody once, whatever is repeated, lost, paused or ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import blast_id
from knocktwice_shared.messages import Blast, parse_blast
from knocktwice_shared.names import Queue, Task
from knocktwice_worker.audience import segments
from knocktwice_worker.audience.segment_filter import parse
from knocktwice_worker.blasts import expansion, forgetting, pages, request, standing, states
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.database.schema import blasts
from knocktwice_worker.reporting.story import tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.services import Services
    from support.clock import Clock

PEOPLE = 1_230
#: Every third of them does not belong.
MEMBERS = PEOPLE - PEOPLE // 3
WELCOME = {"default_locale": "en", "contents": {"en": {"push": {"title": "Hello", "body": "Have {{ tea }}."}}}}
TEA = {"field": "tags.likes", "op": "=", "value": "tea"}

#: Most people who were handed out in any minute.
BUSIEST = """
SELECT max(n) FROM (SELECT sum(count) OVER (
  ORDER BY released_at RANGE BETWEEN CURRENT ROW AND '59.999 s' FOLLOWING
) AS n FROM blast_pages WHERE {where}) w
"""

#: A blast of 2,000 pages that was sent before another.
_SENT_BEFORE = sa.text("""
WITH earlier AS (
  INSERT INTO blasts
  SELECT (jsonb_populate_record(b, jsonb_build_object('id', CAST(:earlier AS uuid), 'key', 'earlier'))).*
  FROM blasts b WHERE b.id = :like RETURNING id
)
INSERT INTO blast_pages (id, last_id, blast_id, count, released_at, sent_at)
SELECT CAST(md5(page::text) AS uuid), CAST(md5(page::text) AS uuid), earlier.id, 500, now(), now()
FROM earlier, generate_series(1, 2000) page
""")


class Broker:
    """Keeps what was published, and works it off when it is told to."""

    def __init__(self, here: Services) -> None:
        self.here = here
        self.waiting: list[tuple[Task, str]] = []

    def __call__(self, task: Task, ids: Sequence[str]) -> None:
        self.waiting += [(task, id_) for id_ in ids]

    def take(self, task: Task) -> list[str]:
        taken = [id_ for t, id_ in self.waiting if t is task]
        self.waiting = [(t, id_) for t, id_ in self.waiting if t is not task]
        return taken

    def run(self) -> None:
        """Work until nothing is waiting."""
        while self.waiting:
            task, id_ = self.waiting.pop(0)
            work = self.here.expansion
            {Task.EXPAND_BLAST: work.step, Task.SEND_PAGE: work.send_page}[task](id_, self)


def ask(key: str = "k", **more: Any) -> Blast:
    """A blast as it comes from an application."""
    content = {"template": "welcome"} if "content" not in more else more.pop("content")
    message: dict[str, Any] = {"v": 1, "key": key, "segment": "tea", "content": content, "params": {"tea": "Assam"}}
    if "filter" in more:
        del message["segment"]
    return parse_blast(message | more)


def start(here: Services, blast: Blast | None = None) -> request.Started:
    with here.engine.begin() as conn:
        return request.start(conn, blast or ask())


def row(here: Services, key: str = "k") -> Any:
    with here.engine.begin() as conn:
        return standing.find(conn, key)


def count(here: Services, query: str) -> int:
    with here.engine.begin() as conn:
        return int(conn.execute(sa.text(query)).scalar_one())


def everybody_once(here: Services, members: int = MEMBERS) -> bool:
    """Whether each member, and nobody else, has one notification."""
    with here.engine.begin() as conn:
        notified = list(conn.scalars(sa.text("SELECT user_id FROM notifications")))
        belong = set(conn.scalars(sa.text('SELECT id FROM users WHERE tags @> \'{"likes": "tea"}\'')))
    return len(notified) == members and set(notified) == belong


@pytest.fixture
def broker(working: Services, monkeypatch: pytest.MonkeyPatch) -> Broker:
    """A crowd, a segment, a template; and pages small enough that there are many."""
    monkeypatch.setattr(expansion, "_TAKEN", 200)
    monkeypatch.setattr(pages, "BATCH_LIMIT", 25)
    with working.engine.begin() as conn:
        conn.execute(
            sa.text("""
            INSERT INTO users (id, tags)
            SELECT 'u' || i, CASE WHEN i % 3 = 0 THEN '{"likes": "rum"}'::jsonb ELSE '{"likes": "tea"}' END
            FROM generate_series(1, :people) i
            """),
            {"people": PEOPLE},
        )
        segments.put(conn, "tea", parse(TEA))
        template_store.put(conn, "welcome", templates.check("welcome", WELCOME))
    return Broker(working)


def test_everybody_in_the_segment_gets_one_notification(working: Services, broker: Broker) -> None:
    assert start(working) == (blast_id("k"), True)
    working.expansion.ring(broker)
    broker.run()
    working.expansion.step(str(blast_id("k")), broker)
    assert everybody_once(working)
    blast = row(working)
    assert (blast.state, blast.total, blast.sent) == ("finished", MEMBERS, MEMBERS)
    with working.engine.begin() as conn:
        # Nobody has a device.
        assert standing.outcomes(conn, blast.id) == {"failed": MEMBERS}


def test_the_same_key_fires_once_also_with_another_segment(working: Services, broker: Broker) -> None:
    start(working)
    broker(Task.EXPAND_BLAST, [str(blast_id("k"))])
    broker.run()
    assert start(working, ask(filter={"everyone": True})) == (blast_id("k"), False)
    working.expansion.ring(broker)
    broker.run()
    assert everybody_once(working)


def test_who_comes_to_the_segment_later_is_not_notified(working: Services, broker: Broker) -> None:
    start(working)
    with working.engine.begin() as conn:
        segments.put(conn, "tea", parse({"everyone": True}))
    broker(Task.EXPAND_BLAST, [str(blast_id("k"))])
    broker.run()
    assert everybody_once(working)


def test_pages_that_are_sent_twice_notify_once(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    pages = broker.take(Task.SEND_PAGE)
    broker.waiting += [(Task.SEND_PAGE, page) for page in [*pages, *pages]]
    broker.run()
    assert everybody_once(working)


@pytest.mark.parametrize("end", ["aborted", "finished"])
def test_a_blast_that_is_over_is_not_begun_or_resumed(working: Services, broker: Broker, end: str) -> None:
    start(working)
    with working.engine.begin() as conn:
        if end == "aborted":
            assert states.abort(conn, "k", "enough")
        else:
            states.finish(conn, str(blast_id("k")))
        assert not states.start(conn, ask(), {"everyone": True})
        assert not states.resume(conn, str(blast_id("k")))
        assert not states.pause(conn, str(blast_id("k")), "late")
        # Nor is its end another one.
        assert not states.abort(conn, "k", "again") or end == "finished"
    assert row(working).state == "aborted"
    assert row(working).reason == ("enough" if end == "aborted" else "again")
    assert not broker.waiting


def test_a_page_that_somebody_took_is_nobodys_any_more(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    page, *_ = broker.take(Task.SEND_PAGE)
    taken = []
    for _ in range(2):
        with working.engine.begin() as conn:
            taken.append(pages.take(conn, page))
    assert taken == [True, False]


def test_a_page_that_a_worker_has_is_handed_to_no_other(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    first = broker.take(Task.SEND_PAGE)
    for page in first[:3]:
        working.expansion.send_page(page, broker)
    following = broker.take(Task.SEND_PAGE)
    assert following
    assert not set(following) & set(first)
    assert len(following) == len(set(following))


def test_what_was_lost_on_the_way_rings_again(working: Services, broker: Broker, clock: Clock) -> None:
    start(working)
    working.expansion.ring(broker)
    # The step is lost, then all pages that it handed out are.
    broker.take(Task.EXPAND_BLAST)
    working.expansion.ring(broker)
    assert not broker.waiting
    for _ in range(2):
        clock.advance(working.settings.lease + timedelta(seconds=1))
        working.expansion.ring(broker)
        (step,) = broker.take(Task.EXPAND_BLAST)
        working.expansion.step(step, broker)
        assert len(broker.take(Task.SEND_PAGE)) == pages.IN_FLIGHT
    clock.advance(working.settings.lease + timedelta(seconds=1))
    working.expansion.ring(broker)
    broker.run()
    assert everybody_once(working)


def test_no_pages_are_handed_out_while_pushes_pile_up(working: Services, broker: Broker, clock: Clock) -> None:
    start(working)
    working.redis.rpush(Queue.PUSH, *["x"] * 40)
    working.expansion.step(str(blast_id("k")), broker)
    assert not broker.waiting
    assert row(working).total == MEMBERS
    working.redis.delete(Queue.PUSH)
    clock.advance(timedelta(seconds=1))
    working.expansion.ring(broker)
    broker.run()
    assert everybody_once(working)


def test_a_worker_has_a_few_pages_at_once_and_gets_the_next_as_it_sends(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    assert len(broker.waiting) == pages.IN_FLIGHT
    _, page = broker.waiting.pop(0)
    working.expansion.send_page(page, broker)
    assert len(broker.waiting) == pages.IN_FLIGHT


def test_a_paused_blast_sends_nothing_until_it_is_resumed(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    with working.engine.begin() as conn:
        assert states.pause(conn, str(blast_id("k")), "wait")
        assert not states.pause(conn, str(blast_id("k")), "wait")
    broker.run()
    assert count(working, "SELECT count(*) FROM notifications") == 0
    with working.engine.begin() as conn:
        assert states.resume(conn, str(blast_id("k")))
        conn.execute(sa.text("UPDATE blast_pages SET wake_at = NULL"))
    working.expansion.ring(broker)
    broker.run()
    assert everybody_once(working)


def test_an_aborted_blast_cancels_what_it_has_sent_and_sends_no_more(working: Services, broker: Broker) -> None:
    with working.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO devices (registration, user_id) SELECT 'silent-' || id, id FROM users"))
        conn.execute(sa.text("INSERT INTO phones (user_id, number) SELECT id, '+1650555' || substr(id, 2) FROM users"))
    start(working, ask(plan=[{"channel": "sms", "when": "not_clicked", "after_s": 600}]))
    working.expansion.step(str(blast_id("k")), broker)
    for page in broker.take(Task.SEND_PAGE)[:3]:
        working.expansion.send_page(page, broker)
    assert count(working, "SELECT count(*) FROM notifications WHERE state = 'active'") == 75
    with working.engine.begin() as conn:
        assert states.abort(conn, "k", "a mistake")
        assert not states.abort(conn, "k", "a mistake")
    working.expansion.ring(broker)
    broker.run()
    assert count(working, "SELECT count(*) FROM notifications") == 75
    assert count(working, "SELECT count(*) FROM notifications WHERE state = 'cancelled'") == 75
    assert count(working, "SELECT count(*) FROM deliveries WHERE wake_at IS NOT NULL") == 0
    # Who was on the pages that nobody will send is nobody's business any more.
    assert count(working, "SELECT count(*) FROM blast_pages WHERE users IS NOT NULL") == 0
    blast = row(working)
    assert (blast.state, blast.reason, blast.sent, blast.cancelled) == ("aborted", "a mistake", 75, 75)
    assert count(working, "SELECT count(*) FROM blasts WHERE wake_at IS NOT NULL") == 0


def test_a_page_in_the_hands_of_a_sender_is_cancelled_too(working: Services, broker: Broker) -> None:
    """The abort commits between the sender's look at the blast and its commit."""
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    page = broker.take(Task.SEND_PAGE)[0]
    with working.engine.begin() as sender:
        assert pages.take(sender, page)
        with working.engine.begin() as conn:
            states.abort(conn, "k", "a mistake")
    with working.engine.begin() as conn:
        pages.discard(conn, str(blast_id("k")))
        found = pages.next_to_cancel(conn, str(blast_id("k")))
        assert found is not None
        pages.cancelled(conn, found.id)
        assert pages.next_to_cancel(conn, str(blast_id("k"))) is None


def test_a_cancellation_that_overtakes_its_blast_stops_it(working: Services, broker: Broker) -> None:
    with working.engine.begin() as conn:
        states.abort(conn, "k", "cancelled by the application")
    assert not start(working).new
    working.expansion.ring(broker)
    broker.run()
    assert count(working, "SELECT count(*) FROM notifications") == 0


@pytest.mark.parametrize("per_min", [7, 100, 600])
def test_in_no_minute_are_more_people_notified_than_the_throttle_says(
    working: Services, broker: Broker, clock: Clock, per_min: int
) -> None:
    clock.set(datetime(2026, 11, 21, 12, tzinfo=UTC))
    start(working, ask(throttle_per_min=per_min))
    working.expansion.step(str(blast_id("k")), broker)
    for _ in range(60):
        broker.run()
        clock.advance(timedelta(seconds=2))
        working.expansion.ring(broker)
    with working.engine.begin() as conn:
        most = conn.execute(sa.text(BUSIEST.format(where="released_at IS NOT NULL"))).scalar_one()
        sent = conn.execute(sa.text("SELECT count(*) FROM notifications")).scalar_one()
    assert most <= per_min
    assert sent >= min(MEMBERS, per_min * 1.7)


@pytest.mark.parametrize(("first", "then"), [(100, 600), (600, 100)])
def test_a_throttle_that_is_changed_meanwhile_holds_from_then_on(
    working: Services, broker: Broker, clock: Clock, first: int, then: int
) -> None:
    clock.set(datetime(2026, 11, 21, 12, tzinfo=UTC))
    start(working, ask(throttle_per_min=first))
    working.expansion.step(str(blast_id("k")), broker)

    def minute() -> int:
        before = count(working, "SELECT count(*) FROM notifications")
        for _ in range(30):
            broker.run()
            clock.advance(timedelta(seconds=2))
            working.expansion.ring(broker)
        return count(working, "SELECT count(*) FROM notifications") - before

    minute()
    left = MEMBERS - count(working, "SELECT count(*) FROM notifications")
    with working.engine.begin() as conn:
        changed = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        assert states.throttle(conn, str(blast_id("k")), then)
    # People of the minute before the change count, so a slower blast stands still first.
    notified = [minute() for _ in range(3)]
    assert max(notified) >= min(left, 0.7 * then)
    with working.engine.begin() as conn:
        most = conn.execute(sa.text(BUSIEST.format(where="released_at >= :since")), {"since": changed}).scalar_one()
    assert most <= then
    while row(working).state != "finished":
        minute()
    assert everybody_once(working)
    with working.engine.begin() as conn:
        assert not states.throttle(conn, str(blast_id("k")), 5)


def test_a_throttle_below_the_groups_of_a_blast_is_refused(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    with working.engine.begin() as conn, pytest.raises(states.TooSlow, match="is the slowest; pause it"):
        states.throttle(conn, str(blast_id("k")), 5)


@pytest.mark.parametrize("per_min", [None, 600])
def test_a_blast_that_ran_while_the_clock_was_ahead_goes_on_when_it_is_back(
    working: Services, broker: Broker, clock: Clock, per_min: int | None
) -> None:
    clock.set(datetime(2026, 11, 21, 12, tzinfo=UTC))
    working.clock_watch.look()
    start(working, ask(throttle_per_min=per_min))
    clock.advance(timedelta(hours=26))
    working.clock_watch.look()
    working.expansion.step(str(blast_id("k")), broker)
    # Its pages are handed out, and the workers that have them die.
    handed_out = broker.take(Task.SEND_PAGE)
    broker.waiting.clear()
    assert handed_out
    clock.advance(timedelta(hours=-26))
    working.clock_watch.look()
    for _ in range(100):
        working.expansion.ring(broker)
        broker.run()
        clock.advance(timedelta(seconds=2))
    assert everybody_once(working)
    assert row(working).state == "finished"


@pytest.mark.usefixtures("broker")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"segment": "cofee"}, "segment: no segment 'cofee'"),
        ({"content": {"template": "wellcome"}}, "template: there is none called wellcome"),
        ({"params": {}}, r"template welcome \(en\): content.push.body: .*tea"),
        ({"filter": {"field": "tag.x", "op": "=", "value": 1}}, "filter"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is_and_keeps_its_key_free(
    working: Services, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidMessage, match=said):
        start(working, ask(**wrong))
    assert start(working).new


def test_a_user_who_is_forgotten_is_taken_out_of_the_pages_that_wait(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    with working.engine.begin() as conn:
        forgetting.forget_user(conn, "u1", UUID(int=2**128 - 1))
    broker.run()
    assert count(working, "SELECT count(*) FROM notifications WHERE user_id = 'u1'") == 0
    assert count(working, "SELECT count(*) FROM notifications") == MEMBERS - 1


def test_the_story_of_a_notification_names_its_blast(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    broker.run()
    with working.engine.begin() as conn:
        one = conn.execute(sa.text("SELECT id FROM notifications LIMIT 1")).scalar_one()
        told = tell(conn, str(one))
    assert told is not None
    assert told.blast == "k"
    assert told.moments[0].sentence.startswith("Accepted as one of the blast k;")


@pytest.mark.parametrize("what", ["filter", "message"])
def test_a_blast_that_this_version_cannot_read_is_aborted_and_says_why(
    working: Services, broker: Broker, what: str
) -> None:
    start(working)
    if what == "message":
        working.expansion.step(str(blast_id("k")), broker)
    with working.engine.begin() as conn:
        conn.execute(sa.update(blasts.blasts).values({what: {"unheard": 1}}))
    working.expansion.ring(broker)
    broker.run()
    blast = row(working)
    assert blast.state == "aborted"
    assert blast.reason.startswith("filter: must be an object" if what == "filter" else "unheard: is not a field")
    assert count(working, "SELECT count(*) FROM notifications") == 0


def test_pages_are_found_by_their_indexes_whatever_else_there_is(working: Services, broker: Broker) -> None:
    start(working)
    working.expansion.step(str(blast_id("k")), broker)
    broker.run()
    queries = {
        "blast_pages_waiting_idx": pages._RELEASE,
        "blast_pages_released_idx": pages._COUNT,
        "blast_pages_sent_idx": pages._TO_CANCEL,
        "Index Scan using notifications_": pages._OPEN,
    }
    values = {
        "id": blast_id("k"),
        "lease": timedelta(),
        "room": 1,
        "share": 1,
        "minute": 1,
        "first": blast_id("k"),
        "last": blast_id("k"),
    }
    with working.engine.begin() as conn:
        # Of a few pages the planner would read any index, whatever autovacuum has counted by then.
        conn.execute(_SENT_BEFORE, {"like": blast_id("k"), "earlier": blast_id("earlier")})
        conn.execute(sa.text("ANALYZE blast_pages"))
        conn.execute(sa.text("SET enable_seqscan = off; SET enable_bitmapscan = off"))
        for index, query in queries.items():
            wanted = {name: value for name, value in values.items() if f":{name}" in query.text}
            plan = "\n".join(conn.scalars(sa.text(f"EXPLAIN {query.text}"), wanted))
            assert index in plan, plan
