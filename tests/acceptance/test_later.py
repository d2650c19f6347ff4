"""Sends that wait for their time, through a worker: by the clock, by the recipient's clock, cancelled,
and as SMS alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from knocktwice import LocalTime, Push, Recipient, Sms
from knocktwice_worker.content import template_store, templates
from support.system import eventually

if TYPE_CHECKING:
    from uuid import UUID

    from support.clock import Clock
    from support.system import System

HOUR = timedelta(hours=1)
PUSH = Push("Good morning", "It is nine o'clock.")
EVENING = datetime(2027, 1, 15, 18, tzinfo=UTC)
NINE = datetime(2027, 1, 16, 9, tzinfo=UTC)


def _written(system: System, *ids: UUID) -> None:
    query = "SELECT count(*) FROM notifications WHERE id = ANY(CAST(:ids AS uuid[]))"
    eventually(lambda: system.count(query, ids=[str(i) for i in ids]) == len(ids), why=system.logs)


def _run(system: System, *words: str) -> str:
    command = [sys.executable, "-m", "knocktwice_worker.cli", *words]
    done = subprocess.run(command, env=system.environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_send_waits_for_its_time_and_its_sms_for_the_delay_after_it(system: System, clock: Clock) -> None:
    clock.set(EVENING)
    person = Recipient(registrations=["silent-abs"], phone="+16505551001")
    (id_,) = system.client.notify_many([person], push=PUSH, sms=Sms(after=HOUR), send_at=EVENING + HOUR)
    _written(system, id_)
    clock.set(EVENING + HOUR - timedelta(seconds=30))
    told = system.story(id_)
    assert told
    assert [s.state for s in told.steps] == ["scheduled", "scheduled"]
    assert not system.sandbox.pushes("silent-abs")
    clock.set(EVENING + HOUR)
    eventually(lambda: system.sandbox.pushes("silent-abs"), why=system.logs)
    system.waiting(id_)
    clock.advance(HOUR - timedelta(seconds=30))
    assert not system.sandbox.texts("+16505551001")
    clock.advance(timedelta(minutes=1))
    assert system.ended(id_).state == "texted"
    assert len(system.sandbox.pushes("silent-abs")) == len(system.sandbox.texts("+16505551001")) == 1


def test_everybody_is_woken_at_nine_by_their_own_clock(system: System, clock: Clock) -> None:
    clock.set(EVENING)
    zones = {"Asia/Tokyo": -9, "Europe/Berlin": -1, "Europe/London": 0, "America/New_York": 5}
    for zone in zones:
        system.client.register_device(zone, f"silent-{zone}", time_zone=zone)
    known = "SELECT count(*) FROM devices WHERE time_zone = ANY(:zones)"
    eventually(lambda: system.count(known, zones=list(zones)) == len(zones), why=system.logs)
    ids = system.client.notify_many(list(zones), push=PUSH, send_at=LocalTime(NINE.replace(tzinfo=None)))
    _written(system, *ids)
    for i, (zone, hours) in enumerate(zones.items()):
        clock.set(NINE + timedelta(hours=hours, seconds=-20))
        assert not system.sandbox.pushes(f"silent-{zone}")
        clock.set(NINE + timedelta(hours=hours))
        assert system.ended(ids[i]).state == "pushed"
    assert [len(system.sandbox.pushes(f"silent-{zone}")) for zone in zones] == [1] * len(zones)


def test_what_waits_is_cancelled_by_id_and_by_key(system: System, clock: Clock) -> None:
    clock.set(EVENING)
    people = [Recipient(registrations=[f"silent-c{n}"], phone=f"+1650555110{n}", key=f"later-{n}") for n in range(4)]
    ids = system.client.notify_many(people, push=PUSH, sms=Sms(after=timedelta()), send_at=EVENING + HOUR)
    _written(system, *ids)
    system.client.cancel(ids[0])
    system.client.cancel(key="later-1")
    assert "accepted" in _run(system, "cancel", str(ids[2]))
    _run(system, "cancel", "--key", "later-3")
    for id_ in ids:
        told = system.ended(id_)
        assert (told.state, {s.state for s in told.steps}) == ("cancelled", {"cancelled"})
    clock.set(EVENING + 2 * HOUR)
    # Whoever comes after them in the queue is served, and they are not.
    (after,) = system.client.notify_many([Recipient(registrations=["silent-after"])], push=PUSH)
    system.ended(after)
    assert not any(system.sandbox.pushes(f"silent-c{n}") or system.sandbox.texts(f"+1650555110{n}") for n in range(4))


def test_one_cancelled_before_any_worker_saw_it_is_not_scheduled(system: System, clock: Clock) -> None:
    clock.set(EVENING)
    id_ = system.client.notify(registrations=["silent-early"], push=PUSH, send_at=EVENING + HOUR)
    system.client.cancel(id_)
    assert system.ended(id_).state == "cancelled"


def test_users_and_numbers_are_texted_without_a_push(system: System) -> None:
    system.client.register_device("only", "silent-only")
    system.client.bind_phone("only", "+16505551201")
    eventually(lambda: system.count("SELECT count(*) FROM phones WHERE number = '+16505551201'"), why=system.logs)
    people: list[Recipient | str] = ["only", Recipient(phone="+16505551202"), Recipient(phone="+16505551203")]
    ids = system.client.notify_many(people, sms=Sms("Your code is 4711."))
    assert {system.ended(id_).state for id_ in ids} == {"texted"}
    by_command = _run(system, "notify", "--phone", "+16505551204", "--sms", "Your code is 4712.")
    eventually(lambda: system.sandbox.texts("+16505551204"), why=system.logs)
    assert [len(system.sandbox.texts(f"+1650555120{n}")) for n in range(1, 5)] == [1] * 4
    assert not system.sandbox.pushes("silent-only")
    assert "Nothing comes before it, so it was due at once." in _run(system, "explain", by_command)


def _template(system: System, name: str, **more: Any) -> None:
    content = {"push": {"title": "Order", "body": "{{ courier }} comes"}, "sms": "{{ courier }} comes by {{ by }}"}
    definition = {"default_locale": "en", "contents": {"en": content, "de": {**content, "sms": "{{ courier }} kommt"}}}
    with system.engine.begin() as conn:
        template_store.put(conn, name, templates.check(name, {**definition, **more}))


def test_a_template_from_the_command_line_with_and_without_its_push_and_its_sms(system: System, clock: Clock) -> None:
    clock.set(EVENING)
    _template(system, "order", fallback={"when": "not_clicked", "after": 0}, sender="Shop")
    say = ["notify", "--template", "order", "--param", "courier=Ana", "--param", "by=bike", "--json"]

    def ended(*words: str, number: str) -> str:
        id_ = json.loads(_run(system, *say, "--registration", f"silent-{number}", "--phone", number, *words))["id"]
        query = "SELECT count(*) FROM notifications WHERE id = CAST(:id AS uuid) AND state <> 'active'"
        eventually(lambda: system.count(query, id=id_), why=system.logs)
        return str(json.loads(_run(system, "status", id_, "--json"))["state"])

    numbers = [f"+1650555130{n}" for n in range(4)]
    assert ended(number=numbers[0]) == "texted"
    assert ended("--locale", "de-AT", "--no-push", number=numbers[1]) == "texted"
    assert ended("--when", "never", number=numbers[2]) == "pushed"
    id_ = _run(system, *say[:-1], "--phone", numbers[3], "--no-push", "--send-at", "2027-01-16T09:00", "--local")
    waiting = "SELECT count(*) FROM deliveries WHERE notification_id = CAST(:id AS uuid) AND state = 'scheduled'"
    eventually(lambda: system.count(waiting, id=id_), why=system.logs)
    assert "scheduled" in _run(system, "status", id_)
    clock.set(NINE + timedelta(hours=9))
    eventually(lambda: system.sandbox.texts(numbers[3]), why=system.logs)
    assert [[(t.body, t.sender) for t in system.sandbox.texts(number)] for number in numbers] == [
        [("Ana comes by bike", "Shop")],
        [("Ana kommt", "Shop")],
        [],
        [("Ana comes by bike", "Shop")],
    ]
    assert [len(system.sandbox.pushes(f"silent-{number}")) for number in numbers] == [1, 0, 1, 0]


def test_a_template_that_forbids_an_sms_sends_none_alone(system: System) -> None:
    _template(system, "never", fallback="never")
    params = {"courier": "Ana", "by": "bike"}
    id_ = system.client.notify(phone="+16505551401", template="never", params=params, push=False)
    told = system.ended(id_)
    assert (told.state, told.reason) == ("failed", "template: the fallback of never is never, which forbids an SMS")


def test_no_sms_follows_where_none_is_wanted(system: System) -> None:
    _template(system, "chatty", fallback={"when": "not_clicked", "after": 0})
    params = {"courier": "Ana", "by": "bike"}
    id_ = system.client.notify(
        registrations=["silent-quiet"], phone="+16505551501", template="chatty", params=params, sms=False
    )
    assert system.ended(id_).state == "pushed"
