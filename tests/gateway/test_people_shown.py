"""A person is shown over HTTP and on the command line, and no more of them than the key may see."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.messages import ConsentSet, DeviceRegistered, PhoneBound, TagsSet, parse_audience
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.audience import opt_outs, people
from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    import redis

    from support.http_gateway import HttpGateway

AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
TOKEN = "c" * 30 + "-ending"
USER, PATH = "a/b 50%", "/v1/users/a%2Fb%2050%25"


@pytest.fixture
def described(gateway: HttpGateway) -> HttpGateway:
    """A gateway that knows a person of whom everything is known."""
    with gateway.services.engine.begin() as conn:
        people.apply(
            conn,
            [
                DeviceRegistered(USER, TOKEN, AT, notifications_enabled=False, locale="de-AT"),
                PhoneBound(USER, "+16505550100", AT),
                TagsSet(USER, {"plan": "gold"}, AT, locale="de", time_zone="Europe/Vienna"),
                ConsentSet(USER, True, "checkout, box 2", AT),
            ],
        )
        opt_outs.add(conn, ["+16505550100"], "letter")
    return gateway


def test_a_person_is_shown_with_everything_to_a_key_for_the_audience(described: HttpGateway) -> None:
    shown = described.client(Scope.READ, Scope.AUDIENCE).get(PATH).json()
    assert (shown["user"], shown["phone"], shown["country"], shown["opted_out"]) == (USER, "+16505550100", "US", True)
    assert shown["consent"]["granted"] is True
    assert shown["consent"]["source"] == "checkout, box 2"
    assert (shown["tags"], shown["locale"], shown["time_zone"]) == ({"plan": "gold"}, "de", "Europe/Vienna")
    (device,) = shown["devices"]
    assert (device["registration"], device["notifications_enabled"]) == (TOKEN, False)
    assert described.client(Scope.READ, Scope.AUDIENCE).get(f"{PATH}/devices").json() == {"devices": [device]}


def test_a_key_that_may_only_read_sees_no_number_no_token_and_no_source(described: HttpGateway) -> None:
    client = described.client(Scope.READ)
    told = client.get(PATH).text + client.get(f"{PATH}/devices").text
    for secret in ("+16505550100", TOKEN, "checkout"):
        assert secret not in told
    assert client.get(PATH).json()["devices"][0]["registration"] == "…ending"
    assert client.post("/v1/users/find", json={"phone": "+16505550100"}).status_code == 403
    assert client.delete(PATH).status_code == 403
    assert described.client(Scope.AUDIENCE).get(PATH).status_code == 403


def test_a_person_is_found_by_any_spelling_of_the_number(described: HttpGateway) -> None:
    client = described.client(Scope.AUDIENCE)
    assert client.post("/v1/users/find", json={"phone": "+1 (650) 555-0100"}).json() == {"users": [USER]}
    assert client.post("/v1/users/find", json={"phone": "+14155552671"}).json() == {"users": []}
    assert client.post("/v1/users/find", json={"phone": "0650"}).json()["field"] == "phone"


def test_nobody_is_404(gateway: HttpGateway) -> None:
    client = gateway.client()
    assert client.get("/v1/users/nobody").status_code == client.get("/v1/users/nobody/devices").status_code == 404


def test_logging_out_everywhere_and_erasing_are_messages_for_the_workers(
    described: HttpGateway, valkey: redis.Redis
) -> None:
    client = described.client(Scope.AUDIENCE)
    assert client.delete(f"{PATH}/devices").status_code == client.delete(PATH).status_code == 202
    changes = [change for raw in valkey.hvals(INBOX_MESSAGES) for change in parse_audience(json.loads(raw)["message"])]
    assert sorted(type(change).__name__ for change in changes) == ["LoggedOutEverywhere", "UserErased"]
    assert USER in repr(changes[0])
    assert USER in repr(changes[1])
    with described.services.engine.begin() as conn:
        people.apply(conn, [c for c in changes if type(c).__name__ == "LoggedOutEverywhere"])
    assert described.client().get(f"{PATH}/devices").json() == {"devices": []}
