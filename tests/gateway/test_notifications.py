"""Notifications over HTTP: accepted means durable, a repeat is the same request, and errors name the field."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import INBOX_MESSAGES, Queue, Task
from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    import httpx
    import redis

    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway

ONE = {
    "user": "u-17",
    "push": {"title": "Hello", "body": "{{ name }}, are you there?"},
    "sms": {"when": "not_clicked", "after_s": 600},
    "params": {"name": "Ada"},
}


def _accepted(valkey: redis.Redis) -> list[dict[str, Any]]:
    return [json.loads(entry)["message"] for entry in valkey.hvals(INBOX_MESSAGES)]


def _post(client: httpx.Client, body: object, key: str | None = None) -> httpx.Response:
    return client.post("/v1/notifications", json=body, headers={"Idempotency-Key": key} if key else {})


def test_one_person_is_notified_as_by_the_producer_library(gateway: HttpGateway, valkey: redis.Redis) -> None:
    answer = _post(gateway.client(Scope.NOTIFY), ONE)
    assert answer.status_code == 202
    (id_,) = answer.json()["ids"]
    assert answer.headers["Location"] == f"/v1/notifications/{id_}"
    (message,) = _accepted(valkey)
    assert message["recipients"] == [{"id": id_, "user": "u-17", "params": {"name": "Ada"}}]
    assert message["plan"] == [{"channel": "sms", "when": "not_clicked", "after_s": 600}]
    assert valkey.llen(Queue.PUSH) == 1
    assert UUID(id_).version == 7


def test_many_people_are_one_message(gateway: HttpGateway, valkey: redis.Redis) -> None:
    people = [{"user": f"u-{n}", "key": f"k-{n}"} for n in range(500)]
    answer = _post(gateway.client(), {"recipients": people, "push": {"title": "a", "body": "b"}})
    assert answer.status_code == 202
    (message,) = _accepted(valkey)
    assert [person["id"] for person in message["recipients"]] == answer.json()["ids"]
    assert len(set(answer.json()["ids"])) == 500


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"user": "u"}, "push"),
        ({**ONE, "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 60}]}, "sms.when"),
        ({"user": "u", "only": "sms", "sms": {"text": "a", "after_s": 5}}, "sms.after_s"),
        ({"user": "u", "only": "sms"}, "sms"),
        ({**ONE, "sms": None, "plan": [{"channel": "sms", "when": "never", "after_s": 60}]}, "plan[0].when"),
        ({**ONE, "send_at": "2026-11-22T09:00:00"}, "send_at"),
        ({**ONE, "send_at": {"local": "tomorrow"}}, "send_at.local"),
        ({"push": {"title": "a", "body": "b"}}, "body"),
        ({**ONE, "catgeory": "critical"}, "catgeory"),
        ({**ONE, "params": {}}, "params.name"),
        ({**ONE, "sms": {"after_s": -1}}, "sms.after_s"),
        ({**ONE, "sms": {"when": "never"}}, "sms.when"),
        ({**ONE, "sms": {"wenn": "never"}}, "sms.wenn"),
        ({**ONE, "sms": {"channel": "fax"}}, "sms.channel"),
        ({**ONE, "push": {"title": "a"}}, "push.body"),
        ({**ONE, "id": "1"}, "id"),
        ({**ONE, "recipients": [{"user": "u"}]}, "user"),
        ({"recipients": [], "push": ONE["push"]}, "recipients"),
        ({"recipients": "all", "push": ONE["push"]}, "recipients"),
        ({"recipients": [{"user": "u"}] * 501, "template": "t"}, "recipients"),
        ({"recipients": [{"user": "u"}, {"phone": "0650"}], "template": "t", "strict": True}, "recipients[1].phone"),
        ({"recipients": [{"user": "u", "id": "1"}], "template": "t"}, "recipients[0].id"),
    ],
)
def test_an_error_names_the_field_as_the_request_has_it(
    gateway: HttpGateway, valkey: redis.Redis, body: dict[str, Any], field: str
) -> None:
    answer = _post(gateway.client(), body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["field"] == field
    assert problem["detail"].startswith(f"{field}: ")
    assert "content." not in problem["detail"]
    assert "plan[" not in problem["detail"] or "plan" in body
    assert _accepted(valkey) == []


def test_a_repeat_gets_the_same_answer_and_sends_nothing(gateway: HttpGateway, valkey: redis.Redis) -> None:
    client = gateway.client()
    first = _post(client, ONE, "order-1")
    reordered = dict(reversed(ONE.items()))
    assert _post(client, reordered, "order-1").json() == first.json()
    assert len(_accepted(valkey)) == valkey.llen(Queue.PUSH) == 1


def test_a_key_with_another_body_is_refused(gateway: HttpGateway, valkey: redis.Redis) -> None:
    client = gateway.client()
    _post(client, ONE, "order-1")
    answer = _post(client, {**ONE, "user": "u-18"}, "order-1")
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("idempotency-key-reused")
    assert len(_accepted(valkey)) == 1
    assert _post(gateway.client(), {**ONE, "user": "u-18"}, "order-1").status_code == 202


def test_a_repeat_of_a_request_that_was_cut_off_uses_the_ids_claimed_then(
    gateway: HttpGateway, valkey: redis.Redis
) -> None:
    client = gateway.client()
    first = _post(client, ONE, "order-1").json()
    # As after a kill between the claim and the inbox.
    (claim,) = valkey.keys("knocktwice:idempotency:*")
    assert valkey.setrange(claim, valkey.strlen(claim) - 1, "0")
    valkey.delete(INBOX_MESSAGES, Queue.PUSH)
    assert _post(client, ONE, "order-1").json() == first
    (message,) = _accepted(valkey)
    assert [person["id"] for person in message["recipients"]] == first["ids"]


def test_a_persons_key_returns_the_id_of_its_first_use(gateway: HttpGateway) -> None:
    client = gateway.client()
    first = _post(client, {**ONE, "key": "order-1"}).json()
    assert (first["duplicate"], first["differs"], first["duplicates"]) == (False, False, [])
    (id_,) = first["ids"]
    again = _post(client, {**ONE, "key": "order-1"}).json()
    repeated = {"index": 0, "id": id_, "differs": False}
    assert again == {"ids": [id_], "duplicate": True, "differs": False, "duplicates": [repeated], "refused": []}
    people = [{"user": "a", "key": "order-2"}, {"user": "b", "key": "order-1"}]
    several = _post(client, {"recipients": people, "push": {"title": "a", "body": "b"}}).json()
    assert (several["differs"], several["duplicates"]) == (True, [{"index": 1, "id": id_, "differs": True}])
    twice = [{"user": "a", "key": "order-3"}, {"user": "b", "key": "order-3"}]
    refused = _post(client, {"recipients": twice, "push": {"title": "a", "body": "b"}})
    assert (refused.status_code, refused.json()["field"]) == (422, "recipients[1].key")


def test_a_notification_is_shown_with_its_steps_and_listed_in_the_history(
    gateway: HttpGateway, working: Services, valkey: redis.Redis
) -> None:
    client = gateway.client()
    body = {**ONE, "user": None, "registrations": ["silent-1"], "phone": "+1 650 555 0100"}
    (id_,) = _post(client, body).json()["ids"]
    assert client.get(f"/v1/notifications/{id_}").status_code == 404
    (message,) = _accepted(valkey)
    working.pushes.send(parse_batch(message))
    told = client.get(f"/v1/notifications/{id_}").json()
    assert told["state"] == "active"
    assert [(step["channel"], step["state"]) for step in told["steps"]] == [("push", "sent"), ("sms", "scheduled")]
    assert told["moments"][0]["kind"] == "accepted"
    assert "6505550100" not in json.dumps(told)
    (entry,) = client.get("/v1/messages", params={"state": "active"}).json()["messages"]
    assert (entry["id"], entry["steps"][1]["state"]) == (id_, "scheduled")


def test_cancelling_is_a_message_too(gateway: HttpGateway, valkey: redis.Redis) -> None:
    client = gateway.client(Scope.NOTIFY)
    id_ = "01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a11"
    assert client.delete(f"/v1/notifications/{id_}").status_code == 202
    assert client.post("/v1/cancellations", json={"keys": ["order-1"]}).status_code == 202
    assert client.post("/v1/cancellations", json={}).json()["field"] == "ids"
    taken = [json.loads(entry)["task"] for entry in valkey.hvals(INBOX_MESSAGES)]
    assert taken == [Task.CANCEL, Task.CANCEL]


def test_a_plan_a_time_and_an_sms_alone_become_what_the_contract_has(gateway: HttpGateway, valkey: redis.Redis) -> None:
    client = gateway.client()
    steps = [
        {"channel": "whatsapp", "when": 2, "after_s": 600, "content_sid": "HX" + "0" * 32, "variables": {"1": "x"}},
        {"channel": "sms", "when": "not_delivered", "after_s": 60, "text": "Hello", "sender": "SHOP"},
    ]
    planned = {"user": "u", "push": ONE["push"], "params": {"name": "Ada"}, "plan": steps, "sms": {"text": "b"}}
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    at = {"local": soon.replace(tzinfo=None).isoformat()}
    bodies = [{**planned, "send_at": at}, {"user": "u", "only": "sms", "sms": {"text": "Hello"}}]
    bodies.append(
        {"user": "u", "push": ONE["push"], "params": {"name": "Ada"}, "plan": [], "send_at": soon.isoformat()}
    )
    answers = [_post(client, body) for body in bodies]
    assert [answer.status_code for answer in answers] == [202] * 3, [answer.text for answer in answers]
    taken = sorted((message for message in _accepted(valkey)), key=lambda message: str(message["id"]))
    assert (taken[0]["plan"], taken[0]["send_at"], taken[0]["content"]["sms"]) == (steps, at, {"text": "b"})
    assert (taken[1]["only"], taken[1]["content"]) == ("sms", {"sms": {"text": "Hello"}})
    assert (taken[2]["plan"], taken[2]["send_at"]) == ([], soon.isoformat())
    for message in taken:
        parse_batch(message)


def test_a_key_is_remembered_for_a_day_and_then_forgotten(gateway: HttpGateway, valkey: redis.Redis) -> None:
    for _ in range(2):
        # The second time it is known and written anew.
        _post(gateway.client(), ONE, "order-1")
    claims = valkey.keys("knocktwice:idempotency:*")
    assert len(claims) == 2
    assert all(86_000 < valkey.ttl(name) <= 86_400 for name in claims)


@pytest.mark.parametrize(("size", "status"), [(4_096, 202), (4_097, 422)])
def test_a_persons_values_have_4096_bytes(gateway: HttpGateway, size: int, status: int) -> None:
    room = size - len('{"name": "Ada", "note": ""}')
    body = {**ONE, "params": {"name": "Ada", "note": "x" * room}}
    assert _post(gateway.client(), body).status_code == status
