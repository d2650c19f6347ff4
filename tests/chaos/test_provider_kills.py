"""A sender killed between two SMS providers: nobody gets an SMS from both."""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice import Recipient, Sms
from support.killable_worker import BETWEEN
from support.sms_provider import TOKEN, SmsProvider

if TYPE_CHECKING:
    from pathlib import Path

    from support.system import System

NUMBERS = [f"+1650555{n:04}" for n in range(300, 305)]


def _kill_at(system: System, acme: SmsProvider, folder: Path, point: str, **entry: object) -> list[str]:
    """Have acme asked first, kill the sender at this point, start another, and return how the notifications ended."""
    path = acme.file(folder, twilio=0, **entry)
    system.settings |= {"KNOCKTWICE_SMS_PROVIDERS_FILE": str(path), "ACME_TOKEN": TOKEN}
    doomed = system.start_worker("support.killable_worker", KILL_AT=point)
    people = [Recipient(phone=number) for number in NUMBERS]
    ids = system.client.notify_many(people, sms=Sms("Your table is ready."))
    assert doomed.wait(timedelta(seconds=60)) == -signal.SIGKILL, system.logs()
    acme.says = "ok"
    system.start_worker()
    return [system.ended(id_).state for id_ in ids]


def _texts(system: System, acme: SmsProvider, number: str) -> int:
    return len(system.sandbox.texts(number)) + len([text for text in acme.texts if text["to"] == number])


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("point", list(BETWEEN))
def test_a_sender_killed_between_two_providers_sends_no_second_sms(
    system: System, acme: SmsProvider, tmp_path: Path, point: str, listed: bool
) -> None:
    acme.says = "busy"
    states = _kill_at(system, acme, tmp_path, point, list=acme.listing() if listed else None)
    for state, number in zip(states, NUMBERS, strict=True):
        texts = _texts(system, acme, number)
        assert texts == (1 if state == "texted" else 0), system.logs()
    if listed:
        assert set(states) == {"texted"}


@pytest.mark.parametrize(
    ("entry", "state"), [({}, "unknown"), ({"idempotency": {"header": "Idempotency-Key"}}, "texted")]
)
def test_a_sender_killed_after_a_provider_without_a_list_took_it(
    system: System, acme: SmsProvider, tmp_path: Path, entry: dict[str, object], state: str
) -> None:
    point = "send_sms before the SMS's record is committed"
    assert set(_kill_at(system, acme, tmp_path, point, **entry)) == {state}
    assert [_texts(system, acme, number) for number in NUMBERS] == [1] * len(NUMBERS)
