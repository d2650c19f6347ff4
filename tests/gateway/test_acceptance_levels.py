"""An answer of 202 names how safely the request is kept; what is not kept so, or has no room,
is a 503 with the remedy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from knocktwice_shared.durability import Durability
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway
from support.own_valkey import OwnValkey

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import httpx
    import redis

    from knocktwice_worker.config import Settings

HELLO = {"user": "u-17", "push": {"title": "Hello", "body": "Is anybody there?"}}


def gateway_with(settings: Settings, **changed: object) -> AbstractContextManager[HttpGateway]:
    return HttpGateway(Services(settings.model_copy(update=changed)))


@pytest.mark.parametrize("level", list(Durability)[:2])
def test_an_answer_of_202_names_the_level(settings: Settings, level: Durability) -> None:
    with gateway_with(settings, durability=level) as gateway:
        http = gateway.client()
        answers = [
            http.post("/v1/notifications", json=HELLO),
            http.put("/v1/users/u-17/phone", json={"phone": "+16505550100"}),
            http.post("/v1/cancellations", json={"keys": ["order-4711"]}),
        ]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert [answer.headers["Knocktwice-Durability"] for answer in answers] == [str(level)] * 3


def test_a_blast_is_committed_in_the_database_when_it_is_accepted(gateway: HttpGateway) -> None:
    blast = {"filter": {"everyone": True}, "key": "sale", "push": HELLO["push"]}
    answer = gateway.client().post("/v1/blasts", json=blast)
    assert (answer.status_code, answer.headers["Knocktwice-Durability"]) == (202, "database")


def test_every_operation_that_answers_202_documents_the_levels(gateway: HttpGateway) -> None:
    document = gateway.client().get("/openapi.json").json()
    accepting = [
        operation["responses"]
        for operations in document["paths"].values()
        for operation in operations.values()
        if "202" in operation["responses"]
    ]
    assert len(accepting) > 10
    for responses in accepting:
        header = responses["202"]["headers"]["Knocktwice-Durability"]
        assert header["schema"]["enum"] == ["memory", "disk", "replica", "database"]


def test_what_the_broker_does_not_confirm_is_503_with_the_remedy(settings: Settings, tmp_path: Path) -> None:
    with (
        OwnValkey(tmp_path / "valkey", {"appendonly": "no"}) as server,
        gateway_with(settings, durability=Durability.DISK, broker_url=server.url) as gateway,
    ):
        answer = gateway.client().post("/v1/notifications", json=HELLO)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["type"] == "urn:knocktwice:problem:not-confirmed"
    assert "the outcome is unknown, and it is safe" in answer.json()["detail"]
    assert "the same Idempotency-Key" in answer.json()["detail"]


def assert_full(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["type"] == "urn:knocktwice:problem:backlog-full"
    assert "KNOCKTWICE_BACKLOG_MESSAGES" in answer.json()["detail"]


def test_a_full_backlog_refuses_notifications_and_still_takes_cancellations(
    gateway: HttpGateway, valkey: redis.Redis, settings: Settings
) -> None:
    with gateway_with(settings, backlog_messages=4) as bounded:
        bounded.services.inbox.sweep(lambda *_: None)
    http = gateway.client()
    for _ in range(4):
        assert http.post("/v1/notifications", json=HELLO).status_code == 202
    repeat = {"Idempotency-Key": "order-4711"}
    assert_full(http.post("/v1/notifications", json=HELLO, headers=repeat))
    assert http.post("/v1/cancellations", json={"keys": ["order-4711"]}).status_code == 202
    assert http.put("/v1/users/u-17/consent", json={"granted": False, "source": "x"}).status_code == 202
    assert_full(http.post("/v1/cancellations", json={"keys": ["order-4712"]}))
    waiting = [bytes(id_).decode() for id_ in valkey.hkeys(INBOX_MESSAGES)]  # type: ignore[arg-type]
    assert len(waiting) == 6
    gateway.services.inbox.done("", [(id_, {}) for id_ in waiting])  # type: ignore[arg-type]
    answer = http.post("/v1/notifications", json=HELLO, headers=repeat)
    assert answer.status_code == 202
    assert http.post("/v1/notifications", json=HELLO, headers=repeat).json() == answer.json()


def test_a_broker_whose_memory_is_full_is_the_same_answer(settings: Settings, tmp_path: Path) -> None:
    with (
        OwnValkey(tmp_path / "valkey") as server,
        gateway_with(settings, broker_url=server.url) as gateway,
    ):
        http = gateway.client()
        assert http.post("/v1/notifications", json=HELLO).status_code == 202
        server.client.config_set("maxmemory", 1)
        assert_full(http.post("/v1/notifications", json=HELLO))
        server.client.config_set("maxmemory", 0)
        assert http.post("/v1/notifications", json=HELLO).status_code == 202
