"""Phone numbers over HTTP: taken in their one spelling, or refused with the reason."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

SMS = {"only": "sms", "sms": {"text": "Hello"}}


def _accepted(here: Services) -> list[dict[str, Any]]:
    return [json.loads(raw)["message"] for raw in here.redis.hvals(INBOX_MESSAGES)]


@pytest.fixture
def german(here: Services) -> Iterator[HttpGateway]:
    """A gateway whose national numbers are German."""
    built = Services(here.settings.model_copy(update={"default_region": "DE"}))
    with HttpGateway(built) as running:
        yield running
    built.close()


def test_every_door_takes_a_number_in_its_one_spelling(gateway: HttpGateway, here: Services) -> None:
    client = gateway.client()
    answers = [
        client.put("/v1/users/a/phone", json={"phone": "+44 (0) 7400 123456"}),
        client.post(
            "/v1/audience", json={"changes": [{"change": "bind_phone", "user": "a", "phone": "tel:+447400123456"}]}
        ),
        client.post("/v1/notifications", json={"phone": "0044 (0)7400 123456", **SMS}),
        client.post("/v1/notifications", json={"recipients": [{"phone": "+4407400123456"}], **SMS}),
        client.post("/v1/notifications", json={"user": "a", "phone": "\ufeff+44 7400\u00a0123456", **SMS}),
    ]
    assert [answer.status_code for answer in answers] == [202] * 5
    told = [change["phone"] for m in _accepted(here) for change in m.get("changes", ()) if "phone" in change]
    told += [r["phone"] for m in _accepted(here) for r in m.get("recipients", ()) if "phone" in r]
    assert told == ["+447400123456"] * 5


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("+10000000000", "is not assigned in the number plan of +1"),
        ("+9991234567", "begins with a country code that no country has"),
        ("+1650555", "is too short for a number of +1"),
        ("+43900123456", "is a premium-rate number"),
        ("+870773111632", "is a number of a satellite"),
        ("07400 123456", "or set KNOCKTWICE_DEFAULT_REGION"),
        ("4.474E+11", "is how a spreadsheet shows a long number"),
        ("+447400123456;+447400123457", "holds more than one number"),
        (447400123456, "is a number without quotes"),
    ],
)
def test_a_number_that_nobody_can_be_texted_at_is_refused_by_every_door(
    gateway: HttpGateway, here: Services, number: object, problem: str
) -> None:
    client = gateway.client()
    change = {"change": "bind_phone", "user": "a", "phone": number}
    answers = {
        "phone": [
            client.put("/v1/users/a/phone", json={"phone": number}),
            client.post("/v1/notifications", json={"phone": number, **SMS}),
        ],
        "changes[0].phone": [client.post("/v1/audience", json={"changes": [change]})],
        "recipients[0].phone": [client.post("/v1/notifications", json={"recipients": [{"phone": number}], **SMS})],
    }
    for field, refused in answers.items():
        for answer in refused:
            assert answer.status_code == 422
            assert answer.json()["field"] == field
            assert problem in answer.json()["detail"]
    assert _accepted(here) == []


def test_a_national_number_is_taken_where_a_default_country_is_set(german: HttpGateway, here: Services) -> None:
    client = german.client()
    assert client.put("/v1/users/a/phone", json={"phone": "0151/23456789"}).status_code == 202
    assert client.post("/v1/notifications", json={"phone": "0151 23456789", **SMS}).status_code == 202
    told = [change["phone"] for m in _accepted(here) for change in m.get("changes", ())]
    told += [r["phone"] for m in _accepted(here) for r in m.get("recipients", ())]
    assert told == ["+4915123456789"] * 2
    assert (
        "is a premium-rate number" in client.put("/v1/users/a/phone", json={"phone": "0900 1234567"}).json()["detail"]
    )
