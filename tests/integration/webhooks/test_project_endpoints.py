"""An endpoint of a project is told of its own notifications, texts and budget, and of nothing else."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.audience import inbound_texts
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import alarms
from knocktwice_worker.webhooks import endpoints, events
from support.webhook_receiver import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.services import Services
    from support.clock import Clock

ADA, OURS = "+16505550100", "+15005550006"


@pytest.fixture
def application() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as built:
        yield built


def _accept(here: Services, project: str | None) -> str:
    id_ = str(uuid7())
    wire: dict[str, Any] = {
        "v": 1,
        "id": str(uuid7()),
        "content": {"push": {"title": "t", "body": "b"}},
        "recipients": [{"id": id_, "registrations": ["phone-1"]}],
    }
    batch = parse_batch(wire if project is None else {**wire, "project": project})
    with here.engine.begin() as conn:
        store.accept(conn, [store.Intake(batch, {}, timedelta(hours=1))], lease=timedelta(minutes=1))
    return id_


def _tell(here: Services, clock: Clock) -> None:
    clock.advance(timedelta(minutes=1))
    events.follow(here.engine)
    while here.webhooks.send():
        pass


def test_only_an_endpoint_of_tests_is_told_of_tests_and_each_event_has_the_mark(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    with WebhookReceiver() as testers, WebhookReceiver() as shops:
        with here.engine.begin() as conn:
            endpoints.add(conn, application.url, private=False)
            endpoints.add(conn, testers.url, private=False, test=True)
            endpoints.add(conn, shops.url, private=False, project="shop", test=True)
        ids = {project: _accept(here, project) for project in (None, "shop", "~test", "shop~test")}
        _tell(here, clock)
        heard = [
            [(one["data"]["notification"], one["data"].get("project"), one["data"].get("test")) for _, one in who.taken]
            for who in (application, testers, shops)
        ]
        assert sorted(heard[0]) == sorted([(ids[None], None, None), (ids["shop"], "shop", None)])
        assert heard[1:] == [[(ids["~test"], None, True)], [(ids["shop~test"], "shop", True)]]


def test_a_projects_endpoint_hears_its_own_notifications_texts_and_budget_and_nothing_else(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    with WebhookReceiver() as operators:
        with here.engine.begin() as conn:
            endpoints.add(conn, application.url, project="amber", private=False)
            endpoints.add(conn, operators.url, private=False)
            with pytest.raises(InvalidMessage, match="project"):
                endpoints.add(conn, operators.url + "/2", project="Am ber", private=False)
        ids = {project: _accept(here, project) for project in ("amber", "blue", None)}
        with here.engine.begin() as conn:
            inbound_texts.receive(conn, [InboundText("SM1", ADA, Wish.STOP, "STOP", "twilio", "sms", OURS)], b"test")
            own = [
                InboundText(f"SM-{of}", ADA, Wish.STOP, "STOP", "twilio", "sms", OURS, of) for of in ("amber", "blue")
            ]
            inbound_texts.receive(conn, own, b"test")
            alarms.sound(conn, "pause.on", "1", {"reason": "blue"})
            for of in ("amber", "blue"):
                alarms.sound(conn, "budget.used", of, {"budget": "all", "project": of})
        _tell(here, clock)
        told = [(one["type"], one["data"].get("notification")) for _, one in application.taken]
        assert sorted(told, key=str) == [
            ("budget.used", None),
            ("inbound.text", None),
            ("notification.accepted", ids["amber"]),
        ]
        assert {one["data"]["project"] for _, one in application.taken} == {"amber"}
        everything = [one["data"].get("notification") for _, one in operators.taken]
        assert set(ids.values()) <= set(everything)
        assert {"pause.on", "inbound.text", "number.opted_out"} <= set(operators.types())
        with here.engine.begin() as conn:
            found = {one.url: one.id for one in endpoints.list_all(conn)}
            count = events.replay(conn, notification=ids["blue"], endpoint=found[application.url])
            assert count == 0
            assert events.replay(conn, notification=ids["amber"], endpoint=found[application.url]) == 1
        _tell(here, clock)
        assert {one["data"]["project"] for _, one in application.taken} == {"amber"}
        assert len(application.taken) == 4
