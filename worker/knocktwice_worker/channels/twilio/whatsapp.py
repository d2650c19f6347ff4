"""WhatsApp through Twilio: the Messages API again, with ``whatsapp:`` addresses and content templates.

https://www.twilio.com/docs/whatsapp/tutorial/send-whatsapp-notification-messages-templates — outside the 24 hours after a
person's own message WhatsApp takes nothing but templates it has approved, so a notification is always one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from knocktwice_worker.channels.twilio.sms import TwilioSmsChannel
from knocktwice_worker.content.plans import template_of

if TYPE_CHECKING:
    from knocktwice_worker.channels.messages import ListedMessage, StepMessage
    from knocktwice_worker.config import Settings

#: What Twilio puts before a number on this channel.
PREFIX = "whatsapp:"


class TwilioWhatsappChannel(TwilioSmsChannel):
    """Twilio's WhatsApp Business sender. Arguments as for SMS; the sender is one that WhatsApp has approved."""

    name = "whatsapp"
    sender_setting = "KNOCKTWICE_WHATSAPP_FROM"

    def _says(self, listed: ListedMessage, text: str) -> bool:
        """Whether a message in Twilio's list may be the one that we sent.

        The list shows a template filled in and does not name it, so the variables are what it can be known by.
        """
        _, variables = template_of(text)
        return all(value in listed.body for value in variables.values())

    @classmethod
    def _sender_of(cls, settings: Settings) -> str | None:
        return settings.whatsapp_from

    def _address(self, number: str) -> str:
        return PREFIX + number.removeprefix(PREFIX)

    def _content(self, message: StepMessage) -> dict[str, str]:
        sid, variables = template_of(message.text)
        form = {"ContentSid": sid}
        if variables:
            form["ContentVariables"] = json.dumps(variables, ensure_ascii=False, separators=(",", ":"))
        return form
