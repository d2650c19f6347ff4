"""WhatsApp through Twilio: the Messages API again, with ``whatsapp:`` addresses and content templates.

https://www.twilio.com/docs/whatsapp/tutorial/send-whatsapp-notification-messages-templates — outside the 24 hours after a
person's own message WhatsApp takes nothing but templates it has approved, so a notification is always one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.channels.provider import Rate
from knocktwice_worker.channels.twilio.sms import TwilioSmsChannel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.channels.messages import ListedMessage, StepMessage
    from knocktwice_worker.content.wording import Filling

#: What Twilio puts before a number on this channel.
PREFIX = "whatsapp:"
#: Twilio's limit for the variables of a content template, in characters of their JSON.
VARIABLES_LIMIT = 1_600


class ContentTemplates:
    """The wording of WhatsApp: the name of a content template, and its variables filled in."""

    def write(self, step: Mapping[str, Any], filling: Filling) -> str:
        """Return template and variables as JSON, which :func:`template_of` reads."""
        given = (step.get("variables") or {}).items()
        variables = {name: filling.fill(f"variables.{name}", value) for name, value in given}
        said = [filling.own(step["content_sid"]), variables]
        filled = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
        if len(filled) > VARIABLES_LIMIT:
            problem = f"are over {VARIABLES_LIMIT} characters when filled in"
            raise InvalidMessage(f"{filling.path}.variables", problem)
        return filled

    def shown(self, text: str) -> Mapping[str, Any]:
        """Return template and variables."""
        sid, variables = template_of(text)
        return {"content_sid": sid, "variables": variables}


def template_of(text: str) -> tuple[str, dict[str, str]]:
    """Return content template and variables from what :class:`ContentTemplates` wrote."""
    sid, variables = json.loads(text)
    return sid, variables


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

    def pace(self, sender: str | None) -> Rate:
        """Return the pace of all messages: Twilio limits the one sender that WhatsApp has approved."""
        del sender
        return Rate(f"{self.name}:{self._usual_sender or ''}", self._per_s)

    def _address(self, number: str) -> str:
        return PREFIX + number.removeprefix(PREFIX)

    def _content(self, message: StepMessage) -> dict[str, str]:
        sid, variables = template_of(message.text)
        form = {"ContentSid": sid}
        if variables:
            form["ContentVariables"] = json.dumps(variables, ensure_ascii=False, separators=(",", ":"))
        return form
