"""What an application says about people arrives in the database, by way of queue and worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
import sqlalchemy as sa

from system import eventually

if TYPE_CHECKING:
    from system import System


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
