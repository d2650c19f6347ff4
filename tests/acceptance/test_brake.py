"""A lapsed APNs key before running workers: nobody is texted until an operator says so."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice import Category, Push, Recipient, Sms
from knocktwice_worker.brake import brakes
from knocktwice_worker.notifications.store.braked import HeldFilter
from knocktwice_worker.sandbox import Answer, Rule
from support.system import eventually

if TYPE_CHECKING:
    from support.clock import Clock
    from support.system import System

PEOPLE = 150

REGISTER = (
    "INSERT INTO users (id) SELECT 'u-' || n FROM generate_series(1, :people) n",
    """
    INSERT INTO devices (registration, user_id, platform, app_version)
    SELECT 'silent-' || n, 'u-' || n, 'ios', '4.2' FROM generate_series(1, :people) n
    """,
    """
    INSERT INTO phones (user_id, number, changed_at, consented_at)
    SELECT 'u-' || n, '+1650253' || lpad(CAST(n AS text), 4, '0'), now(), now() FROM generate_series(1, :people) n
    """,
)


@pytest.fixture(scope="module")
def system(installation: System) -> System:
    installation.settings["KNOCKTWICE_QUIET_HOURS"] = ""
    with installation.engine.begin() as conn:
        for statement in REGISTER:
            conn.execute(sa.text(statement), {"people": PEOPLE})
    installation.start_worker()
    installation.start_worker()
    watched = "SELECT count(*) FROM followers WHERE name = 'brake'"
    eventually(lambda: installation.count(watched), why=installation.logs)
    return installation


def test_every_iphone_is_refused_and_nobody_is_texted_until_an_operator_says_so(system: System, clock: Clock) -> None:
    system.sandbox.rule(Rule("push", answer=Answer(error_code="THIRD_PARTY_AUTH_ERROR")))
    ids = system.client.notify_many(
        [Recipient(user=f"u-{n}") for n in range(1, PEOPLE + 1)],
        push=Push("Sale", "Everything must go."),
        sms=Sms(when="not_delivered", after=timedelta(seconds=30)),
        category=Category.MARKETING,
    )
    failed = "SELECT count(*) FROM deliveries WHERE step = 0 AND state = 'failed'"
    eventually(lambda: system.count(failed) == PEOPLE, why=system.logs)
    clock.advance(timedelta(seconds=55))
    held = "SELECT count(*) FROM deliveries WHERE brake IS NOT NULL AND wake_at IS NOT NULL"
    eventually(lambda: system.count(held) == PEOPLE, why=system.logs)
    assert system.sandbox.texts() == []
    told = system.story(ids[0])
    assert told
    assert any("held by brake 1" in m.sentence and "third_party_auth" in m.sentence for m in told.moments)
    assert brakes.release(system.engine, HeldFilter(1), grace=timedelta(hours=1), reason="the key is renewed") == PEOPLE
    eventually(lambda: len(system.sandbox.texts()) == PEOPLE, why=system.logs)
