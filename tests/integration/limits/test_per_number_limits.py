"""Per-number limits on a real Valkey and a real PostgreSQL: under concurrency, at midnight, and after a wipe."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import redis
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_shared.messages import Category
from knocktwice_worker.lifecycle import Delay, Refusal
from knocktwice_worker.limits.asks import TAG, Answer, Ask, Limits, ProjectLimits
from knocktwice_worker.limits.in_postgres import count_in_postgres
from knocktwice_worker.limits.per_number import LimitsUnavailable, RedisLimits
from knocktwice_worker.services import Services
from support.ports import free_port
from support.simultaneously import count_together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.config import Settings

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


def limits(*, per_day: int = 10, same: float = 30, zone: ZoneInfo | None = None) -> Limits:
    return Limits(per_day=per_day, same_content=timedelta(seconds=same), zone=zone or ZoneInfo("UTC"), secret=b"test")


def ask(number: str = "+16505550100", content: bytes = b"hello") -> Ask:
    return Ask(str(uuid4()), number, content)


def passed(answers: Sequence[Answer]) -> int:
    return sum(a.refusal is None for a in answers)


@pytest.fixture
def engine(database_url: str) -> sa.Engine:
    return sa.create_engine(database_url, pool_size=70)


def test_of_500_identical_texts_to_one_number_exactly_one_passes(valkey_url: str, engine: sa.Engine) -> None:
    answers = count_together(valkey_url, engine, limits(), [ask() for _ in range(500)], NOON)
    assert Counter(a.refusal for a in answers) == {None: 1, Refusal.DUPLICATE_CONTENT: 499}


def test_of_500_different_texts_to_one_number_exactly_ten_pass(valkey_url: str, engine: sa.Engine) -> None:
    answers = count_together(valkey_url, engine, limits(), [ask(content=str(i).encode()) for i in range(500)], NOON)
    assert Counter(a.refusal for a in answers) == {None: 10, Refusal.CAPPED_DAILY: 490}


def test_a_retry_is_not_its_own_duplicate_and_counts_once(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter, one = RedisLimits(valkey, limits()), ask()
    with engine.connect() as conn:
        answers = [counter.count(conn, [one], NOON)[0] for _ in range(20)]
    assert answers == [Answer(None, 1)] * 20


def test_one_batch_counts_its_own_messages(valkey: redis.Redis, engine: sa.Engine) -> None:
    batch = [ask(content=b"same"), ask(content=b"same"), *(ask(content=str(i).encode()) for i in range(12))]
    with engine.connect() as conn:
        answers = RedisLimits(valkey, limits()).count(conn, batch, NOON)
    assert [a.refusal for a in answers] == [None, Refusal.DUPLICATE_CONTENT, *[None] * 9, *[Refusal.CAPPED_DAILY] * 3]


def test_numbers_do_not_count_against_each_other(valkey: redis.Redis, engine: sa.Engine) -> None:
    batch = [ask(number=f"+1650555{i:04}") for i in range(500)]
    with engine.connect() as conn:
        assert passed(RedisLimits(valkey, limits()).count(conn, batch, NOON)) == 500


def test_zero_switches_a_limit_off(valkey: redis.Redis, engine: sa.Engine) -> None:
    with engine.connect() as conn:
        assert (
            passed(RedisLimits(valkey, limits(per_day=0, same=0)).count(conn, [ask() for _ in range(50)], NOON)) == 50
        )


def test_what_is_released_can_be_used_by_another(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter = RedisLimits(valkey, limits(per_day=1))
    first, second = ask(), ask()
    with engine.connect() as conn:
        counter.count(conn, [first], NOON)
        counter.release([second], NOON)
        assert counter.count(conn, [second], NOON)[0].refusal is Refusal.DUPLICATE_CONTENT
        counter.release([first], NOON)
        assert counter.count(conn, [second], NOON)[0].refusal is None


@pytest.mark.parametrize(
    ("zone", "before", "after"),
    [
        ("UTC", "2026-11-21T23:59:59+00:00", "2026-11-22T00:00:00+00:00"),
        # 23-hour day: clocks go forward on 29 March 2026 in Berlin
        ("Europe/Berlin", "2026-03-29T23:59:59+02:00", "2026-03-30T00:00:00+02:00"),
        ("Europe/Berlin", "2026-03-28T23:59:59+01:00", "2026-03-29T00:00:00+01:00"),
        # 25-hour day: clocks go back on 25 October 2026
        ("Europe/Berlin", "2026-10-25T23:59:59+01:00", "2026-10-26T00:00:00+01:00"),
        ("Europe/Berlin", "2026-10-24T23:59:59+02:00", "2026-10-25T00:00:00+02:00"),
        # midnight does not exist: Beirut's clocks went from 23:59:59 to 01:00 on 31 March 2024
        ("Asia/Beirut", "2024-03-30T23:59:59+02:00", "2024-03-31T01:00:00+03:00"),
    ],
)
def test_the_count_starts_anew_at_midnight_of_the_zone(
    zone: str, before: str, after: str, valkey: redis.Redis, engine: sa.Engine
) -> None:
    counter = RedisLimits(valkey, limits(per_day=1, same=0, zone=ZoneInfo(zone)))
    evening, morning = datetime.fromisoformat(before), datetime.fromisoformat(after)
    with engine.connect() as conn:
        assert counter.count(conn, [ask()], evening)[0].refusal is None
        assert counter.count(conn, [ask()], evening)[0].refusal is Refusal.CAPPED_DAILY
        assert counter.count(conn, [ask()], morning)[0].refusal is None
        assert counter.count(conn, [ask()], morning)[0].refusal is Refusal.CAPPED_DAILY


@pytest.mark.parametrize(
    ("first", "last", "hours"),
    [
        ("2026-03-29T00:00:00+01:00", "2026-03-29T23:59:59+02:00", 23),
        ("2026-10-25T00:00:00+02:00", "2026-10-25T23:59:59+01:00", 25),
    ],
)
def test_a_day_has_23_or_25_hours_when_the_clocks_change(first: str, last: str, hours: int) -> None:
    berlin = limits(zone=BERLIN)
    name, start, end = berlin.day(datetime.fromisoformat(first))
    assert berlin.day(datetime.fromisoformat(last)) == (name, start, end)
    assert end - start == timedelta(hours=hours)


#: Naive, because hypothesis adds the zone.
YEARS = datetime(2020, 1, 1), datetime(2030, 1, 1)  # noqa: DTZ001


@given(
    st.datetimes(*YEARS, timezones=st.just(UTC)),
    st.sampled_from(["Europe/Berlin", "Asia/Beirut", "America/St_Johns", "Pacific/Apia", "UTC"]),
)
def test_every_moment_lies_in_its_own_day(now: datetime, zone: str) -> None:
    _, start, end = limits(zone=ZoneInfo(zone)).day(now)
    assert start <= now < end


def _sent(engine: sa.Engine, one: Ask, at: datetime, state: str = "sent", provider_id: str | None = None) -> None:
    """Write the rows of an SMS that Postgres remembers."""
    with engine.begin() as conn:
        batch = uuid4()
        conn.execute(sa.text("INSERT INTO batches VALUES (:id, '{}', 'transactional', '1 hour', '{}')"), {"id": batch})
        conn.execute(
            sa.text(
                "INSERT INTO notifications (id, batch_id, params, state, project) VALUES (:id, :batch, '{}', 'active', :project)"
            ),
            {"id": one.notification_id, "batch": batch, "project": one.project},
        )
        conn.execute(
            sa.text("""
            INSERT INTO deliveries
              (notification_id, step, channel, state, number, fingerprint, counted_at, provider_id, wake_at, finished_at)
            VALUES (:id, :step, 'sms', CAST(:state AS text), :number, :fingerprint, :at, :provider_id,
                    CASE WHEN CAST(:state AS text) IN ('reserved', 'sending') THEN now() END,
                    CASE WHEN CAST(:state AS text) NOT IN ('reserved', 'sending') THEN now() END)
            """),
            {
                "id": one.notification_id,
                "step": one.step,
                "state": state,
                "number": one.number,
                "fingerprint": one.fingerprint,
                "at": at,
                "provider_id": provider_id,
            },
        )


@pytest.mark.parametrize(
    ("state", "provider_id", "back"),
    [
        ("skipped", None, True),
        ("cancelled", None, True),
        ("failed", None, True),
        ("failed", "SM1", False),
        ("sent", "SM1", False),
        ("unknown", None, False),
        ("sending", None, False),
        ("reserved", None, False),
    ],
)
@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("project", [None, "shop"])
def test_the_place_of_a_message_that_never_went_out_is_given_to_the_next(
    valkey: redis.Redis,
    engine: sa.Engine,
    state: str,
    provider_id: str | None,
    back: bool,
    step: int,
    project: str | None,
) -> None:
    own = {"shop": ProjectLimits(per_day=1, same_content=timedelta(seconds=30))}
    counter = RedisLimits(valkey, replace(limits(per_day=0 if project else 1, same=0 if project else 30), projects=own))
    first, second = (replace(ask(), step=step, project=project) for _ in range(2))
    other = replace(ask(content=b"something else"), project=project)
    with engine.connect() as conn:
        assert passed(counter.count(conn, [first], NOON)) == 1
        # As on any day but the first, on which Postgres would put back what was given back.
        valkey.hset(f"{TAG}:complete", "complete", 0)
        _sent(engine, first, NOON, state, provider_id)
        refusals = [a.refusal for a in counter.count(conn, [second, other], NOON)]
    assert refusals == [None if back else Refusal.DUPLICATE_CONTENT, Refusal.CAPPED_DAILY]


def test_one_who_asks_again_and_again_cannot_take_the_place_of_one_who_waits(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    counter, stopped, waiting = RedisLimits(valkey, limits(per_day=2)), ask(content=b"1"), ask(content=b"2")
    with engine.connect() as conn:
        counter.count(conn, [stopped, waiting], NOON)
        _sent(engine, stopped, NOON, "cancelled")
        answers = [counter.count(conn, [ask(content=str(i).encode())], NOON)[0] for i in range(3, 8)]
    assert [a.refusal for a in answers] == [None, *[Refusal.CAPPED_DAILY] * 4]


def test_after_flushall_the_counts_come_back_from_postgres(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter, already = RedisLimits(valkey, limits()), [ask(content=str(i).encode()) for i in range(10)]
    for one in already:
        _sent(engine, one, NOON - timedelta(hours=1))
    valkey.flushdb()
    with engine.connect() as conn:
        assert counter.count(conn, [ask(content=b"eleventh")], NOON)[0] == Answer(Refusal.CAPPED_DAILY, 10)
        assert passed(counter.count(conn, already, NOON)) == 10


def test_after_flushall_the_holder_of_a_content_comes_back_too(valkey: redis.Redis, engine: sa.Engine) -> None:
    counter = RedisLimits(valkey, limits())
    _sent(engine, ask(content=b"hello"), NOON - timedelta(seconds=29))
    with engine.connect() as conn:
        assert counter.count(conn, [ask(content=b"hello")], NOON)[0].refusal is Refusal.DUPLICATE_CONTENT
        assert counter.count(conn, [ask(content=b"hello")], NOON + timedelta(seconds=2))[0].refusal is None


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ("reserved", True),
        ("sent", True),
        ("unknown", True),
        ("failed", False),
        ("skipped", False),
        ("cancelled", False),
    ],
)
def test_after_a_wipe_what_may_have_been_sent_counts_and_what_was_not_does_not(
    valkey: redis.Redis, engine: sa.Engine, state: str, counts: bool
) -> None:
    _sent(engine, ask(), NOON - timedelta(seconds=20), state=state)
    again, another = ask(), ask(content=b"something else")
    expected = [Refusal.DUPLICATE_CONTENT, Refusal.CAPPED_DAILY] if counts else [None, Refusal.CAPPED_DAILY]
    with engine.begin() as conn:
        answers = RedisLimits(valkey, limits(per_day=1)).count(conn, [again, another], NOON)
        assert [a.refusal for a in answers] == expected
        answers = count_in_postgres(conn, [again, another], limits(per_day=1), NOON)
        assert [a.refusal for a in answers] == expected


def test_a_wipe_right_before_midnight_is_made_up_for_right_after_it(valkey: redis.Redis, engine: sa.Engine) -> None:
    midnight, second = NOON + timedelta(hours=12), timedelta(seconds=1)
    counter = RedisLimits(valkey, limits())
    _sent(engine, ask(), midnight - 15 * second)
    with engine.connect() as conn:
        # From here on Redis counts; of what was sent before only Postgres knows.
        assert counter.count(conn, [ask(number="+16505550199")], midnight - 10 * second)[0].refusal is None
        assert counter.count(conn, [ask()], midnight + 5 * second)[0].refusal is Refusal.DUPLICATE_CONTENT
        assert counter.count(conn, [ask()], midnight + 20 * second)[0].refusal is None


def test_after_a_wipe_each_channel_counts_for_itself(valkey: redis.Redis, engine: sa.Engine) -> None:
    _sent(engine, ask(), NOON - timedelta(seconds=20))
    with engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET channel = 'whatsapp'"))
        asks = [ask(), replace(ask(), channel="whatsapp")]
        expected = [None, Refusal.DUPLICATE_CONTENT]
        assert [a.refusal for a in RedisLimits(valkey, limits(per_day=1)).count(conn, asks, NOON)] == expected
        assert [a.refusal for a in count_in_postgres(conn, asks, limits(per_day=1), NOON)] == expected


def test_of_eleven_reservations_a_wipe_let_through_the_youngest_is_refused(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    counter, eleven = RedisLimits(valkey, limits()), [ask(content=str(i).encode()) for i in range(11)]
    # Neither their rows nor their ids lie in the order in which they were reserved.
    for i in (7, 2, 10, 0, 5, 9, 1, 8, 3, 6, 4):
        _sent(engine, eleven[i], NOON - timedelta(minutes=11 - i), state="reserved")
    with engine.connect() as conn:
        # The youngest asks first and is refused all the same.
        answers = [counter.count(conn, [one], NOON)[0].refusal for one in reversed(eleven)]
    assert answers == [Refusal.CAPPED_DAILY, *[None] * 10]


def test_what_was_counted_after_a_wipe_gives_way_to_what_was_counted_before_and_committed_later(
    valkey: redis.Redis, engine: sa.Engine
) -> None:
    counter, late = RedisLimits(valkey, limits(per_day=2)), ask(content=b"late")
    earlier = [ask(content=str(i).encode()) for i in range(2)]
    with engine.begin() as conn:
        # The decision about the earlier ones has counted them, and stands still before its commit.
        valkey.flushall()
        assert counter.count(conn, [late], NOON)[0].refusal is None
    _sent(engine, late, NOON, state="reserved")
    for one in earlier:
        _sent(engine, one, NOON - timedelta(seconds=3), state="reserved")
    with engine.begin() as conn:
        assert [a.refusal for a in counter.count(conn, earlier, NOON)] == [None, None]
        assert counter.count(conn, [late], NOON)[0].refusal is Refusal.CAPPED_DAILY


def test_yesterday_does_not_count(valkey: redis.Redis, engine: sa.Engine) -> None:
    for i in range(10):
        _sent(engine, ask(content=str(i).encode()), NOON - timedelta(hours=13))
    with engine.connect() as conn:
        assert RedisLimits(valkey, limits()).count(conn, [ask()], NOON)[0] == Answer(None, 1)


def test_without_redis_the_answer_is_unavailable_and_postgres_counts(engine: sa.Engine) -> None:
    nobody = redis.Redis(unix_socket_path="/nonexistent/valkey.sock")
    for i in range(9):
        _sent(engine, ask(content=str(i).encode()), NOON - timedelta(hours=1))
    batch = [ask(content=b"ten"), ask(content=b"ten"), ask(content=b"eleven")]
    with engine.begin() as conn:
        with pytest.raises(LimitsUnavailable):
            RedisLimits(nobody, limits()).count(conn, batch, NOON)
        answers = count_in_postgres(conn, batch, limits(), NOON)
    assert [a.refusal for a in answers] == [None, Refusal.DUPLICATE_CONTENT, Refusal.CAPPED_DAILY]


def test_no_key_or_value_shows_a_number(valkey: redis.Redis, engine: sa.Engine) -> None:
    with engine.connect() as conn:
        RedisLimits(valkey, limits()).count(conn, [ask(number="+16505550100")], NOON)
    members = [value for key in valkey.keys("*day*") for value in valkey.smembers(key)]
    assert "6505550100" not in str([valkey.keys("*"), members])
    assert all(valkey.ttl(key) > 0 for key in valkey.keys("*:day:*") + valkey.keys("*:content:*"))


def test_without_redis_postgres_counts_and_marketing_waits(settings: Settings, engine: sa.Engine) -> None:
    here = Services(settings.model_copy(update={"broker_url": f"redis://127.0.0.1:{free_port()}/0"}))
    asks = [replace(ask(content=str(c).encode()), category=c) for c in Category]
    with engine.connect() as conn:
        answers = here.counting.count(conn, asks, NOON)
    here.close()
    assert dict(zip(Category, (a.refusal for a in answers), strict=True)) == {
        Category.CRITICAL: None,
        Category.TRANSACTIONAL: None,
        Category.MARKETING: Delay.LIMITS_UNAVAILABLE,
    }
