"""A registration that the application names itself is the registered device that it belongs to."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import Client, LocalTime, Push, Recipient, Sms, tpns
from knocktwice_shared.messages import When
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.notifications.store import removal
from knocktwice_worker.reporting.story import Story, tell
from knocktwice_worker.webhooks import endpoints, events
from support.webhook_receiver import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

#: The longest of all delays that the tests wait for.
HOUR = timedelta(hours=1)
OFF, ON, UNKNOWN, GONE = "silent-off", "silent-on", "silent-unknown", "gone-and-away"
NUMBER = "+16505550100"
PUSH = Push("Your table is ready", "We keep it until 19:45.")


@pytest.fixture
def client(valkey_url: str) -> Iterator[Client]:
    with Client(valkey_url) as client:
        yield client


@pytest.fixture
def here(client: Client, working: Services) -> Services:
    """Ada has a phone that shows nothing, and Ben one that shows everything."""
    client.register_device("ada", OFF, notifications_enabled=False, locale="de-AT", time_zone="Asia/Tokyo")
    client.bind_phone("ada", NUMBER)
    client.register_device("ben", ON)
    client.bind_phone("ben", "+16505550101")
    take(working, Task.UPDATE_AUDIENCE)
    return working


def take(here: Services, task: Task = Task.SEND_PUSH) -> None:
    """Carry out the accepted messages of one task, as its worker would."""
    entries: dict[bytes, bytes] = here.redis.hgetall(INBOX_MESSAGES)  # type: ignore[assignment]
    for id_, raw in sorted(entries.items()):
        entry = json.loads(raw)
        if entry["task"] == task:
            here.inbox.carry_out(task, id_.decode(), entry["message"], here.accepted[task])


def column(here: Services, query: str, id_: UUID) -> Any:
    with here.engine.connect() as conn:
        return conn.execute(sa.text(query), {"id": id_}).scalar_one()


def story(here: Services, id_: UUID) -> Story:
    with here.engine.connect() as conn:
        told = tell(conn, str(id_))
    assert told is not None
    return told


def told(here: Services, id_: UUID) -> tuple[str, str | None, str | None]:
    """Return state and reason of the push, and whose the notification is."""
    found = story(here, id_)
    return found.steps[0].state, found.steps[0].reason, found.user


def step_down(here: Services, *ids: UUID) -> None:
    """Do what is due."""
    wanted = [str(id_) for id_ in ids]
    here.later_steps.send(here.fallback.check(wanted))


def texted(sandbox: Sandbox) -> list[str]:
    return [text.to for text in sandbox.texts()]


def test_one_that_shows_nothing_is_not_pushed_to_and_its_owner_is_texted(
    client: Client, here: Services, sandbox: Sandbox
) -> None:
    sms = Sms("Ready.", when="notifications_disabled", after=timedelta())
    id_ = client.notify(registrations=[OFF], push=PUSH, sms=sms)
    take(here)
    assert sandbox.pushes() == []
    assert told(here, id_) == ("skipped", "notifications_disabled", "ada")
    step_down(here, id_)
    assert texted(sandbox) == [NUMBER]


def test_a_payload_of_tencents_does_the_same(client: Client, here: Services, sandbox: Sandbox, clock: Clock) -> None:
    payload = {
        "audience_type": "token_list",
        "token_list": [ON, OFF],
        "message_type": "notify",
        "message": {"title": "t", "content": "c"},
        "resend_by_sms": True,
        "sms_info": {"delay_trigger_time": 300, "trigger_condition": 0, "sms_template_id": "1", "sms_app_id": "1"},
    }
    done = tpns.notify(payload, client=client, sms_templates={"1": "Ready."})
    take(here)
    clock.advance(timedelta(minutes=5))
    step_down(here, *done.ids)
    assert (len(done.ids), done.sms_problems) == (2, ())
    assert [push.registration for push in sandbox.pushes()] == [ON]
    assert texted(sandbox) == [NUMBER]


@pytest.mark.parametrize("when", [When.NOT_DELIVERED, When.NOT_CLICKED, When.NOTIFICATIONS_DISABLED])
def test_nothing_to_wait_for_means_at_once_unless_the_delay_is_the_callers(
    client: Client, here: Services, sandbox: Sandbox, clock: Clock, when: When
) -> None:
    id_ = client.notify(registrations=[OFF], push=PUSH, sms=Sms("Ready.", when=when, after=HOUR))
    take(here)
    step_down(here, id_)
    assert texted(sandbox) == ([] if when is When.NOTIFICATIONS_DISABLED else [NUMBER])
    clock.advance(HOUR)
    step_down(here, id_)
    assert texted(sandbox) == [NUMBER]


@pytest.mark.parametrize(
    ("given", "pushed", "owner"),
    [
        ([ON], [ON], "ben"),
        ([OFF, ON], [ON], "ada"),
        ([UNKNOWN, ON, OFF], [ON, UNKNOWN], "ben"),
        ([UNKNOWN], [UNKNOWN], None),
        ([ON, ON, OFF, ON], [ON], "ben"),
    ],
)
def test_the_first_that_is_registered_says_whose_it_is(
    client: Client, here: Services, sandbox: Sandbox, given: list[str], pushed: list[str], owner: str | None
) -> None:
    id_ = client.notify(registrations=given, push=PUSH)
    take(here)
    assert sorted(push.registration for push in sandbox.pushes()) == pushed
    assert story(here, id_).user == owner


def test_a_number_beside_it_says_who_is_texted_and_the_flag_counts_all_the_same(
    client: Client, here: Services, sandbox: Sandbox
) -> None:
    sms = Sms("Ready.", when="notifications_disabled", after=timedelta())
    id_ = client.notify(registrations=[OFF], phone="+16505550177", push=PUSH, sms=sms)
    take(here)
    assert told(here, id_) == ("skipped", "notifications_disabled", None)
    step_down(here, id_)
    assert texted(sandbox) == ["+16505550177"]


def test_a_phone_that_was_logged_out_of_is_nobodys(client: Client, here: Services, sandbox: Sandbox) -> None:
    client.unregister_device(OFF, user="ada")
    id_ = client.notify(registrations=[OFF], push=PUSH)
    take(here)
    assert [push.registration for push in sandbox.pushes()] == [OFF]
    assert story(here, id_).user is None


@pytest.mark.parametrize(
    ("change", "category", "reason"),
    [
        ("opt_out", "transactional", "opted_out"),
        ("nothing", "marketing", "no_consent"),
        ("unbind", "critical", "no_phone"),
    ],
)
def test_what_its_owner_asked_for_holds(
    client: Client, here: Services, sandbox: Sandbox, change: str, category: str, reason: str
) -> None:
    if change == "opt_out":
        client.opt_out(NUMBER)
    if change == "unbind":
        client.bind_phone("ada", None)
    id_ = client.notify(registrations=[OFF], push=PUSH, sms=Sms("Ready.", after=timedelta()), category=category)
    take(here)
    step_down(here, id_)
    assert (story(here, id_).reason, sandbox.texts()) == (reason, [])


def test_its_language_is_spoken_and_its_clock_counts(client: Client, here: Services) -> None:
    raw = {
        "contents": {lang: {"push": {"title": lang, "body": "b"}} for lang in ("de", "en")},
        "default_locale": "en",
    }
    with here.engine.begin() as conn:
        template_store.put(conn, "t", templates.check("t", raw))
    ids = client.notify_many([Recipient(registrations=[UNKNOWN]), Recipient(registrations=[OFF])], template="t")
    take(here)
    locales = [column(here, "SELECT locale FROM notifications WHERE id = :id", id_) for id_ in ids]
    assert locales == ["en", "de"]
    noon = datetime.now(UTC).replace(tzinfo=None, hour=12, minute=0, second=0, microsecond=0) + timedelta(days=2)
    id_ = client.notify(registrations=[OFF], push=PUSH, send_at=LocalTime(noon))
    take(here)
    at = column(here, "SELECT due_at FROM deliveries WHERE notification_id = :id", id_)
    assert at.astimezone(UTC).hour == 3


def test_a_push_for_later_asks_again_when_it_goes(
    client: Client, here: Services, sandbox: Sandbox, clock: Clock
) -> None:
    later = datetime.now(UTC) + HOUR
    sms = Sms("Ready.", when="notifications_disabled", after=timedelta())
    off, moved = client.notify_many(
        [Recipient(registrations=[r]) for r in (OFF, ON)], push=PUSH, sms=sms, send_at=later
    )
    take(here)
    client.register_device("cem", ON, notifications_enabled=False)
    client.bind_phone("cem", "+16505550102")
    take(here, Task.UPDATE_AUDIENCE)
    clock.advance(HOUR + timedelta(seconds=1))
    here.pushes.resume([str(off), str(moved)])
    step_down(here, off, moved)
    assert [told(here, id_) for id_ in (off, moved)] == [
        ("skipped", "notifications_disabled", "ada"),
        ("skipped", "notifications_disabled", "cem"),
    ]
    assert (sandbox.pushes(), sorted(texted(sandbox))) == ([], [NUMBER, "+16505550102"])


def test_its_place_and_its_ending_are_told(client: Client, here: Services, clock: Clock) -> None:
    with WebhookReceiver() as application:
        with here.engine.begin() as conn:
            endpoints.add(conn, application.url, ["push.sent"], private=False)
        id_ = client.notify(registrations=[UNKNOWN, OFF, ON, GONE], push=PUSH)
        take(here)
        sentences = [moment.sentence for moment in story(here, id_).moments if moment.kind == "push"]
        assert [s.removeprefix("Push to ") for s in sentences] == [
            "device 1 of 4, …nknown, was taken by the provider.",
            "device 2 of 4, …nt-off, was not made (notifications_disabled).",
            "device 3 of 4, …ent-on, was taken by the provider.",
            "device 4 of 4, …d-away, was refused (unregistered: FCM UNREGISTERED).",
        ]
        clock.advance(timedelta(minutes=1))
        events.follow(here.engine)
        here.webhooks.send()
        ((_, event),) = application.taken
    devices = [(d["place"], d["registration"], d["state"]) for d in event["data"]["devices"]]
    assert devices == [(d.place, d.registration, d.state) for d in story(here, id_).devices]
    assert [state for *_, state in devices] == ["sent", "rejected", "sent", "rejected"]
    assert ON not in json.dumps(event)
    with here.engine.begin() as conn:
        events.erase(conn, [str(id_)])
        removal.blank(conn, [str(id_)])
        (data,) = conn.exec_driver_sql("SELECT data FROM webhook_events WHERE type = 'push.sent'").scalars()
    assert "devices" not in data
    assert {device.registration for device in story(here, id_).devices} == {"an erased one"}
