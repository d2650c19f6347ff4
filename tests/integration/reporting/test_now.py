"""The figures of Flower's first page: which messages wait, and which workers take them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import Client, Push
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import Queue
from knocktwice_worker.fleet import members
from knocktwice_worker.fleet.members import Member
from knocktwice_worker.flower import figures
from knocktwice_worker.lifecycle import NotificationState
from knocktwice_worker.notifications import store
from knocktwice_worker.services import Services
from support.scenario import NOW, installed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.embedded.servers import Servers
    from support.scenario import Scenario


_END = sa.text("""
UPDATE notifications SET state = :state, reason = :state, finished_at = CASE WHEN :state <> 'active' THEN created_at END
WHERE id = :id
""")


@pytest.fixture
def here(servers: Servers, tmp_path: Path) -> Iterator[Scenario]:
    with installed(servers, tmp_path) as scenario:
        yield scenario


def test_a_message_at_night_is_counted_until_the_morning(here: Scenario) -> None:
    sleeper, awake, _ = (here.accepted(plan=NOW) for _ in range(3))
    with here.here.engine.begin() as conn:
        store.postpone_until(conn, {awake.id: here.now() - timedelta(seconds=1)})
        assert figures.now(conn, here.here)["night"] == 0
        store.postpone_until(conn, {sleeper.id: here.now() + timedelta(hours=7)})
        assert figures.now(conn, here.here)["night"] == 1


def test_queues_have_their_workers_and_accepted_messages_their_age(here: Scenario) -> None:
    redis = here.here.redis
    members.announce(redis, Member("w1", "worker", "0", queues=[Queue.PUSH.value, Queue.SMS.value]))
    members.announce(redis, Member("beat", "beat", "0"))
    with Client(here.here.settings.broker_url) as client:
        client.notify(registrations=["silent-1"], push=Push("Hello", "World"))
    with here.here.engine.begin() as conn:
        broker = figures.now(conn, here.here)["broker"]
    assert (broker.queues["push"], broker.queues["sms"], broker.queues["fallback"]) == ((1, 1), (0, 1), (0, 0))
    assert broker.accepted == 1
    assert 0 <= broker.oldest_s < 60


def test_the_chart_tells_every_state_and_takes_none_for_another(here: Scenario) -> None:
    shown = {
        "active": "active",
        "reached": "reached",
        "pushed": "reached",
        "texted": "texted",
        "suppressed": "suppressed",
        "cancelled": "cancelled",
        "failed": "failed",
        "unknown": "failed",
        "duplicate": None,
    }
    assert shown.keys() == set(NotificationState)
    for state, series in shown.items():
        with here.here.engine.begin() as conn:
            conn.execute(sa.text("TRUNCATE notifications CASCADE"))
        one = here.accepted(plan=NOW)
        with here.here.engine.begin() as conn:
            conn.execute(_END, {"state": state, "id": one.id})
            assert [bar.series for bar in figures.now(conn, here.here)["bars"]] == [series] * bool(series), state
    assert set(figures.SERIES) == {series for series in shown.values() if series}


def test_the_budget_of_a_project_stands_beside_that_of_all(working: Services, tmp_path: Path) -> None:
    file = tmp_path / "projects.yaml"
    file.write_text("projects: {shop: {budget: {total: 5, marketing: 2}}, bank: {}}")
    shop = Services(working.settings.model_copy(update={"quiet_hours": "", "projects_file": file, "sms_budget": 10}))
    id_ = str(uuid7())
    wire: dict[str, Any] = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    shop.pushes.send(parse_batch({**wire, "project": "shop", "recipients": [{"id": id_, "phone": "+16505550100"}]}))
    assert shop.later_steps.send(shop.fallback.check([id_])) == [id_]
    with shop.engine.begin() as conn:
        budgets = figures.now(conn, shop)["budget"]
    shop.close()
    assert {("shop, in all", 1, 5), ("shop, marketing", 0, 2)} <= set(budgets)
    assert [limit for name, _, limit in budgets if name == "in all"] == [10]
