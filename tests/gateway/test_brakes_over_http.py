"""Brakes over HTTP: listed by who may read, released and dropped by who may run blasts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.services import Services
from support.crowd import APNS, Crowd
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.clock import Clock


@pytest.fixture
def crowd(working: Services, clock: Clock) -> Iterator[Crowd]:
    """Iphones of a blast whose SMS are held."""
    settings = working.settings.model_copy(update={"quiet_hours": "", "sms_prices": {"*": 0.02}})
    built = Crowd(Services(settings), clock)
    built.watch()
    yield built
    built.here.close()


@pytest.fixture
def ids(crowd: Crowd) -> list[str]:
    ids = crowd.push(120, "ios", "4.1", refused=APNS, blast="sale")
    crowd.watch()
    assert crowd.check(ids) == set()
    return ids


def test_a_reader_lists_them_and_may_not_change_them(crowd: Crowd, ids: list[str]) -> None:
    with HttpGateway(crowd.here) as gateway:
        reader = gateway.client(Scope.READ)
        (one,) = reader.get("/v1/brakes").json()["brakes"]
        assert (one["kind"], one["platform"], one["held"]) == ("refused", "ios", len(ids))
        assert one["cost"] == {"messages": 120, "cost": 2.4, "unpriced": []}
        for verb in ("release", "drop"):
            assert reader.post(f"/v1/brakes/{one['id']}/{verb}").status_code == 403


def test_who_runs_blasts_releases_them(crowd: Crowd, ids: list[str]) -> None:
    with HttpGateway(crowd.here) as gateway:
        runner = gateway.client(Scope.BLASTS)
        answer = runner.post("/v1/brakes/1/release", params={"off_for_s": 60, "reason": "the key is renewed"})
        assert answer.json() == {"messages": 120, "cost": 2.4, "unpriced": []}
        assert runner.post("/v1/brakes/1/release").json()["messages"] == 0
        reader = gateway.client(Scope.READ)
        assert reader.get("/v1/brakes").json() == {"brakes": []}
        assert reader.get("/v1/brakes", params={"all": True}).json()["brakes"][0]["state"] == "released"
    assert crowd.check(ids) == set(ids)


def test_who_runs_blasts_drops_them(crowd: Crowd, ids: list[str]) -> None:
    with HttpGateway(crowd.here) as gateway:
        runner = gateway.client(Scope.BLASTS)
        assert runner.post("/v1/brakes/1/drop").json()["messages"] == 120
        assert runner.post("/v1/brakes/9/drop").status_code == 404
    assert crowd.states(ids) == {"suppressed: dropped": 120}
