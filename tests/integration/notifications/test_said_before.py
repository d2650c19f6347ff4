"""Said before, counts before: what a caller was told is accepted holds in every later decision, whatever still waits in
a queue.

No worker takes up the queue of events here: it is as if it were stopped, or a million messages long.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import Client, Push, Sms
from knocktwice_shared.names import INBOX_BEGUN, INBOX_MESSAGES, INBOX_SUBJECTS, Task
from knocktwice_worker.diagnosis.check import Level
from knocktwice_worker.diagnosis.doctor import examine
from knocktwice_worker.notifications.store import alarms
from knocktwice_worker.webhooks import endpoints, events

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

PUSH = Push("Your table is ready", "We keep it until 19:45.")
AFTER = timedelta(minutes=5)
SMS = Sms(when="not_clicked", after=AFTER)
NUMBER = "+16505550100"


@pytest.fixture
def client(valkey_url: str) -> Iterator[Client]:
    with Client(valkey_url) as client:
        yield client


def take(here: Services, task: Task = Task.SEND_PUSH) -> None:
    """Carry out the accepted messages of one task, as its worker would."""
    entries: dict[bytes, bytes] = here.redis.hgetall(INBOX_MESSAGES)  # type: ignore[assignment]
    for id_, raw in sorted(entries.items()):
        entry = json.loads(raw)
        if entry["task"] == task:
            here.inbox.carry_out(task, id_.decode(), entry["message"], here.accepted[task])


def spoil(here: Services) -> None:
    """Make the accepted answers something that this version cannot carry out."""
    members: Any = here.redis.zrange(INBOX_SUBJECTS, 0, -1)
    for member in members:
        here.redis.hset(
            INBOX_MESSAGES, member.rpartition(b"\n")[2], json.dumps({"task": "knocktwice.newer", "message": {}})
        )


def one(here: Services, query: str, id_: UUID) -> Any:
    with here.engine.connect() as conn:
        return conn.execute(sa.text(query), {"id": id_}).one()


def state(here: Services, id_: UUID) -> tuple[str, str]:
    row = one(here, "SELECT state, reason FROM notifications WHERE id = :id", id_)
    return row.state, row.reason


def known(client: Client, here: Services) -> None:
    client.register_device("ada", "silent-ada")
    client.bind_phone("ada", NUMBER)
    client.set_marketing_consent("ada", True, source="web")
    take(here, Task.UPDATE_AUDIENCE)


def test_a_new_person_is_pushed_whose_device_was_registered_a_moment_before(
    client: Client, working: Services, sandbox: Sandbox
) -> None:
    client.register_device("ada", "silent-ada")
    client.bind_phone("ada", NUMBER)
    id_ = client.notify(user="ada", push=PUSH, sms=SMS)
    take(working)
    assert [push.registration for push in sandbox.pushes()] == ["silent-ada"]
    assert state(working, id_)[0] == "active"


def test_a_new_person_is_pushed_who_is_introduced_by_the_same_call(
    client: Client, working: Services, sandbox: Sandbox
) -> None:
    client.notify(user="ada", registrations=["silent-ada"], phone=NUMBER, push=PUSH, sms=SMS)
    take(working)
    assert [push.registration for push in sandbox.pushes()] == ["silent-ada"]


def test_a_device_that_was_logged_out_before_gets_nothing(client: Client, working: Services, sandbox: Sandbox) -> None:
    known(client, working)
    client.unregister_device("silent-ada")
    client.register_device("ada", "silent-new")
    client.notify(user="ada", push=PUSH)
    take(working)
    assert [push.registration for push in sandbox.pushes()] == ["silent-new"]


def _moved(client: Client) -> None:
    client.bind_phone("ada", "+16505550199")
    client.opt_out("+16505550199")
    client.set_marketing_consent("ada", True, source="web")


ANSWERS: dict[str, Callable[[Client, UUID], None]] = {
    "clicked": lambda client, id_: client.record_clicked(id_),
    "cancelled": lambda client, id_: client.cancel(id_),
    "cancelled by its key": lambda client, _: client.cancel(key="order-4711"),
    "erased": lambda client, _: client.erase_user("ada"),
    "no number any more": lambda client, _: client.bind_phone("ada", None),
    "opted out": lambda client, _: client.opt_out("+1 (650) 555-0100"),
    "another number, which opted out": lambda client, _: _moved(client),
    "consent withdrawn": lambda client, _: client.set_marketing_consent("ada", False, source="web"),
}


@pytest.fixture
def due(client: Client, working: Services, clock: Clock) -> UUID:
    """A pushed notification whose countdown is over, at noon where its number is at home."""
    clock.set(datetime.now(UTC).replace(hour=20, minute=0) + timedelta(days=1))
    known(client, working)
    id_ = client.notify(user="ada", push=PUSH, sms=SMS, key="order-4711", category="marketing")
    take(working)
    clock.advance(AFTER + timedelta(seconds=1))
    return id_


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_nobody_is_texted_who_answered_before_the_decision(
    client: Client, working: Services, sandbox: Sandbox, due: UUID, answer: Callable[[Client, UUID], None]
) -> None:
    answer(client, due)
    assert working.fallback.check([str(due)]) == []
    assert sandbox.texts(NUMBER) == []
    assert state(working, due)[0] in {"reached", "cancelled", "suppressed"}
    assert not working.redis.zcard(INBOX_SUBJECTS)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_nobody_is_texted_who_answered_before_the_message_went(
    client: Client, working: Services, sandbox: Sandbox, due: UUID, answer: Callable[[Client, UUID], None]
) -> None:
    assert working.fallback.check([str(due)]) == [str(due)]
    answer(client, due)
    assert working.later_steps.send([str(due)]) == []
    assert sandbox.texts(NUMBER) == []
    assert state(working, due)[0] in {"reached", "cancelled", "suppressed"}


def test_a_message_that_cannot_be_carried_out_is_waited_for_and_not_for_ever(
    client: Client, working: Services, clock: Clock, due: UUID
) -> None:
    client.record_clicked(due)
    spoil(working)
    assert working.fallback.check([str(due)]) == []
    assert state(working, due)[0] == "active"
    clock.advance(working.catch_up.patience)
    assert working.fallback.check([str(due)]) == [str(due)]
    row = one(working, "SELECT inputs FROM decisions WHERE notification_id = :id", due)
    assert row.inputs["not_awaited"] is True
    # It is an alarm, too: once an hour, with how many there were.
    count, _ = alarms_of(working)
    assert count == 1
    level, finding = next((c.level, c.finding) for c in examine(working) if c.name == "awaited")
    assert level is Level.WARNING
    assert "1 decision of the last day did not wait for an accepted message" in finding


def test_a_message_that_was_begun_and_has_not_ended_is_left_to_its_queue(
    client: Client, working: Services, due: UUID
) -> None:
    # It may have ended its worker; whatever is carried out beside it would be lost with it, and blamed in the end.
    client.record_clicked(due)
    (begun,) = working.redis.hkeys(INBOX_MESSAGES)
    (now, _) = working.redis.time()
    working.redis.hset(INBOX_BEGUN, begun, f"1 {now}")
    client.record_delivered(due)
    assert working.fallback.check([str(due)]) == []
    assert working.redis.hkeys(INBOX_MESSAGES) == [begun]
    assert state(working, due)[0] == "active"
    take(working, Task.RECORD_EVENTS)
    assert state(working, due)[0] == "reached"


def test_what_a_dead_worker_had_begun_is_tried_alone_when_its_grace_is_over(
    client: Client, working: Services, due: UUID
) -> None:
    # Its queue may be so long that the decision would not wait for it.
    client.record_clicked(due)
    (begun,) = working.redis.hkeys(INBOX_MESSAGES)
    (now, _) = working.redis.time()
    working.redis.hset(INBOX_BEGUN, begun, f"1 {now - working.inbox.grace_s:.0f}")
    assert working.fallback.check([str(due)]) == []
    assert state(working, due)[0] == "reached"
    assert not working.redis.exists(INBOX_MESSAGES, INBOX_BEGUN)


def test_what_ends_each_worker_is_parked_by_those_who_try_it_before_a_decision(
    client: Client, working: Services, due: UUID
) -> None:
    client.record_clicked(due)
    (begun,) = working.redis.hkeys(INBOX_MESSAGES)
    (now, _) = working.redis.time()
    working.redis.hset(INBOX_BEGUN, begun, f"4 {now - working.inbox.grace_s:.0f}")
    working.fallback.check([str(due)])
    assert not working.redis.exists(INBOX_MESSAGES, INBOX_BEGUN)
    with working.engine.connect() as conn:
        assert "ended its worker" in conn.execute(sa.text("SELECT reason FROM dead_letters")).scalar_one()


def test_decisions_that_did_not_wait_are_told_to_webhooks_once_an_hour(
    client: Client, working: Services, clock: Clock, due: UUID
) -> None:
    with working.engine.begin() as conn:
        endpoints.add(conn, "http://localhost:1/hooks", [alarms.NOT_AWAITED], private=False)
    client.record_clicked(due)
    spoil(working)
    clock.advance(working.catch_up.patience)
    working.fallback.check([str(due)])
    with working.engine.begin() as conn:
        alarms.not_awaited(conn, 4, 180)
    clock.advance(timedelta(minutes=1))
    events.follow(working.engine)
    with working.engine.connect() as conn:
        (told,) = conn.execute(sa.text("SELECT type, data FROM webhook_events")).all()
    assert (told.type, told.data) == ("decisions.not_awaited", {"waited_s": 180})
    assert alarms_of(working)[0] == 5


def alarms_of(here: Services) -> tuple[int, datetime | None]:
    with here.engine.connect() as conn:
        return alarms.lately_not_awaited(conn, timedelta(hours=1))


def test_a_push_waits_for_what_was_said_of_its_person_and_not_for_ever(
    client: Client, working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    known(client, working)
    client.register_device("ada", "silent-new")
    spoil(working)
    id_ = client.notify(user="ada", push=PUSH)
    take(working)
    assert sandbox.pushes() == []
    working.pushes.resume([str(id_)])
    assert sandbox.pushes() == []
    clock.advance(working.catch_up.patience)
    working.pushes.resume([str(id_)])
    assert [push.registration for push in sandbox.pushes()] == ["silent-ada"]


def test_who_opted_in_again_before_the_decision_is_texted(
    client: Client, working: Services, sandbox: Sandbox, due: UUID
) -> None:
    client.opt_out(NUMBER)
    take(working, Task.UPDATE_AUDIENCE)
    client.opt_in(NUMBER)
    assert working.fallback.check([str(due)]) == [str(due)]
    working.later_steps.send([str(due)])
    assert len(sandbox.texts(NUMBER)) == 1
