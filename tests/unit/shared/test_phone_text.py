"""Phone numbers as people, phones and spreadsheets write them."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import normalise_phone, phone_text


@pytest.mark.parametrize(
    "written",
    [
        "+447400123456",
        "+44 7400 123456",
        "+44 (0) 7400 123456",
        "+44(0)7400-123456",
        "+44 [0] 7400 123456",
        "(+44) 7400 123456",
        "0044 7400 123456",
        "0044 (0)7400 123456",
        "tel:+44-7400-123456",
        "TEL:+447400123456;isub=1",
        "tel:7400123456;phone-context=+44",
        "tel:%2B44%207400%20123456",
        "sms:+447400123456?body=hello",
        "whatsapp:+447400123456",
        "Mobile: +44 7400 123456",
        "'+447400123456",
        "\N{RIGHT SINGLE QUOTATION MARK}+447400123456",
        '"+447400123456"',
        "\ufeff+447400123456",
        "\u200e+44\u00a07400\u2011123\u2013456\u200b",
        "\uff0b\uff14\uff14\uff17\uff14\uff10\uff10\uff11\uff12\uff13\uff14\uff15\uff16",
        "+\u0664\u0664\u0667\u0664\u0660\u0660\u0661\u0662\u0663\u0664\u0665\u0666",
        " +44.7400.123.456\n",
        "+44/7400/123456",
    ],
)
def test_usual_ways_of_writing_a_number_are_taken(written: str) -> None:
    assert normalise_phone(written) == "+447400123456"


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (447400123456, "is a number without quotes"),
        (4.474e11, "is a number with a point"),
        (None, "is missing"),
        (True, "must be a phone number as text"),
        (["+447400123456"], "must be a phone number as text"),
        ("", "is empty"),
        (" \u200b ", "is empty"),
        ("n/a", "is a placeholder"),
        ("NULL", "is a placeholder"),
        ("-", "is a placeholder"),
        ("4.47700900123E+11", "is how a spreadsheet shows a long number"),
        ("4,477E+11", "is how a spreadsheet shows a long number"),
        ("447400123456.0", "ends in .0, as a spreadsheet writes numbers"),
        ("+447400123456.0", "ends in .0, as a spreadsheet writes numbers"),
        ("########", "is what a spreadsheet shows in place of a value"),
        ("#REF!", "is what a spreadsheet shows in place of a value"),
        ("=+447400123456", "begins with =, as a spreadsheet's formula"),
        ("+447400123456, +447400123457", "holds more than one number"),
        ("+447400123456/+447400123457", "holds more than one number"),
        ("+447400123456\n+447400123457", "holds more than one number"),
        ("+447400123456 +447400123457", "holds more than one number"),
        ("07400 123456 or 07400 123457", "holds more than one number"),
        ("07400 123456 oder 07400 123457", "holds more than one number"),
        ("+49 30 1234567 / 68", "holds more than one number"),
        ("+447400123456 ext. 4", "has an extension"),
        ("+447400123456x4", "has an extension"),
        ("+447400123456 #4", "has an extension"),
        ("+447400123456,,4", "has an extension"),
        ("tel:+447400123456;ext=4", "has an extension"),
        ("+1 800 FLOWERS", "holds letters"),
        ("Fax: +447400123456", "holds letters"),
        ("+447400123456 (mobile)", "holds letters"),
        ("+44 7400 12345O", "holds letters"),
        ("+44 7400 ***456", "has hidden digits"),
        ("+44 7400 \N{BULLET}\N{BULLET}\N{BULLET}456", "has hidden digits"),
        ("++447400123456", "has a plus in the wrong place"),
        ("447400123456+", "has a plus in the wrong place"),
        ("+0044 7400 123456", "begins with +00"),
        ("+07400 123456", "has a 0 after the plus"),
        ("+44 74", "is too short: 4 digits"),
        ("+4474001234567890", "is too long: 16 digits"),
        ("+44 7400 123456?", "holds a character that no number has: '?'"),
        ("447400123456", "has no country code"),
        ("07400 123456", "has no country code"),
    ],
)
def test_each_slip_has_its_own_sentence(written: object, problem: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        normalise_phone(written, "recipients[2].phone")
    assert caught.value.field == "recipients[2].phone"
    assert caught.value.problem.startswith(problem)
    # The number itself stays out of logs.
    assert not re.search(r"\d{5}", caught.value.problem.replace(phone_text.EXAMPLE, ""))


@given(st.text(max_size=40))
def test_any_text_is_a_number_in_e164_or_refused(written: str) -> None:
    with contextlib.suppress(InvalidMessage):
        number = normalise_phone(written)
        assert phone_text.E164.fullmatch(number)
        assert normalise_phone(number) == number
