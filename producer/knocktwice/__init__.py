"""Push first; if nobody answers in time, an SMS. This is all that an application sees.

from datetime import timedelta
from knocktwice import Client, Push, Sms

client = Client("redis://localhost:6379/0")
client.notify(
    user="u-17",
    push=Push("Your order is on its way", "Ana arrives at 19:30."),
    sms=Sms(after=timedelta(minutes=5)),
    key="order-4711-on-its-way",
)
"""

from __future__ import annotations

from knocktwice.aio import AsyncClient
from knocktwice.channels import WhatsApp
from knocktwice.client import Client
from knocktwice.content import ChannelStep, Sms
from knocktwice.keys import NotificationId
from knocktwice.user_tokens import user_token
from knocktwice_shared.durability import Durability
from knocktwice_shared.errors import BrokerUnavailable, InvalidMessage, KnocktwiceError, NotConfirmed, QueueFull
from knocktwice_shared.messages import Category, LocalTime, Platform, Push, Receipt, ReceiptEvent, Recipient, When
from knocktwice_shared.user_tokens import UserScope

#: The version of this distribution, of producer, worker and command alike.
__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "BrokerUnavailable",
    "Category",
    "ChannelStep",
    "Client",
    "Durability",
    "InvalidMessage",
    "KnocktwiceError",
    "LocalTime",
    "NotConfirmed",
    "NotificationId",
    "Platform",
    "Push",
    "QueueFull",
    "Receipt",
    "ReceiptEvent",
    "Recipient",
    "Sms",
    "UserScope",
    "WhatsApp",
    "When",
    "__version__",
    "user_token",
]
