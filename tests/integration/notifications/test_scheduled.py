"""Sends that wait for their time: what is decided at once, what when the time comes, and what stops them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, DeviceUnregistered, PhoneBound, TagsSet, parse_batch
from knocktwice_worker.audience import people as audience
from knocktwice_worker.lifecycle import AttemptState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.pipeline import cancellation
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.runtime.dispatcher import dispatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.names import Task
    from knocktwice_worker.reporting.story import Story
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PLAN = [{"channel": "sms", "when": "not_delivered", "after_s": 600}]


def _send(here: Services, *people: dict[str, Any] | str, **fields: object) -> list[str]:
    recipients = [{"id": str(uuid7()), **({"user": p} if isinstance(p, str) else p)} for p in people]
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}, "recipients": recipients}
    here.pushes.send(parse_batch({**wire, **fields}))
    return [str(r["id"]) for r in recipients]


def _work(here: Services) -> list[tuple[Task, Sequence[str]]]:
    """Do what is due, as a worker would, until nothing is; return what was rung."""
    rung: list[tuple[Task, Sequence[str]]] = []
    while dispatch(here, lambda task, ids: rung.append((task, ids))):
        for task, ids in rung:
            if task == "knocktwice.resume_push":
                here.pushes.resume(ids)
            elif task == "knocktwice.check_fallback":
                here.later_steps.send(here.fallback.check(ids))
    return rung


def _know(here: Services, *changes: Any) -> None:
    with here.engine.begin() as conn:
        audience.apply(conn, changes)


def _told(here: Services, id_: str) -> Story:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told
    return told


@pytest.fixture
def noon(clock: Clock) -> datetime:
    """The installation's time."""
    clock.set(NOON)
    return NOON


def test_nothing_goes_before_its_time_and_everything_then(
    working: Services, clock: Clock, sandbox: Sandbox, noon: datetime
) -> None:
    _know(working, DeviceRegistered("ada", "silent-ada", AT), PhoneBound("ada", "+16505550100", AT))
    (id_,) = _send(working, "ada", plan=PLAN, send_at=(noon + HOUR).isoformat())
    clock.set(noon + HOUR - timedelta(seconds=5))
    assert _work(working) == []
    # Even if somebody rings for it, as another clock might.
    working.pushes.resume([id_])
    assert not sandbox.pushes("silent-ada")
    told = _told(working, id_)
    assert [(s.channel, s.state, s.due_at) for s in told.steps] == [
        ("push", "scheduled", noon + HOUR),
        ("sms", "scheduled", noon + HOUR + timedelta(minutes=10)),
    ]
    assert "Accepted; it waits for the time it was asked for." in [m.sentence for m in told.moments]
    clock.set(noon + HOUR)
    _work(working)
    assert len(sandbox.pushes("silent-ada")) == 1
    assert not sandbox.texts("+16505550100")
    clock.set(noon + HOUR + timedelta(minutes=11))
    _work(working)
    assert _told(working, id_).state == "texted"
    assert len(sandbox.texts("+16505550100")) == 1


def test_a_phone_that_moved_in_between_gets_no_push_of_its_former_owner(
    working: Services, clock: Clock, sandbox: Sandbox, noon: datetime
) -> None:
    _know(working, DeviceRegistered("ada", "silent-old", AT), DeviceRegistered("bob", "silent-bob", AT))
    ada, bob = _send(working, "ada", "bob", send_at=(noon + HOUR).isoformat())
    _know(working, DeviceRegistered("eve", "silent-old", noon), DeviceRegistered("ada", "silent-new", noon))
    _know(working, DeviceUnregistered("silent-bob", noon))
    clock.set(noon + HOUR)
    _work(working)
    assert [len(sandbox.pushes(f"silent-{name}")) for name in ("old", "new", "bob")] == [0, 1, 0]
    assert _told(working, ada).state == "pushed"
    assert (_told(working, bob).state, _told(working, bob).reason) == ("failed", "no_device")


def test_whether_notifications_are_off_is_decided_when_the_push_is_due(
    working: Services, clock: Clock, noon: datetime
) -> None:
    plan = [{"channel": "sms", "when": "notifications_disabled", "after_s": 0}]
    for user, number in (("off", "+16505550101"), ("on", "+16505550102")):
        _know(
            working,
            DeviceRegistered(user, f"silent-{user}", AT, notifications_enabled=user == "off"),
            PhoneBound(user, number, AT),
        )
    off, on = _send(working, "off", "on", plan=plan, send_at=(noon + HOUR).isoformat())
    for user in ("off", "on"):
        _know(working, DeviceRegistered(user, f"silent-{user}", noon, notifications_enabled=user == "on"))
    clock.set(noon + HOUR)
    _work(working)
    clock.advance(timedelta(seconds=1))
    _work(working)
    assert [_told(working, i).state for i in (off, on)] == ["texted", "pushed"]


def test_a_push_that_is_late_starts_its_countdown_when_it_goes(
    working: Services, clock: Clock, sandbox: Sandbox, noon: datetime
) -> None:
    _know(working, DeviceRegistered("ada", "silent-ada", AT), PhoneBound("ada", "+16505550100", AT))
    (id_,) = _send(working, "ada", plan=PLAN, send_at=(noon + HOUR).isoformat())
    # Everything was down for most of a day; both steps are overdue.
    clock.set(noon + 20 * HOUR)
    assert working.fallback.check([id_]) == []
    working.pushes.resume([id_])
    assert len(sandbox.pushes("silent-ada")) == 1
    _work(working)
    assert not sandbox.texts("+16505550100")
    clock.advance(timedelta(minutes=11))
    _work(working)
    assert _told(working, id_).state == "texted"


def test_a_push_that_must_be_repeated_has_its_whole_hour(working: Services, clock: Clock, noon: datetime) -> None:
    (id_,) = _send(working, {"registrations": ["silent-a"]}, send_at=(noon + 48 * HOUR).isoformat())
    clock.set(noon + 48 * HOUR)
    with working.engine.begin() as conn:
        (work,) = store.claim_push(conn, [id_], HOUR)
        store.record_push(
            conn, [store.PushResult(work.notification_id, work.registration, state=AttemptState.OPEN)], retry_for=HOUR
        )
    assert _told(working, id_).steps[0].state == "scheduled"


@pytest.mark.parametrize("plan", [[], PLAN])
def test_what_is_cancelled_in_time_is_not_sent(
    working: Services, clock: Clock, sandbox: Sandbox, noon: datetime, plan: list[Any]
) -> None:
    people: list[dict[str, Any]] = [
        {"registrations": ["silent-a"], "phone": "+16505550100", "key": "k"},
        {"registrations": ["silent-b"]},
    ]
    by_key, by_id = _send(working, *people, plan=plan, send_at=(noon + HOUR).isoformat())
    with working.engine.begin() as conn:
        store.cancel(conn, [by_id], ["k"], noon)
    clock.set(noon + 2 * HOUR)
    assert _work(working) == []
    for id_ in (by_key, by_id):
        told = _told(working, id_)
        assert (told.state, {s.state for s in told.steps}) == ("cancelled", {"cancelled"})
        # Without a step behind the push there was no decision to tell of.
        assert ("The application cancelled it." in [m.sentence for m in told.moments]) == bool(plan)
    assert not sandbox.pushes("silent-a")


def test_a_key_is_taken_and_a_text_is_checked_at_once(working: Services, noon: datetime) -> None:
    later = {"send_at": (noon + HOUR).isoformat()}
    _send(working, {"registrations": ["reg-a"], "key": "k"}, **later)
    (again,) = _send(working, {"registrations": ["reg-a"], "key": "k"})
    assert _told(working, again).state == "duplicate"
    hard = {"push": {"title": "t", "body": "{{ a | upcase }}{% if b %}{{ c }}{% endif %}"}}
    (broken,) = _send(working, {"registrations": ["reg-a"]}, content=hard, **later)
    assert _told(working, broken).state == "failed"


@pytest.mark.parametrize(
    "at", [(NOON - HOUR).isoformat(), NOON.isoformat(), {"local": "2027-01-15T11:59:59"}, {"local": "2027-01-14T18:00"}]
)
@pytest.mark.usefixtures("noon")
def test_a_time_that_is_past_means_now(working: Services, at: object) -> None:
    (id_,) = _send(working, {"registrations": ["silent-a"]}, send_at=at)
    assert _told(working, id_).state == "pushed"


def test_a_time_too_far_ahead_is_refused_and_the_setting_named(working: Services, noon: datetime) -> None:
    fine, far = noon + timedelta(days=90), noon + timedelta(days=90, seconds=1)
    (id_,) = _send(working, {"registrations": ["reg-a"]}, send_at=fine.isoformat())
    assert _told(working, id_).state == "active"
    (id_,) = _send(working, {"registrations": ["reg-a"]}, send_at=far.isoformat())
    assert _told(working, id_).reason == (
        "send_at: is more than KNOCKTWICE_MAX_AHEAD_DAYS (90) days ahead; send it when it is nearer"
    )


@pytest.mark.usefixtures("noon")
def test_a_local_time_is_the_devices_then_the_users_then_the_numbers(working: Services) -> None:
    _know(
        working,
        DeviceRegistered("device", "r1", AT, time_zone="Asia/Tokyo"),
        TagsSet("device", {}, AT, time_zone="Europe/Berlin"),
        TagsSet("user", {}, AT, time_zone="Europe/Berlin"),
        PhoneBound("user", "+81312345678", AT),
        PhoneBound("number", "+81312345678", AT),
        DeviceRegistered("nothing", "r2", AT),
    )
    people: list[dict[str, Any] | str] = [
        "device",
        "user",
        "number",
        "nothing",
        "stranger",
        {"phone": "+4915112345001"},
    ]
    ids = _send(working, *people, send_at={"local": "2027-01-16T09:00:00"})
    hours = [told.steps[0].due_at.hour for told in (_told(working, i) for i in ids) if told.steps[0].due_at]
    assert hours == [0, 8, 0, 9, 9, 8]


@pytest.mark.usefixtures("noon")
def test_an_sms_alone_goes_at_once_and_to_users_and_numbers(working: Services, sandbox: Sandbox) -> None:
    _know(working, DeviceRegistered("ada", "silent-ada", AT), PhoneBound("ada", "+16505550100", AT))
    content = {"sms": {"text": "Only this"}}
    ids = _send(working, "ada", {"phone": "+16505550101"}, {"registrations": ["reg"]}, content=content, only="sms")
    _work(working)
    ends = [(told.state, told.reason) for told in (_told(working, i) for i in ids)]
    assert ends == [*[("texted", "sms accepted by the provider")] * 2, ("suppressed", "no_phone")]
    assert not sandbox.pushes("silent-ada")
    assert [t.body for t in sandbox.texts("+16505550100")] == ["Only this"]
    assert "Nothing comes before it, so it was due at once." in [m.sentence for m in _told(working, ids[0]).moments]


def test_an_sms_alone_waits_for_its_time_and_can_be_cancelled(working: Services, clock: Clock, noon: datetime) -> None:
    content, at = {"sms": {"text": "Later"}}, (noon + HOUR).isoformat()
    people = [{"phone": "+16505550100"}, {"phone": "+16505550101"}]
    first, second = _send(working, *people, content=content, only="sms", send_at=at)
    assert _work(working) == []
    with working.engine.begin() as conn:
        store.cancel(conn, [second], [], noon)
    clock.set(noon + HOUR)
    _work(working)
    assert [_told(working, i).state for i in (first, second)] == ["texted", "cancelled"]


def test_a_later_time_costs_those_who_go_at_once_no_query(working: Services, noon: datetime) -> None:
    statements: list[str] = []
    sa.event.listen(working.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))

    def cost(people: int, **fields: object) -> int:
        statements.clear()
        _send(working, *({"registrations": [f"silent-{n}"]} for n in range(people)), plan=PLAN, **fields)
        # Pauses are read twice a second, whatever happens meanwhile.
        return sum("FROM pauses" not in statement for statement in statements)

    def least(people: int, **fields: object) -> int:
        # On a busy machine a second may go by before the pushes leave, and then their cancellations are looked for
        # again.
        return min(cost(people, **fields) for _ in range(3))

    cost(1)
    now, later = least(1), {"send_at": (noon + HOUR).isoformat()}
    # The clock is asked first, and it is looked for cancellations; nothing is pushed and recorded afterwards.
    assert least(500) == now
    assert least(500, **later) == least(1, **later) <= now + 1


@pytest.mark.parametrize("first", ["writer", "canceller"])
def test_one_cancelled_while_its_rows_are_being_written_ends_at_once(
    working: Services, noon: datetime, first: str
) -> None:
    person: dict[str, Any] = {"id": str(uuid7()), "registrations": ["silent-race"]}
    content = {"push": {"title": "t", "body": "b"}}
    batch = parse_batch({"v": 1, "id": str(uuid7()), "content": content, "recipients": [person]})
    writing = working.engine.connect()
    store.accept(writing, [store.Intake(batch, {}, HOUR, later={person["id"]: noon + HOUR})], lease=HOUR)

    def write(*_: object) -> None:
        writing.commit()
        with working.engine.begin() as conn:
            store.settle_cancelled(conn, [person["id"]])

    if first == "writer":
        # It commits and looks just before the other's first commit: neither has seen anything yet.
        sa.event.listen(working.engine, "commit", write, once=True)
    cancellation.cancel(working.engine, [person["id"]], [])
    if first == "canceller":
        write()
    writing.close()
    assert _told(working, person["id"]).state == "cancelled"


def test_one_cancelled_while_its_rows_were_being_written_is_not_sent(
    working: Services, clock: Clock, sandbox: Sandbox, noon: datetime
) -> None:
    for late in (False, True):
        registration = f"silent-race-{late}"
        person: dict[str, Any] = {"id": str(uuid7()), "registrations": [registration]}
        wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}, "recipients": [person]}
        at = {} if late else {"send_at": (noon + HOUR).isoformat()}
        batch = parse_batch({**wire, **at})
        intake = store.Intake(batch, {}, HOUR, later={} if late else {person["id"]: noon + HOUR})
        with working.engine.begin() as accepting:
            store.accept(accepting, [intake], lease=HOUR)
            with working.engine.begin() as cancelling:
                store.cancel(cancelling, [person["id"]], [], noon)
        if late:
            with working.engine.begin() as conn:
                work = store.PushWork(person["id"], registration)
                store.record_push(
                    conn,
                    [store.PushResult(work.notification_id, work.registration, state=AttemptState.OPEN)],
                    retry_for=HOUR,
                )
        clock.set(noon + 2 * HOUR)
        working.pushes.resume([person["id"]])
        assert _told(working, person["id"]).state == "cancelled"
        assert not sandbox.pushes(registration)
        clock.set(noon)
