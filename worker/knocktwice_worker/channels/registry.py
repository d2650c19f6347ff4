"""The channels of later steps: one entry for each. No other module outside their folders names a channel or a provider.

A channel that this package does not have is added with :func:`register`, by a module that every process loads before it
starts its work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.channels import CONTENTS
from knocktwice_worker.channels import sms, twilio
from knocktwice_worker.channels.twilio.sms import TwilioSmsChannel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.channels.channel import CallbackRoute, StepChannel
    from knocktwice_worker.content.wording import Wording

#: Name → entry.
CHANNELS: dict[str, StepChannel] = {
    entry.name: entry
    for entry in (
        sms.channel(twilio.open_sms, sender_setting=TwilioSmsChannel.sender_setting, routes=twilio.ROUTES),
        twilio.WHATSAPP,
    )
}


def register(entry: StepChannel) -> None:
    """Add a channel, and add the description of its steps to the contract.

    Raises:
        ValueError: there is a channel of that name.
    """
    if entry.name in CHANNELS:
        raise ValueError(f"there is a channel called {entry.name}")
    CONTENTS.setdefault(entry.name, entry.content)
    CHANNELS[entry.name] = entry


def routes() -> Iterator[CallbackRoute]:
    """Yield the addresses that providers call back."""
    for entry in CHANNELS.values():
        yield from entry.routes


def wording_of(channel: str) -> Wording:
    """Return the wording of a channel."""
    return CHANNELS[channel].wording
