"""Troubles that keep messages from people: numbers that they do not reach, and what makes a brake hold many of them."""

from __future__ import annotations

from enum import StrEnum


class Untextable(StrEnum):
    """The reason why messages do not reach a number, as a provider tells it."""

    #: The number is a landline, or its operator takes no messages.
    LANDLINE = "landline"
    #: The number is out of service.
    UNKNOWN_NUMBER = "unknown_number"
    #: The provider takes it for no number at all, or for none that can be texted.
    INVALID_NUMBER = "invalid_number"
    #: Its owner or operator blocks our messages.
    BLOCKED = "blocked"
    #: The phone is switched off or out of reach. It counts only after some failures over some days.
    UNREACHABLE = "unreachable"


class PushTrouble(StrEnum):
    """A trouble with the pushes of many people at once, so that a brake holds the messages that would follow."""

    #: The provider refuses them for a reason that is not the device's, such as a lapsed APNs key.
    REFUSED = "refused"
    #: Hardly any is reported as delivered, although such apps usually report it.
    UNDELIVERED = "undelivered"
    #: Not one is clicked, although the template's usually are.
    UNCLICKED = "unclicked"


class TextTrouble(StrEnum):
    """A trouble with many single messages at once, so that a brake holds or slows what would follow."""

    #: Somebody asks for messages to numbers whose operator pays them for the traffic. Nobody reads those messages.
    PUMPING = "pumping"


class BrakeState(StrEnum):
    """The state of a brake."""

    #: It holds messages.
    ON = "on"
    #: The share is usual again; it holds nothing new.
    OVER = "over"
    #: An operator released it; it holds nothing any more.
    RELEASED = "released"
