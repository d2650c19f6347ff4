"""WhatsApp through Twilio: the Messages API with ``whatsapp:`` addresses and content templates.

https://www.twilio.com/docs/whatsapp/tutorial/send-whatsapp-notification-messages-templates — WhatsApp accepts free text
only within 24 hours after a person's own message, otherwise only templates that it has approved. So a notification is
always a template.
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

#: Twilio's prefix of a number on this channel.
PREFIX = "whatsapp:"
#: Twilio's limit for the variables of a content template, in characters of their JSON.
VARIABLES_LIMIT = 1_600


class ContentTemplates:
    """The wording of WhatsApp: the id of a content template and its filled-in variables."""

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
    """Return the content template and the variables from a text that :class:`ContentTemplates` wrote."""
    sid, variables = json.loads(text)
    return sid, variables


class TwilioWhatsappChannel(TwilioSmsChannel):
    """Twilio's WhatsApp Business sender. Arguments as for SMS; WhatsApp must have approved the sender."""

    name = "whatsapp"
    sender_setting = "KNOCKTWICE_WHATSAPP_FROM"

    def _says(self, listed: ListedMessage, text: str) -> bool:
        """Whether a listed message may be the one that we sent.

        Twilio's list shows the filled-in template without its id, so the message is recognised by its variables.
        """
        _, variables = template_of(text)
        return all(value in listed.body for value in variables.values())

    def pace(self, sender: str | None) -> Rate:
        """Return the pace of all messages, because Twilio limits the one sender that WhatsApp has approved."""
        del sender
        return Rate(f"{self.name}:{self._usual_sender or ''}", self._per_s)

    def _address(self, number: str) -> str:
        return PREFIX + number.removeprefix(PREFIX)

    def _content(self, message: StepMessage) -> dict[str, str | list[str]]:
        sid, variables = template_of(message.text)
        form: dict[str, str | list[str]] = {"ContentSid": sid}
        if variables:
            form["ContentVariables"] = json.dumps(variables, ensure_ascii=False, separators=(",", ":"))
        return form
