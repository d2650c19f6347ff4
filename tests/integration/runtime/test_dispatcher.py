"""The dispatcher publishes what is due, once per lease, and not faster than workers take it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from redis.exceptions import RedisError

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import BATCH_LIMIT, Queue, Task
from knocktwice_worker import services
from knocktwice_worker.lifecycle import AttemptState, DeliveryState
from knocktwice_worker.notifications import store
from knocktwice_worker.runtime.dispatcher import Horizon, dispatch
from support.sent_messages import placed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis

    from knocktwice_worker.services import Services
    from support.clock import Clock

DELAY = timedelta(minutes=10)
#: The first look comes a second later: a push needs a moment to be handed over, and the countdown begins then.
DUE = DELAY + timedelta(seconds=1)
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
_LOCK = sa.text("SELECT FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[])) FOR UPDATE")


class Published:
    """What was published, as a stand-in for the broker's end of it."""

    def __init__(self) -> None:
        self.tasks: list[tuple[Task, list[str]]] = []

    def __call__(self, task: Task, ids: Sequence[str]) -> None:
        self.tasks.append((task, list(ids)))


def _pending(here: Services, people: int) -> list[str]:
    """Write notifications whose push is under way and whose fallback is due after the delay."""
    recipients: list[dict[str, Any]] = [
        {"id": str(uuid7()), "registrations": ["reg"], "phone": "+16505550100"} for _ in range(people)
    ]
    batch = parse_batch(
        {
            "v": 1,
            "id": str(uuid7()),
            "content": {"push": {"title": "t", "body": "b"}},
            "plan": [{"channel": "sms", "when": "not_clicked", "after_s": DELAY.total_seconds()}],
            "recipients": recipients,
        }
    )
    with here.engine.begin() as conn:
        work = store.accept(conn, [store.Intake(batch, {}, DELAY)], lease=DELAY * 3)
        store.record_push(
            conn,
            [
                store.PushResult(w.notification_id, w.registration, state=AttemptState.SENT, provider_id="p")
                for w in work
            ],
            retry_for=DELAY,
        )
    return sorted(r["id"] for r in recipients)


def test_what_is_due_is_published_once_with_the_task_that_fits(here: Services, clock: Clock) -> None:
    ids, published = _pending(here, 3), Published()
    assert dispatch(here, published) == 0
    clock.advance(DUE)
    assert dispatch(here, published) == 3
    assert dispatch(here, published) == 0
    assert [(task, sorted(found)) for task, found in published.tasks] == [(Task.CHECK_FALLBACK, ids)]


@pytest.mark.parametrize(("locked_s", "at_once"), [(50, 2), (70, 0)])
def test_what_another_session_had_locked_for_long_is_found_by_a_look_at_everything(
    here: Services, clock: Clock, locked_s: int, at_once: int
) -> None:
    ours = [1_000.0]
    horizon, published = Horizon(lambda: ours[0]), Published()
    assert dispatch(here, published, horizon) == 0
    ids = _pending(here, 2)
    clock.advance(DUE)
    with here.engine.begin() as other:
        other.execute(_LOCK, {"ids": ids})
        assert dispatch(here, published, horizon) == 0
        clock.advance(timedelta(seconds=locked_s))
        assert dispatch(here, published, horizon) == 0
    assert dispatch(here, published, horizon) == at_once
    ours[0] += 15
    assert dispatch(here, published, horizon) == 2 - at_once


def _rung(*late_s: float) -> list[store.Rung]:
    return [store.Rung("n", 1, DeliveryState.SCHEDULED, late) for late in late_s]


def test_a_look_begins_a_minute_before_the_place_to_which_the_last_one_came() -> None:
    horizon = Horizon(lambda: 1_000.0)
    assert horizon.next() is None
    horizon.saw(_rung(40, 7), NOON, all_kinds=True)
    assert horizon.next() == NOON - timedelta(minutes=1)
    # A full batch came no further than to its last row.
    horizon.saw(_rung(*[40] * (BATCH_LIMIT - 1), 7), NOON, all_kinds=True)
    assert horizon.next() == NOON - timedelta(minutes=1, seconds=7)
    # Later steps were not looked for, and the next look failed.
    later = NOON + timedelta(minutes=5)
    horizon.saw([], later, all_kinds=False)
    assert horizon.next() == NOON - timedelta(minutes=1, seconds=7)
    assert horizon.next() == NOON - timedelta(minutes=1, seconds=7)
    horizon.saw([], later, all_kinds=True)
    assert horizon.next() == later - timedelta(minutes=1)


def test_looks_at_everything_come_the_less_often_the_longer_they_take_and_others_are_short_meanwhile() -> None:
    now = [1_000.0]
    horizon = Horizon(lambda: now[0])

    def look(took_s: float) -> datetime | None:
        since = horizon.next()
        now[0] += took_s
        horizon.saw([], NOON, all_kinds=True)
        return since

    minute, moment = NOON - timedelta(minutes=1), NOON - timedelta(seconds=5)
    assert look(0.01) is None
    now[0] += 14.9
    assert look(0.01) == minute
    now[0] += 0.1
    assert look(2) is None
    # For twenty times as long as it took, and a minute at most.
    assert look(0.01) == moment
    now[0] += 39.9
    assert look(0.01) == moment
    now[0] += 0.1
    assert look(6) is None
    now[0] += 59.9
    assert look(0.01) == moment
    now[0] += 0.1
    assert look(0.01) is None
    assert look(0.2) == minute
    assert look(0.01) == moment


def test_each_state_of_a_row_has_its_task(here: Services, clock: Clock) -> None:
    ids, published = _pending(here, 4), Published()
    scheduled, reserved, claimed, pushed = ids
    with here.engine.begin() as conn:
        store.reserve(conn, [store.Reservation(i, "+16505550100", "b", b"f") for i in (reserved, claimed)], DELAY)
        store.claim_steps(conn, placed([claimed]), DELAY)
        # A push that its provider asked to repeat.
        wait = (
            "UPDATE deliveries SET state = 'scheduled', finished_at = NULL, wake_at = knocktwice_now() WHERE step = 0"
        )
        conn.execute(sa.text(f"{wait} AND notification_id = :id"), {"id": pushed})
        conn.execute(
            sa.text("UPDATE deliveries SET wake_at = wake_at + '1 day' WHERE step = 1 AND notification_id = :id"),
            {"id": pushed},
        )
    clock.advance(DUE)
    assert dispatch(here, published) == 4
    assert dict(published.tasks) == {
        Task.CHECK_FALLBACK: [scheduled],
        Task.SEND_SMS: [reserved],
        Task.RECONCILE: [claimed],
        Task.RESUME_PUSH: [pushed],
    }


def test_what_gets_lost_rings_again_after_its_lease(here: Services, clock: Clock) -> None:
    ids, published = _pending(here, 1), Published()
    clock.advance(DUE)
    dispatch(here, published)
    clock.advance(here.settings.lease)
    dispatch(here, published)
    assert published.tasks == [(Task.CHECK_FALLBACK, ids)] * 2


def test_more_than_a_batch_is_published_in_batches(here: Services, clock: Clock) -> None:
    _pending(here, 500)
    _pending(here, 20)
    published = Published()
    clock.advance(DUE)
    assert [dispatch(here, published), dispatch(here, published)] == [500, 20]
    assert len({i for _, found in published.tasks for i in found}) == 520


@pytest.mark.parametrize("queue", [Queue.FALLBACK, Queue.SMS])
def test_rows_wait_in_postgres_while_the_queues_are_long(
    here: Services, clock: Clock, valkey: Redis, queue: Queue
) -> None:
    ids, published = _pending(here, 1), Published()
    clock.advance(DUE)
    valkey.lpush(queue, *range(100))
    assert dispatch(here, published) == 0
    valkey.ltrim(queue, 0, 9)
    assert dispatch(here, published) == 1
    assert published.tasks == [(Task.CHECK_FALLBACK, ids)]


def test_without_a_broker_nothing_is_claimed(here: Services, clock: Clock) -> None:
    _pending(here, 1)
    clock.advance(DUE)
    lost = services.Services(here.settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"}))
    with pytest.raises(RedisError):
        dispatch(lost, Published())
    lost.close()
    assert dispatch(here, Published()) == 1
