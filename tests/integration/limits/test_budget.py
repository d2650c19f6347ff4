"""The day's budget in SMS parts on a real Valkey and a real PostgreSQL: exact,
also under concurrency and after a wipe.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from knocktwice import Category
from knocktwice_worker.config import ConfigurationError, load
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.limits import budget
from knocktwice_worker.limits.asks import Answer, Ask, Limits
from knocktwice_worker.limits.budget import Budget, Purse, Spent, Today, UnderWay
from knocktwice_worker.limits.in_postgres import count_in_postgres
from knocktwice_worker.limits.per_number import RedisLimits
from knocktwice_worker.services import process
from support.simultaneously import count_together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import redis

    from support.clock import Clock
    from support.commands import CommandOutput

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CRITICAL, MARKETING, TRANSACTIONAL = Category.CRITICAL, Category.MARKETING, Category.TRANSACTIONAL
_numbers = count()


def limits(total: int = 0, reserve: int = 0, *, zone: str = "UTC", **categories: int) -> Limits:
    of = Budget(total, reserve, {Category(name): parts for name, parts in categories.items()})
    return Limits(per_day=10, same_content=timedelta(seconds=30), zone=ZoneInfo(zone), secret=b"test", budget=of)


def ask(category: Category = TRANSACTIONAL, parts: int = 1) -> Ask:
    """Ask for a text of its own to a number of its own."""
    return Ask(str(uuid4()), f"+1650{2_530_000 + next(_numbers)}", b"hello", parts, category)


def refusals(answers: Sequence[Answer]) -> list[str | None]:
    return [a.refusal for a in answers]


def went(asks: Sequence[Ask], answers: Sequence[Answer]) -> int:
    return sum(one.parts for one, a in zip(asks, answers, strict=True) if a.refusal is None)


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    return sa.create_engine(database_url, pool_size=70)


def remember(engine: sa.Engine, one: Ask, state: str = "sent", at: datetime = NOON - timedelta(hours=1)) -> None:
    """Write the rows of an SMS that Postgres remembers."""
    still_open = state in ("reserved", "sending")
    with engine.begin() as conn:
        batch = uuid4()
        conn.execute(
            sa.text("INSERT INTO batches VALUES (:id, '{}', :category, '1 hour', '{}')"),
            {"id": batch, "category": one.category},
        )
        conn.execute(
            sa.text("INSERT INTO notifications (id, batch_id, params, state) VALUES (:id, :batch, '{}', 'active')"),
            {"id": one.notification_id, "batch": batch},
        )
        conn.execute(
            sa.text("""
            INSERT INTO deliveries (notification_id, step, channel, state, number, fingerprint, parts, counted_at, wake_at, finished_at)
            VALUES (:id, :step, 'sms', :state, :number, :fingerprint, :parts, :at, CASE WHEN :open THEN now() END,
                    CASE WHEN NOT :open THEN now() END)
            """),
            {
                "id": one.notification_id,
                "step": one.step,
                "state": state,
                "number": one.number,
                "fingerprint": one.fingerprint,
                "parts": one.parts,
                "at": at,
                "open": still_open,
            },
        )


def test_of_500_texts_of_two_parts_exactly_as_many_pass_as_the_budget_has_parts(
    valkey_url: str, engine: sa.Engine
) -> None:
    asks = [ask(parts=2) for _ in range(500)]
    answers = count_together(valkey_url, engine, limits(101), asks, NOON)
    assert Counter(refusals(answers)) == {None: 50, Refusal.BUDGET_EXHAUSTED: 450}


def test_64_callers_of_all_categories_leave_the_reserve_to_critical(valkey_url: str, engine: sa.Engine) -> None:
    dice = random.Random(7)
    asks = [ask(dice.choice([TRANSACTIONAL, MARKETING]), dice.randint(1, 3)) for _ in range(500)]
    of = limits(200, 50, marketing=60)
    answers = count_together(valkey_url, engine, of, asks, NOON)
    marketing = [(one, a) for one, a in zip(asks, answers, strict=True) if one.category is MARKETING]
    assert 148 <= went(asks, answers) <= 150
    assert went(*zip(*marketing, strict=True)) <= 60
    critical = [ask(CRITICAL) for _ in range(100)]
    assert went(critical, count_together(valkey_url, engine, of, critical, NOON)) == 200 - went(asks, answers)


def test_a_category_has_a_budget_of_its_own(valkey: redis.Redis, engine: sa.Engine) -> None:
    batch = [*(ask(MARKETING) for _ in range(5)), *(ask(TRANSACTIONAL) for _ in range(5))]
    with engine.connect() as conn:
        answers = RedisLimits(valkey, limits(marketing=3)).count(conn, batch, NOON)
    assert refusals(answers) == [*[None] * 3, *[Refusal.BUDGET_EXHAUSTED] * 2, *[None] * 5]
    assert (answers[4].spent, answers[9].spent) == (Spent(3, 3), Spent(8, 5))


def test_a_text_that_is_too_long_for_the_rest_leaves_it_to_shorter_ones(valkey: redis.Redis, engine: sa.Engine) -> None:
    batch = [ask(parts=3), ask(parts=3), ask(parts=2), ask(parts=1)]
    with engine.connect() as conn:
        answers = RedisLimits(valkey, limits(5)).count(conn, batch, NOON)
    assert refusals(answers) == [None, Refusal.BUDGET_EXHAUSTED, None, Refusal.BUDGET_EXHAUSTED]


def test_what_another_limit_refuses_costs_no_budget(valkey: redis.Redis, engine: sa.Engine) -> None:
    first = ask()
    twin = Ask(str(uuid4()), first.number, first.fingerprint)
    with engine.connect() as conn:
        answers = RedisLimits(valkey, limits(5)).count(conn, [first, twin], NOON)
    assert [a.spent for a in answers] == [Spent(1, 1), Spent(1, 1)]
    assert answers[1].refusal is Refusal.DUPLICATE_CONTENT


def test_a_repeated_question_counts_once(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter, one = RedisLimits(valkey, limits(2)), ask(parts=2)
    with engine.connect() as conn:
        assert [counter.count(conn, [one], NOON)[0] for _ in range(20)] == [Answer(None, 1, Spent(2, 2))] * 20


def test_what_is_released_can_be_used_by_another(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter, first, second = RedisLimits(valkey, limits(3)), ask(parts=2), ask(parts=2)
    with engine.connect() as conn:
        counter.count(conn, [first], NOON)
        counter.release([first, first, second], NOON)
        assert counter.count(conn, [second], NOON)[0] == Answer(None, 1, Spent(2, 2))


@pytest.mark.parametrize("state", ["skipped", "cancelled", "failed"])
@pytest.mark.parametrize("step", [1, 2])
def test_parts_that_were_not_used_are_given_back_before_anybody_is_refused(
    valkey: redis.Redis, engine: sa.Engine, state: str, step: int
) -> None:
    counter, first, second = RedisLimits(valkey, limits(1)), replace(ask(), step=step), ask()
    with engine.connect() as conn:
        counter.count(conn, [first], NOON)
        remember(engine, first, state)
        assert counter.count(conn, [second], NOON)[0].refusal is None
        # Looked for once a minute, however many are refused.
        assert counter.count(conn, [ask()], NOON)[0].refusal is Refusal.BUDGET_EXHAUSTED


def test_after_a_wipe_a_later_step_that_is_under_way_counts_once(valkey: redis.Redis, engine: sa.Engine) -> None:
    one = replace(ask(), step=2)
    remember(engine, one, "sending", NOON)
    with engine.connect() as conn:
        assert RedisLimits(valkey, limits(1)).count(conn, [one], NOON)[0] == Answer(None, 1, Spent(1, 1))


def test_the_budget_is_a_days(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter = RedisLimits(valkey, limits(1, zone="Europe/Berlin"))
    evening, morning = (
        datetime.fromisoformat(f"2026-03-{d}+0{o}:00") for d, o in (("28T23:59:59", 1), ("29T00:00", 1))
    )
    with engine.connect() as conn:
        asked = [counter.count(conn, [ask()], at)[0].refusal for at in (evening, evening, morning, morning)]
    assert asked == [None, Refusal.BUDGET_EXHAUSTED] * 2


def test_after_flushall_the_budget_comes_back_from_postgres(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter = RedisLimits(valkey, limits(10, 2))
    for one, state in ((ask(parts=3), "sent"), (ask(MARKETING, 2), "unknown"), (ask(parts=1), "sending")):
        remember(engine, one, state)
    remember(engine, ask(parts=5), "failed")
    remember(engine, ask(parts=5), "sent", NOON - timedelta(hours=13))
    waiting = ask(MARKETING)
    remember(engine, waiting, "reserved")
    valkey.flushdb()
    with engine.connect() as conn:
        assert counter.count(conn, [waiting], NOON)[0] == Answer(None, 1, Spent(7, 3))
        assert refusals(counter.count(conn, [ask(), ask(), ask(CRITICAL)], NOON)) == [
            None,
            Refusal.BUDGET_EXHAUSTED,
            None,
        ]


def test_a_server_that_started_anew_with_its_keys_counts_what_is_under_way_once(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    of, waiting = limits(10), [ask(parts=2), ask(parts=3)]
    with engine.connect() as conn:
        RedisLimits(valkey, of).count(conn, waiting, NOON)
    for one in waiting:
        remember(engine, one, "reserved")
    valkey.hset(of.budget_key("2026-11-21"), "run", "of the server before")
    with engine.connect() as conn:
        assert RedisLimits(valkey, of).count(conn, [ask()], NOON) == [Answer(None, 1, Spent(6, 6))]


def test_of_reservations_that_a_wipe_let_through_the_youngest_is_refused(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    counter, reserved = RedisLimits(valkey, limits(10)), [ask() for _ in range(11)]
    # Neither their rows nor their ids lie in the order in which they were reserved.
    for i in (7, 2, 10, 0, 5, 9, 1, 8, 3, 6, 4):
        remember(engine, reserved[i], "reserved", NOON - timedelta(minutes=11 - i))
    with engine.connect() as conn:
        answers = [counter.count(conn, [one], NOON)[0].refusal for one in reversed(reserved)]
    assert answers == [Refusal.BUDGET_EXHAUSTED, *[None] * 10]


def test_after_a_wipe_what_is_being_sent_is_spent_and_reservations_get_what_is_left(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    older, younger, sending = ask(), ask(), ask()
    remember(engine, older, "reserved", NOON - timedelta(minutes=3))
    remember(engine, younger, "reserved", NOON - timedelta(minutes=2))
    remember(engine, sending, "sending", NOON - timedelta(minutes=1))
    with engine.begin() as conn:
        waiting = [younger, older]
        expected = [Refusal.BUDGET_EXHAUSTED, None]
        assert refusals(RedisLimits(valkey, limits(2)).count(conn, waiting, NOON)) == expected
        assert refusals(count_in_postgres(conn, waiting, limits(2), NOON)) == expected


def test_after_a_wipe_what_is_being_sent_counts_even_beyond_the_budget(valkey: redis.Redis, engine: sa.Engine) -> None:
    for _ in range(3):
        remember(engine, ask(), "sending")
    with engine.begin() as conn:
        expected = [Answer(Refusal.BUDGET_EXHAUSTED, 0, Spent(3, 3))]
        assert RedisLimits(valkey, limits(1)).count(conn, [ask()], NOON) == expected
        assert count_in_postgres(conn, [ask()], limits(1), NOON) == expected


def test_what_a_provider_took_is_paid_for_whatever_became_of_it(engine: sa.Engine) -> None:
    refused, taken = ask(), ask()
    remember(engine, refused, "failed")
    remember(engine, taken, "failed")
    with engine.begin() as conn:
        name = "UPDATE deliveries SET provider_id = 'SM1' WHERE notification_id = :id"
        conn.execute(sa.text(name), {"id": taken.notification_id})
        assert budget.not_sent(conn, NOON - timedelta(hours=12)) == [refused.notification_id]


def test_64_callers_after_a_wipe_spend_no_part_twice(valkey_url: str, valkey: redis.Redis, engine: sa.Engine) -> None:
    for _ in range(20):
        remember(engine, ask(parts=2))
    valkey.flushdb()
    asks = [ask() for _ in range(200)]
    assert went(asks, count_together(valkey_url, engine, limits(100), asks, NOON)) == 60


def test_without_redis_postgres_counts_and_one_transaction_at_a_time(engine: sa.Engine) -> None:
    of, everybody_ready = limits(100), threading.Barrier(16)
    asks = [ask(parts=2) for _ in range(160)]

    def count_some(some: Sequence[Ask]) -> int:
        everybody_ready.wait()
        passed = 0
        for one in some:
            with engine.begin() as conn:
                if count_in_postgres(conn, [one], of, NOON)[0].refusal is None:
                    passed += one.parts
                    # As the reservation would, in the same transaction.
                    conn.execute(
                        sa.text("INSERT INTO batches VALUES (:id, '{}', 'transactional', '1 h', '{}')"),
                        {"id": one.notification_id},
                    )
                    conn.execute(
                        sa.text(
                            "INSERT INTO notifications (id, batch_id, params, state) VALUES (:id, :id, '{}', 'active')"
                        ),
                        {"id": one.notification_id},
                    )
                    conn.execute(sa.text("INSERT INTO deliveries (notification_id, step, channel, state, number, parts, counted_at, wake_at) VALUES (:id, 1, 'sms', 'reserved', :number, 2, :now, now())"), {"id": one.notification_id, "number": one.number, "now": NOON})  # fmt: skip
        return passed

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(count_some, [asks[i::16] for i in range(16)])) == 100


@pytest.mark.parametrize("seed", range(5))
def test_python_counts_as_the_script_does(valkey: redis.Redis, engine: sa.Engine, seed: int) -> None:
    dice = random.Random(seed)
    of = limits(dice.choice([0, 60]), 0, marketing=dice.choice([0, 20]), critical=30)
    if of.budget.total:
        of = limits(60, 15, marketing=20, critical=30)
    asks = [ask(dice.choice(list(Category)), dice.randint(1, 4)) for _ in range(60)]
    asks += dice.sample(asks, 20)
    purse = Purse(of.budget, Today({}, []))
    with engine.connect() as conn:
        answers = RedisLimits(valkey, of).count(conn, asks, NOON)
    # A number's ten a day and the same text are not in question here: each has its own.
    told = [purse.spend(one.notification_id, one.category, one.parts) for one in asks]
    assert [a.refusal is None for a in answers] == told
    assert {one.category: a.spent for one, a in zip(asks, answers, strict=True)}.keys() == set(Category)
    assert [a.spent for a in answers][-1] == purse.spent(asks[-1].category)


def test_what_is_gone_counts_even_beyond_the_budget() -> None:
    today = Today({MARKETING: 5}, [UnderWay("a", CRITICAL, 3, certain=True), UnderWay("b", CRITICAL, 1, certain=False)])
    purse = Purse(Budget(4), today)
    assert purse.spent(CRITICAL) == Spent(8, 3)
    assert not purse.spend("b", CRITICAL, 1)
    assert today.spent == {TRANSACTIONAL: 0, MARKETING: 5, CRITICAL: 4}
    assert today.written() == "0,5,0;a:critical:3:c,b:critical:1:w"


def test_without_a_budget_nothing_is_kept(valkey: redis.Redis, engine: sa.Engine) -> None:
    with engine.connect() as conn:
        assert RedisLimits(valkey, limits()).count(conn, [ask()], NOON) == [Answer(None, 1)]
    assert not valkey.keys("*budget*")


def test_a_reserve_is_part_of_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_SMS_BUDGET", "10")
    monkeypatch.setenv("KNOCKTWICE_SMS_BUDGET_RESERVE", "11")
    with pytest.raises(ConfigurationError, match="KNOCKTWICE_SMS_BUDGET_RESERVE must not be more than"):
        load()


def test_postgres_finds_the_day_without_reading_all_days(engine: sa.Engine) -> None:
    with engine.begin() as conn:
        conn.execute(sa.text("SET LOCAL enable_seqscan = off"))
        plan = conn.execute(sa.text(f"EXPLAIN {budget._NOT_SENT.text}"), {"start": NOON}).scalars()
        assert "deliveries_number_by_day_idx" in "\n".join(plan)


def test_doctor_tells_what_is_spent(
    run: Callable[..., CommandOutput], engine: sa.Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.set(NOON)

    def told() -> dict[str, str]:
        process._services.clear()
        checks = run("doctor", "--json").json
        return next(check for check in checks if check["name"] == "sms budget")

    assert told()["finding"] == "none; KNOCKTWICE_SMS_BUDGET sets one"
    for name, value in (("", 10), ("_RESERVE", 2), ("_MARKETING", 4)):
        monkeypatch.setenv(f"KNOCKTWICE_SMS_BUDGET{name}", str(value))
    remember(engine, ask(MARKETING, 3))
    check = told()
    use = "3 of 10 in all, 0 transactional, 3 of 4 marketing, 0 critical"
    assert check["finding"] == f"SMS parts today: {use}; the last 2 in all are for critical"
    assert check["level"] == "ok"
    remember(engine, ask(MARKETING))
    assert told()["level"] == "warning"
