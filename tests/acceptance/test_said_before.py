"""Said before, counts before, with real workers: whatever order queues are served in, and however long none is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from knocktwice import Push, Recipient, Sms
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope
from support.system import eventually

if TYPE_CHECKING:
    from support.clock import Clock
    from support.system import System

PUSH = Push("Your table is ready", "We keep it until 19:45.")
SMS = Sms(when="not_clicked", after=timedelta(hours=1))
PEOPLE = 500


def _number(n: int) -> str:
    return f"+1650{5_500_000 + n}"


def _pushed(system: System, prefix: str) -> int:
    return len({push.registration for push in system.sandbox.pushes() if push.registration.startswith(prefix)})


def _not_pushed(system: System) -> int:
    return system.count(
        "SELECT count(*) FROM deliveries WHERE step = 0 AND reason IN ('no_device', 'notifications_disabled')"
    )


def test_five_hundred_people_who_sign_up_and_are_notified_at_once_are_all_pushed(system: System) -> None:
    for n in range(PEOPLE):
        system.client.register_device(f"u{n}", f"silent-library-{n}")
        system.client.bind_phone(f"u{n}", _number(n))
        system.client.notify(user=f"u{n}", push=PUSH, sms=SMS)
    eventually(lambda: _pushed(system, "silent-library") == PEOPLE, why=system.logs)
    assert _not_pushed(system) == 0


def test_so_they_are_over_http(gateway: str, system: System) -> None:
    with system.engine.begin() as conn:
        key = keys.create(conn, "test", frozenset({Scope.NOTIFY, Scope.AUDIENCE}), secret="test")

    def sign_up(n: int) -> None:
        with httpx.Client(base_url=gateway, headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            user = f"h{n}"
            device = f"/v1/users/{user}/devices/silent-http-{n}"
            assert client.put(device, json={"platform": "android"}).status_code == 202
            assert client.put(f"/v1/users/{user}/phone", json={"phone": _number(1_000 + n)}).status_code == 202
            body = {"user": user, "push": {"title": "t", "body": "b"}, "sms": {"when": "not_clicked", "after_s": 3600}}
            assert client.post("/v1/notifications", json=body).status_code == 202

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sign_up, range(PEOPLE)))
    eventually(lambda: _pushed(system, "silent-http") == PEOPLE, why=system.logs)
    assert _not_pushed(system) == 0


@pytest.mark.parametrize("when", ["before their time", "after it"])
def test_nobody_is_texted_whose_click_was_accepted_while_all_workers_were_down(
    system: System, clock: Clock, when: str
) -> None:
    prefix = f"silent-{when.replace(' ', '-')}"
    first = 10_000 if when == "after it" else 20_000
    people = [Recipient(registrations=(f"{prefix}-{n}",), phone=_number(first + n)) for n in range(300)]
    ids = system.client.notify_many(people, push=PUSH, sms=SMS)
    eventually(lambda: _pushed(system, prefix) == len(people), why=system.logs)
    settled = "SELECT count(*) FROM deliveries WHERE step = 0 AND state = 'sending'"
    eventually(lambda: system.count(settled) == 0, why=system.logs)
    system.stop_workers()
    if when == "after it":
        clock.advance(timedelta(hours=2))
    clicked, silent = ids[:-1], ids[-1]
    for id_ in clicked:
        system.client.record_clicked(id_)
    if when != "after it":
        clock.advance(timedelta(hours=2))
    system.start_worker()
    assert system.ended(silent).state == "texted"
    active = "SELECT count(*) FROM notifications WHERE state = 'active' AND id = ANY(:ids)"
    eventually(lambda: system.count(active, ids=list(ids)) == 0, why=system.logs)
    numbers = {person.phone for person in people[:-1]}
    assert [text.to for text in system.sandbox.texts() if text.to in numbers] == []
