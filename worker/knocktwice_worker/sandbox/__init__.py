"""Stands in for FCM and Twilio over real HTTP, with virtual phones: for the demo, for tests and for developing an app.

It speaks FCM's HTTP v1 API (with Google's token endpoint) and Twilio's Messages API well enough for their own SDKs,
keeps its own books of what it took, reports receipts as an app does and posts signed callbacks. :class:`Rule` makes it
misbehave.

It may use what channels and content say about messages. It must not know the database, the wiring or the tasks: it
stands outside, as the real providers do.
"""

from __future__ import annotations

from knocktwice_worker.sandbox.phones import Phone
from knocktwice_worker.sandbox.records import AppReport, PostedCallback, ReceivedPush, SentText
from knocktwice_worker.sandbox.rules import Answer, Rule
from knocktwice_worker.sandbox.server import Sandbox

__all__ = ["Answer", "AppReport", "Phone", "PostedCallback", "ReceivedPush", "Rule", "Sandbox", "SentText"]
