"""Whether the gateway lives, and whether it is of use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from http_gateway import HttpGateway


def test_a_gateway_whose_servers_answer_is_ready(gateway: HttpGateway) -> None:
    stranger = gateway.stranger()
    assert stranger.get("/healthz").json() == {"status": "ok"}
    assert stranger.get("/readyz").json() == {"status": "ok"}


def test_what_is_not_there_is_a_problem(gateway: HttpGateway) -> None:
    answer = gateway.stranger().get("/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["type"] == "urn:knocktwice:problem:not-found"
