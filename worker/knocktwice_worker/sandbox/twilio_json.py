"""Messages in the JSON of Twilio's API."""

from __future__ import annotations

from email.utils import format_datetime
from typing import TYPE_CHECKING

from knocktwice_worker.content import sms_parts
from knocktwice_worker.sandbox.accounts import ACCOUNT_SID

if TYPE_CHECKING:
    from datetime import datetime

    from knocktwice_worker.sandbox.records import SentText

#: The version in every address.
API_VERSION = "2010-04-01"
_BASE = f"/{API_VERSION}/Accounts/{ACCOUNT_SID}"
_TEXTS = {30003: "Unreachable destination handset", 30007: "Message filtered"}


def messages_uri() -> str:
    """Return the list's path."""
    return f"{_BASE}/Messages.json"


def message(text: SentText) -> dict[str, object]:
    """Return a message as Twilio's API shows it."""
    path = f"{_BASE}/Messages/{text.sid}"
    return {
        "account_sid": ACCOUNT_SID,
        "api_version": API_VERSION,
        "body": text.body,
        "date_created": _date(text.created_at),
        "date_sent": _date(text.sent_at),
        "date_updated": _date(text.updated_at or text.created_at),
        "direction": "outbound-api",
        "error_code": text.error_code,
        "error_message": None if text.error_code is None else _TEXTS.get(text.error_code, "Unknown error"),
        "from": text.sender,
        "messaging_service_sid": text.messaging_service,
        "num_media": str(len(text.media)),
        # A Messaging Service splits the text later.
        "num_segments": "0" if text.messaging_service and not text.sent_at else str(_segments(text)),
        # Known some time after the text went out.
        "price": None if text.sent_at is None else "-0.02000" if text.media else "-0.00790",
        "price_unit": "USD",
        "sid": text.sid,
        "status": text.status,
        "subresource_uris": {"media": f"{path}/Media.json"},
        "to": text.to,
        "uri": f"{path}.json",
    }


def _segments(text: SentText) -> int:
    # An MMS is not split.
    return 1 if text.media else sms_parts.count(text.body)


def _date(moment: datetime | None) -> str | None:
    return None if moment is None else format_datetime(moment)
