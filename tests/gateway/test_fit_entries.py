"""Requests with many entries keep the fit ones and name the others, and keys tell whether they were used before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.names import INBOX_MESSAGES

if TYPE_CHECKING:
    import httpx
    import redis

    from support.http_gateway import HttpGateway

PUSH = {"title": "Hello", "body": "World"}
PHONE = "+14155552671"
GREETING = {"default_locale": "en", "contents": {"en": {"push": {"title": "Hello {{ name }}", "body": "b"}}}}


@pytest.fixture
def client(gateway: HttpGateway) -> httpx.Client:
    """A client whose key has every scope."""
    return gateway.client()


def _accepted(valkey: redis.Redis) -> list[dict[str, Any]]:
    found = [json.loads(entry)["message"] for entry in valkey.hvals(INBOX_MESSAGES)]
    valkey.flushdb()
    return found


def _notified(valkey: redis.Redis) -> list[str]:
    batches = [message for message in _accepted(valkey) if "recipients" in message]
    return [person.get("user") or person["phone"] for batch in batches for person in batch["recipients"]]


def test_fit_recipients_are_notified_and_the_others_named_with_all_their_problems(
    client: httpx.Client, valkey: redis.Redis
) -> None:
    people = [
        "a",
        {"phone": "0650"},
        {"user": "b", "params": {"x": 1}},
        7,
        {"user": "", "registrations": ["undefined"], "locale": "?"},
        {"phone": PHONE},
    ]
    answer = client.post("/v1/notifications", json={"recipients": people, "push": PUSH})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert [id_ is not None for id_ in told["ids"]] == [True, False, True, False, False, True]
    assert [(one["index"], one["field"]) for one in told["refused"]][:2] == [
        (1, "recipients[1].phone"),
        (3, "recipients[3]"),
    ]
    last = [one["field"] for one in told["refused"] if one["index"] == 4]
    assert {"recipients[4].user", "recipients[4].locale"} <= set(last)
    assert all(one["detail"] for one in told["refused"])
    assert _notified(valkey) == ["a", "b", PHONE]


def test_what_is_found_later_names_the_place_in_the_request(client: httpx.Client, valkey: redis.Redis) -> None:
    client.put("/v1/templates/greeting", json=GREETING)
    people = [{"phone": "0650"}, {"user": "a"}, {"user": "b", "params": {"name": "Ada"}}, {"user": "c"}]
    told = client.post("/v1/notifications", json={"recipients": people, "template": "greeting"}).json()
    assert [(one["index"], one["field"]) for one in told["refused"]] == [
        (0, "recipients[0].phone"),
        (1, "recipients[1].params"),
        (3, "recipients[3].params"),
    ]
    assert [id_ is not None for id_ in told["ids"]] == [False, False, True, False]
    assert _notified(valkey) == ["b"]
    text = {"title": "Hello", "body": "{% if a %}{{ b }}{% endif %}!"}
    people = [{"user": "a", "params": {"a": 1}}, {"user": "b", "params": {"a": False}}]
    told = client.post("/v1/notifications", json={"recipients": people, "push": text}).json()
    assert [(one["index"], one["field"]) for one in told["refused"]] == [(0, "recipients[0].params")]
    assert _notified(valkey) == ["b"]


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ({"strict": True}, ["recipients[1].phone"]),
        ({"strict": "yes"}, ["strict"]),
        ({"category": "spam"}, ["category", "recipients[1].phone"]),
        ({"recipients": [{"phone": "0650"}, {"phone": "1"}]}, ["recipients[0].phone", "recipients[1].phone"]),
        ({"recipients": []}, ["recipients"]),
        ({"recipients": {"user": "a"}}, ["recipients"]),
        ({"recipients": [{"user": "a", "key": "k"}, {"user": "b", "key": "k"}]}, ["recipients[1].key"]),
        (
            {"recipients": [{"user": "a", "key": "k"}, {"phone": "0", "key": "k"}, "b"]},
            ["recipients[1].key", "recipients[1].phone"],
        ),
    ],
)
def test_a_request_is_refused_as_a_whole_if_it_is_strict_or_nothing_or_ambiguous(
    client: httpx.Client, valkey: redis.Redis, more: dict[str, Any], fields: list[str]
) -> None:
    body = {"recipients": ["a", {"phone": "0650"}], "push": PUSH, **more}
    answer = client.post("/v1/notifications", json=body)
    assert answer.status_code == 422, answer.text
    assert sorted(error["field"] for error in answer.json()["errors"]) == fields
    assert _accepted(valkey) == []


def test_a_repeat_of_a_request_with_unfit_recipients_gets_the_same_answer(
    client: httpx.Client, valkey: redis.Redis
) -> None:
    body = {"recipients": [{"phone": "0650"}, "a", {"user": "b", "key": "k"}], "push": PUSH}
    first, again = (client.post("/v1/notifications", json=body, headers={"Idempotency-Key": "r"}) for _ in range(2))
    assert first.json() == again.json()
    # The ids follow from the places in the request, so they stay if the first one is mended.
    batch = next(message for message in _accepted(valkey) if "recipients" in message)
    assert [person["id"] for person in batch["recipients"]] == first.json()["ids"][1:]


def test_fit_changes_of_people_are_made_and_the_others_named(client: httpx.Client, valkey: redis.Redis) -> None:
    changes = [
        {"change": "bind_phone", "user": "a", "phone": "0650"},
        {"change": "register_device", "user": "a", "registration": "token:1"},
        {"change": "fly", "user": "a"},
        {"change": "register_device", "user": "b", "registration": "token:2", "time_zone": "Mars/Olympus"},
        {"change": "bind_phone", "user": "c", "phone": PHONE},
    ]
    answer = client.post("/v1/audience", json={"changes": changes})
    assert answer.status_code == 202, answer.text
    told = answer.json()
    assert (told["status"], told["accepted"]) == ("accepted", 2)
    assert [(one["index"], one["field"]) for one in told["refused"]] == [
        (0, "changes[0].phone"),
        (2, "changes[2].change"),
        (3, "changes[3].time_zone"),
    ]
    (message,) = _accepted(valkey)
    assert [change["user"] for change in message["changes"]] == ["a", "c"]
    assert message["changes"][0]["at"] < message["changes"][1]["at"]
    refused = client.post("/v1/audience", json={"changes": changes, "strict": True})
    assert (refused.status_code, len(refused.json()["errors"])) == (422, 3)
    assert _accepted(valkey) == []


@pytest.mark.parametrize(
    ("second", "differs"),
    [
        ({}, False),
        ({"reference": {"try": 2}}, False),
        ({"push": {"title": "Hello", "body": "Mars"}}, True),
        ({"sms": {"text": "Hello"}}, True),
        ({"user": "v"}, True),
        ({"params": {"a": 1}}, True),
        ({"category": "critical"}, True),
    ],
)
def test_a_used_key_says_whether_it_was_used_for_something_else(
    client: httpx.Client, second: dict[str, Any], differs: bool
) -> None:
    body = {"user": "u", "push": PUSH, "key": "order-1"}
    first = client.post("/v1/notifications", json=body).json()
    again = client.post("/v1/notifications", json={**body, **second}).json()
    assert (first["duplicate"], first["differs"]) == (False, False)
    assert (again["ids"], again["duplicate"], again["differs"]) == (first["ids"], True, differs)
    assert again["duplicates"] == [{"index": 0, "id": first["ids"][0], "differs": differs}]
