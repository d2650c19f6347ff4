"""A project's own limits count beside those of the installation, in one call, and alike in Redis and in Postgres."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import Category
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.limits.asks import Answer, Ask, Limits, Own, ProjectLimits
from knocktwice_worker.limits.budget import Budget, Spent
from knocktwice_worker.limits.in_postgres import count_in_postgres
from knocktwice_worker.limits.per_number import RedisLimits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
CAPPED, TWICE, SPENT = Refusal.CAPPED_DAILY, Refusal.DUPLICATE_CONTENT, Refusal.BUDGET_EXHAUSTED
LIMITS = Limits(
    per_day=3,
    same_content=timedelta(seconds=30),
    zone=ZoneInfo("UTC"),
    secret=b"test",
    budget=Budget(total=20),
    projects={
        "amber": ProjectLimits(per_day=2),
        "blue": ProjectLimits(budget=Budget(total=4, reserve=1, categories={Category.MARKETING: 2})),
        "green": ProjectLimits(same_content=timedelta(hours=1)),
    },
)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url)
    yield engine
    engine.dispose()


def ask(
    project: str | None, number: int = 0, content: str = "", *, parts: int = 1, category: str = "transactional"
) -> Ask:
    """Ask for a text of a project, one of its own unless the content is given."""
    id_ = str(uuid4())
    return Ask(id_, f"+1650253000{number}", (content or id_).encode(), parts, Category(category), project=project)


def refusals(answers: Sequence[Answer]) -> list[object]:
    return [a.refusal for a in answers]


def remember(engine: sa.Engine, one: Ask, at: datetime = NOON - timedelta(hours=1)) -> None:
    """Write the rows of an SMS that Postgres remembers as sent."""
    with engine.begin() as conn:
        batch = uuid4()
        conn.execute(
            sa.text("INSERT INTO batches VALUES (:id, '{}', :category, '1 hour', '{}')"),
            {"id": batch, "category": one.category},
        )
        conn.execute(
            sa.text(
                "INSERT INTO notifications (id, batch_id, params, state, project) VALUES (:id, :b, '{}', 'active', :of)"
            ),
            {"id": one.notification_id, "b": batch, "of": one.project},
        )
        conn.execute(
            sa.text("""
            INSERT INTO deliveries (notification_id, step, channel, state, number, fingerprint, parts, counted_at, finished_at)
            VALUES (:id, 1, 'sms', 'sent', :number, :fingerprint, :parts, :at, now())
            """),
            {
                "id": one.notification_id,
                "number": one.number,
                "fingerprint": one.fingerprint,
                "parts": one.parts,
                "at": at,
            },
        )


def test_a_project_has_its_own_count_of_a_number_and_the_installations_holds_besides(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    batch = [*(ask("amber") for _ in range(3)), ask("blue"), ask("blue"), ask("amber", number=1)]
    with engine.connect() as conn:
        answers = RedisLimits(valkey, LIMITS).count(conn, batch, NOON)
    assert refusals(answers) == [None, None, CAPPED, None, CAPPED, None]
    assert [a.own and a.own.refused for a in answers] == [False, False, True, False, False, False]
    assert (answers[2].today, answers[2].own) == (2, Own("amber", True, 2))
    assert answers[2].inputs(batch[2], LIMITS)["project"] == {"name": "amber", "refused": True, "sms_today": 2}


def test_a_project_may_keep_a_text_from_being_repeated_for_longer(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter = RedisLimits(valkey, replace(LIMITS, same_content=timedelta()))
    batch = [ask(project, content="tea") for project in ("green", "green", "amber", "amber", None)]
    with engine.connect() as conn:
        assert refusals(counter.count(conn, batch, NOON)) == [None, TWICE, None, None, CAPPED]
    assert [3500 < valkey.ttl(key) <= 3600 for key in valkey.keys("*content*:green")] == [True]


def test_a_project_has_its_own_budget_and_what_it_refuses_costs_nobody_anything(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    asked = [
        ("blue", "marketing", None),
        ("blue", "marketing", None),
        ("blue", "marketing", SPENT),
        ("blue", "transactional", None),
        ("blue", "transactional", SPENT),
        ("blue", "critical", None),
        ("blue", "critical", SPENT),
        (None, "marketing", None),
    ]
    batch = [ask(project, n, category=category) for n, (project, category, _) in enumerate(asked)]
    with engine.connect() as conn:
        counter = RedisLimits(valkey, LIMITS)
        answers = counter.count(conn, batch, NOON)
        assert refusals(answers) == [refusal for *_, refusal in asked]
        assert answers[-1].spent == Spent(5, 3)
        assert answers[6].own == Own("blue", True, 0, Spent(4, 1))
        counter.release(batch[:1], NOON)
        assert counter.count(conn, [ask("blue", 9)], NOON)[0].own == Own("blue", True, 0, Spent(3, 1))
        assert counter.count(conn, [ask("blue", 9, category="critical")], NOON)[0].spent == Spent(5, 2)


def test_after_a_wipe_each_project_gets_its_own_counts_back(valkey: redis.Redis, engine: sa.Engine) -> None:
    for one in (ask("amber", 5), ask("amber", 5), ask("blue", 6, parts=3), ask(None, 6, content="soup")):
        remember(engine, one)
    remember(engine, ask("green", 7, content="tea"), NOON - timedelta(minutes=20))
    batch = [
        ask("amber", 5),
        ask(None, 5),
        ask("blue", 7),
        ask("green", 7, content="tea"),
        ask("green", 6, content="soup"),
    ]
    with engine.connect() as conn:
        answers = RedisLimits(valkey, LIMITS).count(conn, batch, NOON)
        without_redis = count_in_postgres(conn, batch, LIMITS, NOON)
    assert refusals(answers) == [CAPPED, None, SPENT, TWICE, None]
    assert answers == without_redis
    valkey.flushdb()


def test_redis_and_postgres_say_the_same_of_every_history(valkey: redis.Redis, engine: sa.Engine) -> None:
    dice = random.Random(12)
    counter = RedisLimits(valkey, LIMITS)
    projects = [None, "amber", "blue", "green", "none of the file"]
    batch = [
        ask(
            dice.choice(projects),
            dice.randint(0, 4) + 100,
            dice.choice(["a", "b", "c", "d", "e", "f"]),
            parts=dice.randint(1, 2),
            category=dice.choice(list(Category)),
        )
        for _ in range(120)
    ]
    with engine.connect() as conn:
        conn.execute(sa.text("DELETE FROM deliveries"))
        assert counter.count(conn, batch, NOON) == count_in_postgres(conn, batch, LIMITS, NOON)
        # Asked again, nothing is counted twice.
        again = [one for one, a in zip(batch, counter.count(conn, batch, NOON), strict=True) if a.refusal is None]
        assert {a.refusal for a in counter.count(conn, again, NOON)} == {None}


def test_a_batch_of_all_projects_is_one_call(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter = RedisLimits(valkey, LIMITS)
    with engine.connect() as conn:
        counter.count(conn, [ask(p, n) for n, p in enumerate((None, "amber", "blue", "green"))], NOON)
        # From the next day on the counters are complete, and Postgres is not asked.
        tomorrow, queries = NOON + timedelta(days=2), []
        counter.count(conn, [ask("blue", 3), ask(None, 3)], tomorrow)
        sa.event.listen(engine, "before_cursor_execute", lambda *args: queries.append(args[2]))
        before = valkey.info("commandstats")["cmdstat_evalsha"]["calls"]
        counter.count(conn, [ask(p, n) for n, p in enumerate((None, "blue", "amber", "green", "blue"))], tomorrow)
        assert valkey.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
    assert queries == []


def test_a_project_that_was_given_limits_since_is_counted_from_postgres(valkey: redis.Redis, engine: sa.Engine) -> None:
    before = replace(LIMITS, projects={})
    with engine.connect() as conn:
        RedisLimits(valkey, before).count(conn, [ask("amber")], NOON - timedelta(days=3))
        for one in (ask("amber", 8), ask("amber", 8)):
            remember(engine, one)
        assert refusals(RedisLimits(valkey, before).count(conn, [ask("amber", 8)], NOON)) == [None]
        assert refusals(RedisLimits(valkey, LIMITS).count(conn, [ask("amber", 8)], NOON)) == [CAPPED]


def test_an_erased_number_is_forgotten_by_projects_too(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter, one = RedisLimits(valkey, LIMITS), ask("amber", 4)
    with engine.connect() as conn:
        counter.count(conn, [one], NOON)
    counter.forget([one.number], NOON)
    assert not valkey.keys("*:day:*")
