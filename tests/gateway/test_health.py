"""Whether the gateway lives, and whether it is of use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import sqlalchemy as sa

from knocktwice_worker.gateway.routes.health import WELL_FOR_S, Readiness
from system import eventually

if TYPE_CHECKING:
    from http_gateway import HttpGateway
    from knocktwice_worker.services import Services

_SINCE = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def test_a_gateway_whose_servers_answer_is_ready(gateway: HttpGateway) -> None:
    stranger = gateway.stranger()
    assert stranger.get("/healthz").json() == {"status": "ok"}
    assert stranger.get("/readyz").json() == {"status": "ok"}


def test_what_is_not_there_is_a_problem(gateway: HttpGateway) -> None:
    answer = gateway.stranger().get("/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["type"] == "urn:knocktwice:problem:not-found"


def test_however_many_ask_whether_it_is_ready_one_of_them_makes_it_look(gateway: HttpGateway, here: Services) -> None:
    watching = sa.create_engine(here.settings.database_url or "", poolclass=sa.NullPool)

    def waiting() -> int:
        with watching.connect() as conn:
            return int(conn.execute(sa.text(_SINCE)).scalar_one())

    stranger, client = gateway.stranger(), gateway.client()
    with ThreadPoolExecutor(40) as strangers:
        with watching.begin() as conn:
            conn.execute(sa.text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
            asked = [strangers.submit(stranger.get, "/readyz") for _ in range(40)]
            eventually(waiting)
            # Neither connections nor threads are lost to those with a key.
            assert client.get("/v1/segments").status_code == 200
            assert waiting() == 1
        assert {answer.result().status_code for answer in asked} == {200}
    watching.dispose()


async def _look(readiness: Readiness, here: Services) -> None:
    await readiness.check()
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE alembic_version SET version_num = '0006'"))
    await readiness.check()


def test_what_was_well_counts_as_well_for_a_second(here: Services) -> None:
    import asyncio

    import pytest

    from knocktwice_worker.gateway.problems import Problem

    now = [100.0]

    async def look() -> None:
        readiness = Readiness(here, lambda: now[0])
        await _look(readiness, here)
        now[0] += WELL_FOR_S
        for _ in range(2):
            with pytest.raises(Problem, match="migrate"):
                await readiness.check()
        readiness.close()

    asyncio.run(look())
