"""What an application says about people arrives in the database, by way of queue and worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import sqlalchemy as sa

from knocktwice import Push, Sms
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.privacy.erasure import SETTLED
from support.system import eventually

if TYPE_CHECKING:
    from support.clock import Clock
    from support.system import System


@pytest.fixture(scope="module")
def system(installation: System) -> System:
    installation.start_worker()
    return installation


def test_tags_and_consent_arrive(system: System) -> None:
    system.client.tag_user("ada", {"plan": "gold", "likes": ["tea"]}, locale="de-AT", time_zone="Europe/Vienna")
    system.client.bind_phone("ada", "+436601234567")
    system.client.set_marketing_consent("ada", True, source="form 7")
    said = """
    SELECT count(*) FROM users u JOIN phones p ON p.user_id = u.id
    WHERE u.tags = '{"plan": "gold", "likes": ["tea"]}' AND u.locale = 'de-AT' AND u.time_zone = 'Europe/Vienna'
      AND p.region = 'AT' AND p.consented_at IS NOT NULL AND p.consent_source = 'form 7'
    """
    eventually(lambda: system.count(said) == 1, why=system.logs)


def test_a_receipt_that_names_its_device_shows_that_it_is_alive(system: System) -> None:
    system.client.register_device("ben", "reg-ben")
    eventually(lambda: system.count("SELECT count(*) FROM devices WHERE registration = 'reg-ben'") == 1)
    with system.engine.begin() as conn:
        conn.execute(sa.text("UPDATE devices SET last_seen_at = '2026-01-01' WHERE registration = 'reg-ben'"))
    at = datetime.now(UTC) - timedelta(minutes=1)
    system.client.record_delivered(uuid4(), registration="reg-ben", at=at)
    seen = "SELECT count(*) FROM devices WHERE registration = 'reg-ben' AND last_seen_at = :at"
    eventually(lambda: system.count(seen, at=at) == 1, why=system.logs)


def test_an_erased_person_is_gone_and_the_message_stays_until_that_is_settled(system: System, clock: Clock) -> None:
    system.client.register_device("cleo", "silent-cleo")
    system.client.bind_phone("cleo", "+16505550177")
    eventually(lambda: system.count("SELECT count(*) FROM phones WHERE user_id = 'cleo'") == 1, why=system.logs)
    id_ = system.client.notify(
        user="cleo", push=Push("For Cleo", "Are you there?"), sms=Sms(after=timedelta(hours=1)), key="cleo-1"
    )
    system.waiting(id_)
    system.client.erase_user("cleo")
    told = system.ended(id_)
    assert (told.state, told.reason) == ("cancelled", "erased")
    gone = "SELECT count(*) FROM users WHERE id = 'cleo'"
    eventually(lambda: system.count(gone) == 0, why=system.logs)
    # Not every worker needs to know yet.
    assert system.redis.hlen(INBOX_MESSAGES) == 1
    clock.advance(SETTLED)
    eventually(lambda: system.redis.hlen(INBOX_MESSAGES) == 0, why=system.logs)
    left = system.story(id_)
    assert left
    assert (left.state, left.user) == ("cancelled", None)
    assert "cleo" not in system.logs()
