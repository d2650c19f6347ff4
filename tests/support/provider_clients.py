"""Providers' own libraries in the hands of a test: a push and a text as an application sends them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from firebase_admin import messaging
from twilio.base.exceptions import TwilioRestException

if TYPE_CHECKING:
    import httpx
    from twilio.rest import Client

    from knocktwice_shared.messages import ReceiptEvent

NUMBER = "+4915112345678"


@dataclass
class App:
    """An application that hears its phones' receipts."""

    heard: list[ReceiptEvent] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def report(self, event: ReceiptEvent) -> None:
        self.heard.append(event)
        self.threads.add(threading.current_thread().name)


def push(registration: str, **fields: Any) -> messaging.Message:
    return messaging.Message(fid=registration, notification=messaging.Notification("Hello", "World"), **fields)


def post_push(client: httpx.Client, message: object) -> httpx.Response:
    return client.post("/v1/projects/any/messages:send", json={"message": message})


def send_text(twilio: Client, to: str = NUMBER, **fields: Any) -> str:
    message = twilio.messages.create(**({"to": to, "from_": "+15005550006", "body": "Hello"} | fields))
    return str(message.sid)


def code_of(twilio: Client, **fields: Any) -> tuple[int, int]:
    with pytest.raises(TwilioRestException) as caught:
        twilio.messages.create(**fields)
    return caught.value.status, caught.value.code
