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
from knocktwice_worker.metrics import database
from knocktwice_worker.metrics.scrape import Scrapes
from knocktwice_worker.metrics.series import SERIES, Kind
from knocktwice_worker.notifications.store import alarms
from knocktwice_worker.reporting import rollups
from knocktwice_worker.runtime.dispatcher import dispatch
from knocktwice_worker.services import Services
from support import watched
from support.own_valkey import OwnValkey

if TYPE_CHECKING:
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
    talkative = {labels: count for labels, count in found.items() if labels[0] == "talkative"}
    assert len(talkative) == 41
    assert sum(talkative.values()) == 200


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


def test_no_statement_of_a_scrape_reads_a_table_of_notifications(here: Services) -> None:
    asked: list[tuple[str, Any]] = []
    sa.event.listen(here.engine, "before_cursor_execute", lambda *told: asked.append((told[2], told[3])))
    list(database.read(here))
    plans = []
    with here.engine.connect() as conn:
        # As large tables do: an index is read where there is one that serves.
        conn.execute(sa.text("SET enable_seqscan = off"))
        for statement, values in [one for one in asked if one[0].startswith("SELECT")]:
            plans += [str(row[0]) for row in conn.exec_driver_sql(f"EXPLAIN {statement}", values)]
        conn.rollback()
    read = [line.strip() for line in plans if "Seq Scan on" in line]
    large = ("deliveries", "notifications", "events", "decisions", "attempts", "webhook_deliveries")
    assert plans
    assert [line for line in read if any(f" on {name} " in line for name in large)] == []


def test_every_series_that_alerts_and_dashboard_look_at_is_in_a_live_scrape(working: Services, clock: Clock) -> None:
    settings = working.settings.model_copy(update={"sms_budget": 10, "sms_prices": {"*": 0.01}})
    here = Services(settings)
    _send(here, 1)
    dispatch(here, lambda *_: None)
    here.counters.add(Count.DECISIONS, ["fell_back"])
    here.counters.add(Count.RECEIPTS, ["clicked"])
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
