"""Replies: what the application answers to a person's text, in its answer to the webhook ``inbound.text``.

A reply is an ordinary notification of one SMS, so limits, opt-outs, costs and the history hold for it. It has the id of
the text, so a webhook that is sent twice is answered once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import SMS_CHARS_LIMIT, parse_batch
from knocktwice_shared.names import VERSION

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from knocktwice_shared.messages import Batch

log = structlog.get_logger(__name__)

#: The key of a reply; the id of the text follows.
_KEY = "reply:"

# Two machines that answer each other would go on for ever.
_ANSWERABLE = text("""
SELECT i.number, i.project
FROM inbound_texts i
WHERE i.id = CAST(:id AS uuid)
  AND i.number ~ '^[+][1-9][0-9]{6,14}$'
  AND i.channel = 'sms'
  AND coalesce(i.wish = 'HELP', true)
  AND (
    SELECT count(*)
    FROM inbound_texts o
    JOIN notifications n ON n.key = :key || CAST(o.id AS text)
    WHERE o.number = i.number AND o.received_at > knocktwice_now() - interval '1 hour'
  ) < :most
""")


def wanted(body: bytes) -> str | None:
    """Return the text that an application wants to be sent back; ``None``: its answer asks for none."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    reply = said.get("reply") if isinstance(said, dict) else None
    if not isinstance(reply, str) or not reply.strip():
        return None
    if len(reply) > SMS_CHARS_LIMIT or "\0" in reply:
        log.warning("reply refused", reason=f"it has more than {SMS_CHARS_LIMIT} characters, or NUL")
        return None
    return reply


def batch(conn: Connection, inbound: str, reply: str, *, most: int, project: str | None = None) -> Batch | None:
    """Return the notification that answers a text; ``None``: this text is not answered.

    STOP and START are not, nor are short codes, other channels than SMS, and numbers with ``most`` replies in an hour.
    """
    found = conn.execute(_ANSWERABLE, {"id": inbound, "key": _KEY, "most": most}).first()
    if found is None:
        log.warning("reply not sent", inbound=inbound, reason="the text is a keyword, or its number had enough replies")
        return None
    message: dict[str, Any] = {
        "v": VERSION,
        "id": inbound,
        # As a parameter: braces in a reply are no placeholders.
        "content": {"sms": {"text": "{{ reply }}"}},
        "only": "sms",
        "reference": {"inbound": inbound},
        "recipients": [{"id": inbound, "phone": found.number, "key": f"{_KEY}{inbound}", "params": {"reply": reply}}],
    }
    # The answer to what was written to a project's own sender comes from that sender.
    if (of := project or found.project) is not None:
        message["project"] = of
    try:
        return parse_batch(message)
    except InvalidMessage as error:
        log.warning("reply refused", inbound=inbound, field=error.field)
        return None
