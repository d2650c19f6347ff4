"""An SMS that waits its turn is still only planned: a click ends it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice import Push, Recipient, Sms
from support.system import eventually

if TYPE_CHECKING:
    from support.system import System

NUMBERS = [f"+1650555{n:04}" for n in range(700, 705)]


def test_a_click_ends_an_sms_that_waits_its_turn(installation: System) -> None:
    # One now, and the next in three hours.
    installation.settings["KNOCKTWICE_SMS_PARTS_PER_S"] = "0.0001"
    installation.start_worker()
    ids = installation.client.notify_many(
        [Recipient(registrations=(f"silent-{n}",), phone=n) for n in NUMBERS],
        push=Push("Your table is ready", "We keep it until 19:45."),
        sms=Sms(when="not_clicked", after=timedelta()),
    )
    waiting = "SELECT count(*) FROM deliveries WHERE state = 'reserved' AND wake_at > now() + interval '1 hour'"
    eventually(lambda: installation.count(waiting) == len(ids) - 1, why=installation.logs)
    (first,) = eventually(lambda: [n for n in NUMBERS if installation.sandbox.texts(n)], why=installation.logs)
    for id_, number in zip(ids, NUMBERS, strict=True):
        if number != first:
            installation.client.record_clicked(id_)
            assert installation.ended(id_).state == "reached"
    assert installation.sandbox.requests("sms") == 1
