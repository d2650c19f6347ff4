"""Whether the gateway lives, and whether it is of use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_worker.gateway.problems import Problem
from knocktwice_worker.gateway.routes.health import WELL_FOR_S, Readiness

if TYPE_CHECKING:
    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway


def test_a_gateway_whose_servers_answer_is_ready(gateway: HttpGateway) -> None:
    stranger = gateway.stranger()
    assert stranger.get("/healthz").json() == {"status": "ok"}
    assert stranger.get("/readyz").json() == {"status": "ok"}


def test_what_is_not_there_is_a_problem(gateway: HttpGateway) -> None:
    answer = gateway.stranger().get("/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["type"] == "urn:knocktwice:problem:not-found"


@pytest.fixture
def looks(here: Services) -> list[str]:
    """What PostgreSQL was asked."""
    asked: list[str] = []
    sa.event.listen(here.engine, "before_cursor_execute", lambda *told: asked.append(str(told[2])))
    return asked


def test_however_many_ask_whether_it_is_ready_they_share_one_look(here: Services, looks: list[str]) -> None:
    async def ask(strangers: int) -> int:
        looks.clear()
        readiness = Readiness(here)
        await asyncio.gather(*(readiness.check() for _ in range(strangers)))
        return len(looks)

    assert asyncio.run(ask(40)) == asyncio.run(ask(1)) > 0


def test_what_was_well_counts_as_well_for_a_second_and_what_was_not_is_looked_at_again(here: Services) -> None:
    now = [100.0]

    async def ask() -> None:
        readiness = Readiness(here, lambda: now[0])
        await readiness.check()
        _set_version(here, "0006")
        await readiness.check()
        now[0] += WELL_FOR_S
        for _ in range(2):
            with pytest.raises(Problem, match="migrate"):
                await readiness.check()
        _set_version(here, "9999_later")
        await readiness.check()

    asyncio.run(ask())


def _set_version(here: Services, version: str) -> None:
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = :version"), {"version": version})
