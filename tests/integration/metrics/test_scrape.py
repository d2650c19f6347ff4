"""The series for Prometheus: true for the whole installation, cheap, and there although a server hangs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import RedisError

from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import Task
from knocktwice_worker.channels.outbound import answers
from knocktwice_worker.channels.outcomes import Rejected, Retry, Sent, Unknown
from knocktwice_worker.counters import totals
from knocktwice_worker.counters.counters import Count, Counters, Span
from knocktwice_worker.fleet import members
from knocktwice_worker.fleet.members import Member
from knocktwice_worker.metrics import database, scrape
from knocktwice_worker.metrics.scrape import Scrapes
from knocktwice_worker.metrics.series import SERIES, Kind
from knocktwice_worker.notifications.store import alarms
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.reporting import rollups
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.services import Services
from knocktwice_worker.switches import overrides, pauses
from knocktwice_worker.switches.audit import By
from support import plans, watched
from support.own_valkey import OwnValkey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from redis import Redis

    from knocktwice_worker.config import Settings
    from support.clock import Clock


def _scrape(here: Services) -> dict[str, dict[tuple[str, ...], float]]:
    """Return sample → values of its labels → value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(Scrapes(here).text().decode()):
        for sample in family.samples:
            labels = [name for name in (*SERIES[family.name].labels, "le") if name in sample.labels]
            found.setdefault(sample.name, {})[tuple(sample.labels[name] for name in labels)] = sample.value
    return found


def _send(here: Services, count: int, **fields: Any) -> list[str]:
    people = [{"id": str(uuid7()), "registrations": [f"silent-{n}"], "phone": f"+1650555{n:04}"} for n in range(count)]
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}, "recipients": people}
    wire["plan"] = [{"channel": "sms", "when": "not_clicked", "after_s": 0}]
    here.accepted[Task.SEND_PUSH]([wire | fields])
    return [str(person["id"]) for person in people]


def test_what_a_worker_did_is_in_the_series(working: Services, clock: Clock) -> None:
    # The first push of a process waits for credentials and a connection.
    _send(working, 1, plan=[])
    working.counters.take()
    _send(working, 3)
    rung: list[str] = []
    dispatch(working, lambda _, ids: rung.extend(ids))
    working.later_steps.send(working.fallback.check(rung))
    # The roll-ups follow a second behind.
    clock.advance(timedelta(minutes=1))
    rollups.refresh(working.engine, working.settings.sms_day_zone, everything=True)
    totals.flush(working.redis, working.counters)
    found = _scrape(working)
    assert found["knocktwice_provider_answers_total"] == {("fcm", "sent", "none"): 3, ("twilio", "sent", "none"): 3}
    assert found["knocktwice_decisions_total"] == {("not_clicked",): 3}
    for span in ("timer_lateness", "enqueue_to_provider"):
        assert found[f"knocktwice_{span}_seconds_count"] == {(): 3}
    assert found["knocktwice_today_sms"]["transactional", "sent"] == 3
    assert found["knocktwice_today_sms_parts"]["transactional",] == 3
    assert found["knocktwice_today_notifications"]["transactional", "accepted"] == 4
    assert set(found["knocktwice_part_up"].values()) == {1}


def test_each_series_is_one_that_is_described_with_its_labels(working: Services) -> None:
    _send(working, 1)
    totals.flush(working.redis, working.counters)
    for family in text_string_to_metric_families(Scrapes(working).text().decode()):
        series = SERIES[family.name]
        assert family.type == series.kind
        for sample in family.samples:
            labels = set(sample.labels) - ({"le"} if series.kind is Kind.HISTOGRAM else set())
            assert labels == set(series.labels), sample.name


def test_rows_that_wait_are_counted_and_the_oldest_says_how_late_it_is(working: Services, clock: Clock) -> None:
    _send(working, 4, plan=[{"channel": "sms", "when": "not_clicked", "after_s": 240}])
    assert _scrape(working)["knocktwice_steps_due"] == {("5m",): 4, ("1h",): 4}
    clock.advance(timedelta(minutes=10))
    found = _scrape(working)
    assert found["knocktwice_steps_overdue"] == {(): 4}
    assert 300 < found["knocktwice_step_overdue_seconds"][()] < 420


def test_counts_of_many_processes_add_up_and_none_is_lost_while_redis_is_away(here: Services, valkey: Redis) -> None:
    one, other = Counters(), Counters()
    for counters in (one, other):
        counters.add(Count.DECISIONS, ["fell_back"], 2)
        counters.took(Span.RECEIPT_DELAY, 0.3, 5)
    with OwnValkey(here.settings.home / "gone") as gone:
        away = gone.client
        gone.kill()
        with pytest.raises(RedisError):
            totals.flush(away, one)
    for counters in (one, other):
        totals.flush(valkey, counters)
    found = _scrape(here)
    assert found["knocktwice_decisions_total"] == {("fell_back",): 4}
    assert found["knocktwice_receipt_delay_seconds_bucket"]["0.25",] == 0
    assert found["knocktwice_receipt_delay_seconds_bucket"]["0.5",] == 10
    assert found["knocktwice_receipt_delay_seconds_sum"][()] == pytest.approx(3)


def test_a_process_that_may_not_count_counts_nothing() -> None:
    counters = Counters(on=False)
    counters.add(Count.DECISIONS, ["fell_back"])
    counters.add_each(Count.DECISIONS, ["fell_back"])
    counters.took(Span.RECEIPT_DELAY, 1)
    assert counters.take() == {}


def test_answers_have_the_providers_own_codes_and_never_more_than_some(here: Services, valkey: Redis) -> None:
    answers.count(
        here.counters,
        "acme",
        [
            Sent("1"),
            Rejected("invalid_number", "Twilio 21211"),
            Rejected("unregistered", "FCM UNREGISTERED"),
            Rejected("too_long"),
            Retry("Twilio 20429", too_fast=True),
            Retry("Twilio 20003: the account or its token is wrong: TWILIO_ACCOUNT_SID", operators=True),
            Unknown("the provider did not answer in time"),
        ],
    )
    answers.count(here.counters, "talkative", [Rejected("refused", f"talkative {n}") for n in range(1000, 1200)])
    totals.flush(valkey, here.counters)
    found = _scrape(here)["knocktwice_provider_answers_total"]
    assert {labels[1:] for labels in found if labels[0] == "acme"} == {
        ("sent", "none"),
        ("rejected", "21211"),
        ("rejected", "UNREGISTERED"),
        ("rejected", "too_long"),
        ("too_fast", "20429"),
        ("refused", "20003"),
        ("unknown", "none"),
    }
    # An answer over HTTP has a status before the provider's own code, which may be short.
    assert answers.code_of(Rejected("refused", "acme 200 4")) == "4"
    assert answers.code_of(Unknown("acme 500 E-17")) == "E-17"
    assert answers.code_of(Rejected("refused", "acme 400")) == "400"
    talkative = {labels: count for labels, count in found.items() if labels[0] == "talkative"}
    assert len(talkative) <= 41
    assert sum(talkative.values()) == 200


def test_codes_that_never_end_fill_neither_memory_nor_redis(here: Services, valkey: Redis) -> None:
    for n in range(1_000):
        answers.count(here.counters, "talkative", [Rejected("refused", f"talkative 400 {n}")])
    answers.count(here.counters, "acme", [Rejected("refused", "acme 400 7")])
    totals.flush(valkey, here.counters)
    found = totals.read(valkey)
    assert len(found) == 102
    assert sum(found.values()) == 1_001
    assert found["provider_answers", "talkative", "rejected", "other"] == 900
    assert found["provider_answers", "acme", "rejected", "7"] == 1


class _Watched(Counters):
    """Counters that know how often they were asked to count."""

    times = 0

    def _add(self, more: Mapping[tuple[str, ...], float]) -> None:
        self.times += 1
        super()._add(more)


def test_a_batch_is_counted_at_once_however_large_and_redis_hears_of_it_in_one_trip(working: Services) -> None:
    counters = working.__dict__["counters"] = _Watched()
    times = []
    for size in (5, 50):
        before = counters.times
        ids = _send(working, size, content={"push": {"title": "t", "body": f"{size}"}})
        working.later_steps.send(working.fallback.check(ids))
        times.append(counters.times - before)
    assert times[0] == times[1] > 0
    # Not even while the work is done.
    assert not working.redis.keys("knocktwice:counters") + working.redis.keys("knocktwice:answers:*")
    trips: list[int] = []
    pipelined = working.redis.pipeline

    def counted(*args: Any, **given: Any) -> Any:
        trips.append(1)
        return pipelined(*args, **given)

    working.redis.pipeline = counted  # type: ignore[method-assign]
    totals.flush(working.redis, counters)
    assert len(trips) == 1
    assert totals.read(working.redis)["provider_answers", "fcm", "sent", "none"] == 55


def test_a_hanging_broker_takes_only_its_own_series_away(settings: Settings, tmp_path: Path) -> None:
    with OwnValkey(tmp_path / "hanging") as valkey:
        here = Services(settings.model_copy(update={"broker_url": valkey.url}))
        assert _scrape(here)["knocktwice_part_up"]["broker",] == 1
        valkey.suspend()
        found = _scrape(here)
        assert found["knocktwice_part_up"]["broker",] == 0
        assert found["knocktwice_part_up"]["database",] == 1
        assert found["knocktwice_steps_overdue"] == {(): 0}
        assert "knocktwice_queue_length" not in found
        valkey.resume()
        here.close()


def test_whoever_asks_within_a_moment_shares_one_look(here: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_FRESH_S", 3_600.0)
    scrapes = scrape.Scrapes(here)
    first = scrapes.text()
    with plans.noted(here.engine) as asked:
        assert scrapes.text() == first
    assert asked == []


def test_looks_do_not_pile_up_before_a_table_that_is_locked(here: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrape, "_FRESH_S", 0.0)
    monkeypatch.setattr(scrape, "PATIENCE_S", 0.3)
    waits = sa.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    scrapes, watcher = scrape.Scrapes(here), sa.create_engine(here.engine.url, poolclass=sa.NullPool)

    def waiting() -> int:
        with watcher.connect() as conn:
            return int(conn.execute(waits).scalar_one())

    with watcher.begin() as conn:
        conn.execute(sa.text("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE"))
        found = [(b'knocktwice_part_up{part="database"} 0.0' in scrapes.text(), waiting()) for _ in range(4)]
    watcher.dispose()
    assert found == [(True, found[0][1])] * 4
    assert found[0][1] >= 1


def test_workers_are_counted_by_queue_and_those_that_fell_silent_are_not(here: Services, valkey: Redis) -> None:
    fast = Member("a", "worker", "1", ("knocktwice.push", "knocktwice.sms"), {"secret": "x", "sms_per_day": "1"}, 0.5)
    slow = Member("b", "worker", "1", ("knocktwice.sms",), {"secret": "x", "sms_per_day": "2"}, -2.5, {"push": "no"})
    for member in (fast, slow):
        members.announce(valkey, member)
    found = _scrape(here)
    assert found["knocktwice_workers"] == {
        ("knocktwice.push",): 1,
        ("knocktwice.fallback",): 0,
        ("knocktwice.sms",): 2,
        ("knocktwice.events",): 0,
    }
    assert found["knocktwice_settings_differing"] == {(): 1}
    assert found["knocktwice_clock_ahead_seconds"] == {(): 2.5}
    assert found["knocktwice_credentials_failing"] == {("push",): 1}
    said = valkey.hget("knocktwice:members", "b")
    assert isinstance(said, bytes)
    at, _, rest = said.partition(b" ")
    valkey.hset("knocktwice:members", "b", f"{int(at) - members.GONE_S - 1} ".encode() + rest)
    assert _scrape(here)["knocktwice_workers"]["knocktwice.sms",] == 1


def test_a_member_of_a_later_version_that_says_more_does_not_hide_the_others(here: Services, valkey: Redis) -> None:
    members.announce(valkey, Member("a", "worker", "1", ("knocktwice.push",)))
    said = valkey.hget("knocktwice:members", "a")
    assert isinstance(said, bytes)
    valkey.hset("knocktwice:members", "b", said.replace(b'"name": "a"', b'"zone": "x", "name": "b"'))
    found = _scrape(here)
    assert found["knocktwice_part_up"]["broker",] == 1
    assert found["knocktwice_workers"]["knocktwice.push",] == 2


def test_pauses_are_counted_by_channel_with_what_waits_for_them(working: Services) -> None:
    why = By("ada", "the operator there is down")
    with working.engine.begin() as conn:
        pauses.pause(conn, Scope(channel="sms"), why)
        pauses.pause(conn, Scope(channel="sms", country="DE"), why)
        pauses.pause(conn, Scope(template="tea"), why)
        over = pauses.pause(conn, Scope(channel="push", country=None, template="tea"), why)
        pauses.resume(conn, Scope(), why, id_=over)
    ids = _send(working, 3)
    working.later_steps.send(working.fallback.check(ids))
    found = _scrape(working)
    assert found["knocktwice_pauses"] == {("all",): 1, ("push",): 0, ("sms",): 2, ("whatsapp",): 0}
    assert found["knocktwice_paused_messages"] == {(): 3}


def test_the_budget_that_operators_have_set_is_the_one_that_is_shown(here: Services) -> None:
    assert "knocktwice_budget_limit_parts" not in _scrape(here)
    with here.engine.begin() as conn:
        overrides.change(conn, here.settings, "sms_budget", "5000", By("ada", "the campaign may cost more"))
    assert _scrape(here)["knocktwice_budget_limit_parts"]["all",] == 5000


def test_no_statement_of_a_scrape_reads_a_table_of_notifications(here: Services) -> None:
    with plans.noted(here.engine) as asked:
        list(database.read(here))
    with here.engine.connect() as conn:
        assert plans.unbounded(conn, asked) == []


def test_every_series_that_alerts_and_dashboard_look_at_is_in_a_live_scrape(
    working: Services, clock: Clock, tmp_path: Path
) -> None:
    projects = tmp_path / "projects.yaml"
    projects.write_text("projects: {shop: {budget: {total: 5}}}")
    update = {"sms_budget": 10, "sms_prices": {"*": 0.01}, "projects_file": projects}
    settings = working.settings.model_copy(update=update)
    here = Services(settings)
    _send(here, 1)
    dispatch(here, lambda *_: None)
    here.counters.add(Count.DECISIONS, ["fell_back"])
    here.counters.add(Count.RECEIPTS, ["clicked"])
    here.counters.add(Count.WATCHED, ["any"])
    here.counters.add(Count.GATEWAY_ANSWERS, ["200"])
    here.troubles.note("acme", [Retry("Acme 401", operators=True)])
    members.announce(here.redis, Member("a", "worker", "1", ahead_s=0.1, credentials={"push": ""}))
    with here.engine.begin() as conn:
        alarms.sound(conn, "brake.on", "x", {})
    # The roll-ups follow a second behind.
    clock.advance(timedelta(minutes=1))
    rollups.refresh(here.engine, here.settings.sms_day_zone, everything=True)
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE rollups SET suppressed = '{\"no_phone\": 1}'"))
    totals.flush(here.redis, here.counters)
    found = _scrape(here)
    assert watched.names() - set(found) == set()
    here.close()
