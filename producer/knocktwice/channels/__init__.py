"""The steps of channels that have a class of their own: one module and one line here for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice.channels.whatsapp import WhatsApp
from knocktwice.content import Sms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice.content import LaterStep

__all__ = ["STEPS", "WhatsApp"]

#: Channel → the class of its steps; any other channel's is :class:`~knocktwice.content.ChannelStep`.
STEPS: Mapping[str, type[LaterStep]] = {"sms": Sms, "whatsapp": WhatsApp}
