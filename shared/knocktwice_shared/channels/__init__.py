"""The channels that a later step can name, and what a step of each has to say. One line here for each.

``messages.py`` checks every step against this table, on both sides. Whether a worker can send over a channel is the
worker's business; its registry (``knocktwice_worker/channels/registry.py``) has an entry for each of these.
"""

from __future__ import annotations

from knocktwice_shared.channels import sms, whatsapp
from knocktwice_shared.channels.step_content import MEDIA, Field, Kind, StepContent

__all__ = ["CONTENTS", "MEDIA", "SMS", "Field", "Kind", "StepContent"]

#: The channel of the usual step, which says what the push says.
SMS = sms.CONTENT.channel
#: Channel → what its steps say.
CONTENTS: dict[str, StepContent] = {content.channel: content for content in (sms.CONTENT, whatsapp.CONTENT)}
