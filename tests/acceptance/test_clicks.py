"""A click on the short link in a message is an answer: worker and gateway as processes, and the phone of somebody."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import pytest

from knocktwice import Recipient, Sms, WhatsApp
from support.system import PUSH, System, eventually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from knocktwice_worker.reporting.story import Story
    from support.clock import Clock

MINUTES, HOURS = timedelta(minutes=5), timedelta(hours=2)
TEMPLATE = "HX" + "1" * 32
TARGET = "https://shop.example/orders/4711?from=sms"
PHONE = {"User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1"}
IMESSAGE = {"User-Agent": "Mozilla/5.0 (Macintosh) AppleWebKit/601.2.4 facebookexternalhit/1.1 Facebot Twitterbot/1.0"}

_numbers = (f"+1650555{n:04}" for n in itertools.count(800))


@pytest.fixture
def number() -> str:
    return next(_numbers)


def _notify(system: System, number: str, steps: Sequence[Sms | WhatsApp]) -> UUID:
    person = Recipient(registrations=(f"silent-{number}",), phone=number, params={"url": TARGET})
    (id_,) = system.client.notify_many([person], push=PUSH, steps=steps)
    system.waiting(id_)
    return id_


def _link(system: System, gateway: str, address: str) -> str:
    """Return the link in the one message that an address has got."""
    (text,) = eventually(lambda: system.sandbox.texts(address), why=system.logs)
    found = re.search(rf"{gateway}/l/[0-9A-Za-z]{{12}}", text.body)
    assert found, text.body
    return found[0]


def _waits_for(system: System, id_: UUID, step: int) -> Story:
    def look() -> Story | None:
        told = system.story(id_)
        there = told and told.steps and (told.steps[-1].step, told.steps[-1].state) == (step, "scheduled")
        return told if there else None

    return eventually(look, why=system.logs)


_FIRST: dict[str, Sms | WhatsApp] = {
    "sms": Sms("Pay: {{ url | track }}", when="not_clicked", after=MINUTES),
    "whatsapp": WhatsApp(TEMPLATE, {"1": "{{ url | track }}"}, when="not_clicked", after=MINUTES),
}


@pytest.mark.parametrize("channel", ["sms", "whatsapp"])
def test_a_click_on_the_link_in_step_two_stops_step_three(
    installation: System, gateway: str, clock: Clock, number: str, channel: str
) -> None:
    last = Sms(f"Still open, {number}.", when="not_clicked", after=HOURS)
    id_ = _notify(installation, number, [_FIRST[channel], last])
    clock.advance(MINUTES)
    _waits_for(installation, id_, 2)
    address = number if channel == "sms" else f"whatsapp:{number}"
    link = _link(installation, gateway, address)
    # What only looks at it changes nothing.
    assert httpx.get(link, headers=IMESSAGE).status_code == httpx.head(link, headers=PHONE).status_code == 302
    for _ in range(2):
        answer = httpx.get(link, headers=PHONE)
        assert (answer.status_code, answer.headers["location"]) == (302, TARGET)
    told = installation.ended(id_)
    assert (told.state, told.steps[2].state, told.steps[2].reason) == ("reached", "skipped", "reached_in_time")
    clock.advance(HOURS)
    assert installation.ended(id_).state == "reached"
    texts = [text.body for text in installation.sandbox.texts(number)]
    assert [body for body in texts if "Still open" in body] == []
    name = "SMS" if channel == "sms" else "WhatsApp message"
    assert f"The link in the {name} was opened." in [moment.sentence for moment in told.moments]
    clicked = "SELECT count(*) FROM events WHERE notification_id = :id AND kind = 'clicked' AND step = 1"
    assert installation.count(clicked, id=str(id_)) == 1


def test_a_link_that_is_only_previewed_stops_nothing(
    installation: System, gateway: str, clock: Clock, number: str
) -> None:
    last = Sms(f"Still open, {number}.", when="not_clicked", after=HOURS)
    id_ = _notify(installation, number, [_FIRST["sms"], last])
    clock.advance(MINUTES)
    _waits_for(installation, id_, 2)
    link = _link(installation, gateway, number)
    assert httpx.get(link, headers=IMESSAGE).headers["location"] == TARGET
    clock.advance(HOURS)
    assert installation.ended(id_).state == "texted"
    assert len(installation.sandbox.texts(number)) == 2
