"""Who may read ``/metrics``, and that it counts what the gateway answers."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.counters import totals
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.metrics.scrape import CONTENT_TYPE
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from knocktwice_worker.config import Settings


def test_the_series_are_for_admins(gateway: HttpGateway) -> None:
    assert gateway.stranger().get("/metrics").status_code == 401
    assert gateway.client(Scope.READ).get("/metrics").status_code == 403
    answer = gateway.client(Scope.ADMIN).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert 'knocktwice_part_up{part="database"} 1.0' in answer.text


@pytest.mark.parametrize(
    ("networks", "proxies", "forwarded", "status"),
    [
        (["127.0.0.0/8"], [], None, 200),
        (["10.0.0.0/8"], [], None, 401),
        # Behind a proxy that is known the client's own address counts.
        (["127.0.0.0/8"], ["127.0.0.1"], "203.0.113.9", 401),
        (["203.0.113.0/24"], ["127.0.0.1"], "203.0.113.9", 200),
        # What anybody may write counts for nothing.
        (["203.0.113.0/24"], [], "203.0.113.9", 401),
    ],
)
def test_named_networks_need_no_key(
    settings: Settings, networks: list[str], proxies: list[str], forwarded: str | None, status: int
) -> None:
    nets = {name: frozenset(map(ip_network, given)) for name, given in (("m", networks), ("p", proxies))}
    here = Services(settings.model_copy(update={"gateway_metrics_from": nets["m"], "gateway_proxies": nets["p"]}))
    with HttpGateway(here) as running:
        headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
        assert running.stranger().get("/metrics", headers=headers).status_code == status
    here.close()


def test_answers_are_counted_by_status(gateway: HttpGateway, here: Services) -> None:
    for _ in range(3):
        gateway.stranger().get("/nowhere")
    gateway.client().get("/v1/stats")
    totals.flush(here.redis, here.counters)
    found = totals.read(here.redis)
    assert (found["gateway_answers", "404"], found["gateway_answers", "200"]) == (3, 1)
