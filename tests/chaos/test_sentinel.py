"""A broker behind Sentinel: its primary dies under load, another takes over, and nothing that was confirmed is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice import BrokerUnavailable, Client, Push, Recipient
from knocktwice_worker.config import Settings
from knocktwice_worker.diagnosis import doctor
from knocktwice_worker.services import Services
from support.application import Application
from support.sentinel import Guarded
from support.system import System, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from uuid import UUID


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    with Guarded(tmp_path / "servers") as running:
        yield running


class Knocking(Application):
    """An application that knocks without a pause, and again with the same key until it is confirmed."""

    def __init__(self, url: str) -> None:
        super().__init__(Client(url, timeout=1, durability="replica"), 0.01)
        self.confirmed: list[UUID] = []
        self._number = 0

    def knock(self) -> None:
        person = Recipient(registrations=[f"silent-{self._number}"], key=f"knock-{self._number}")
        try:
            self.confirmed += self.client.notify_many([person], push=Push("Hello", "Knock knock"))
        except BrokerUnavailable:
            return
        self._number += 1


def _written(system: System) -> set[str]:
    with system.engine.connect() as conn:
        return set(conn.execute(sa.text("SELECT id::text FROM notifications")).scalars())


def test_a_failover_under_load_loses_nothing_that_was_confirmed(
    guarded: Guarded, database_url: str, tmp_path: Path
) -> None:
    with System(database_url, guarded.url, tmp_path) as system:
        system.start_worker()
        with Knocking(guarded.url) as knocking:
            eventually(lambda: len(knocking.confirmed) > 20 and _written(system), why=system.logs)
            guarded.lose_primary()
            before = len(knocking.confirmed)
            eventually(lambda: len(knocking.confirmed) > before + 20, why=system.logs)
        eventually(lambda: _written(system) >= {str(id_) for id_ in knocking.confirmed}, why=system.logs)
        settings = Settings(database_url=database_url, broker_url=guarded.url, home=tmp_path)
        found = {check.name: check for check in doctor.examine(Services(settings)) if check.name == "broker"}
        assert found["broker"].level == "ok", found
