"""Senders as providers take them."""

from __future__ import annotations

import pytest

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import parse_batch, senders

SERVICE = "MG" + "0a" * 16


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("+15005550006", "+15005550006"),
        ("+1 (500) 555-0006", "+15005550006"),
        ("0049 151 23456789", "+4915123456789"),
        ("12345", "12345"),
        ("Shop", "Shop"),
        ("MGM Grand", "MGM Grand"),
        ("A-1 & co_", "A-1 & co_"),
        ("ElevenChars", "ElevenChars"),
        (SERVICE, SERVICE),
    ],
)
def test_a_number_a_short_code_a_name_or_a_service_sends(written: str, taken: str) -> None:
    assert senders.sender(written) == taken
    assert senders.sender(taken) == taken


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("MyVeryLongCompanyName", "is a name of 21 characters, and networks take 11"),
        ("15005550006", "is a number without its country code: write +"),
        ("(500) 555-0006", "is a number without its country code: write +"),
        ("+123456789012345678", "is too long: 18 digits"),
        ("12", "is too short"),
        ("Café", "is a name with the character 'é'"),
        ("Shop!", "is a name with the character '!'"),
        ("&_", "is no sender: write a number in E.164"),
        ("", "is no sender"),
    ],
)
def test_a_sender_that_no_network_carries_is_refused_with_the_remedy(written: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        senders.sender(written)
    assert str(caught.value).startswith(problem)


def test_a_providers_own_id_is_taken_only_where_a_provider_may_have_one() -> None:
    id_ = "0b27e4c2-8f60-4d3a-9f0e-1c6f7a1d5e11"
    assert senders.sender(id_, ids=True) == id_
    for name in (id_, "MyVeryLongCompanyName"):
        with pytest.raises(ValueError, match="networks take"):
            senders.sender(name, ids=name != id_)


@pytest.mark.parametrize("sender", ["MyVeryLongCompanyName", "15005550006"])
def test_a_message_names_the_field_of_its_sender(sender: str) -> None:
    plan = [{"channel": "sms", "when": "not_clicked", "after_s": 0, "sender": sender}]
    person = {"id": "01900000-0000-7000-8000-000000000000", "phone": "+16505550100"}
    wire = {"v": 1, "id": person["id"], "content": {"push": {"title": "t", "body": "b"}}, "recipients": [person]}
    with pytest.raises(InvalidMessage) as caught:
        parse_batch({**wire, "plan": plan})
    assert caught.value.field == "plan[0].sender"


def test_a_number_that_sends_comes_out_in_e164() -> None:
    plan = [{"channel": "sms", "when": "not_clicked", "after_s": 0, "sender": "+1 (500) 555-0006"}]
    person = {"id": "01900000-0000-7000-8000-000000000000", "phone": "+16505550100"}
    wire = {"v": 1, "id": person["id"], "content": {"push": {"title": "t", "body": "b"}}, "recipients": [person]}
    parsed = parse_batch({**wire, "plan": plan})
    assert parsed.plan is not None
    assert parsed.plan[0].sender == "+15005550006"
