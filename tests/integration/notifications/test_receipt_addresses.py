"""The address at which an app reports outlives the push that carries it:
a phone that was off for a day can still say so.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.channels.fcm import RECEIPT_FIELD
from knocktwice_worker.content.links.receipt_urls import ReceiptUrls, RefusedToken

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SMS: dict[str, Any] = {"channel": "sms", "when": "not_delivered", "after_s": DAY.total_seconds()}


@pytest.mark.parametrize(
    ("wire", "alive"),
    [
        ({"ttl_s": 2 * DAY.total_seconds()}, 2 * DAY),
        ({"plan": [SMS]}, DAY),
        ({}, DAY),
    ],
    ids=["by its own word", "as long as its countdown", "as long as it is of use"],
)
def test_an_address_holds_until_the_last_phone_can_have_reported(
    working: Services, sandbox: Sandbox, wire: dict[str, Any], alive: timedelta
) -> None:
    tokens = working.receipt_tokens
    texts = replace(working.pushes.texts, receipt_urls=ReceiptUrls("https://push.example.org", tokens))
    pushes = replace(working.pushes, texts=texts)
    who = {"id": str(uuid7()), "registrations": ["silent-late"], "phone": "+16505550100"}
    content = {"push": {"title": "t", "body": "b"}}
    pushes.send(parse_batch({"v": 1, "id": str(uuid7()), "content": content, "recipients": [who], **wire}))
    token = sandbox.pushes()[0].data[RECEIPT_FIELD].rpartition("/")[2]
    last = time.time() + (alive + working.settings.receipt_valid).total_seconds()
    assert str(tokens.read(token, now=last - HOUR.total_seconds()).notification) == who["id"]
    with pytest.raises(RefusedToken):
        tokens.read(token, now=last + HOUR.total_seconds())
