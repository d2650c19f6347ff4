"""The bodies of requests: what the pushes of a batch have in common is encoded once."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from knocktwice_worker.channels.fcm.encoding import address, encode, encode_withdrawal

if TYPE_CHECKING:
    from knocktwice_worker.channels.messages import PushMessage, Withdrawal

#: Made once: ``json.dumps`` makes an encoder for each call that has options.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
#: Stands in an encoded example for one of its texts. Nobody can guess it and write it into a message's data.
_MARK = f"{secrets.token_hex(16)}-{{}}"
_SLOT = re.compile(f'"{_MARK.format("([0-9])")}"')
_quoted = json.encoder.encode_basestring


class Form:
    """The JSON that the pushes of a batch have in common, encoded once, with slots for what differs.

    Whatever :func:`encode` makes of an example is kept, so there is one description of the message.
    """

    def __init__(self, example: PushMessage, now: int) -> None:
        self._push = example.push
        self._common = self._what_is_common(example, now)
        registration, title, body, id_, url = (_MARK.format(slot) for slot in range(5))
        receipt_url = example.receipt_url and url
        marked = replace(example, title=title, body=body, notification_id=id_, receipt_url=receipt_url)
        encoded = encode(marked, now=now)
        encoded[address(example)] = registration
        text = _encode({"message": encoded})
        self._head, *rest = _SLOT.split(text)
        self._rest = [(int(slot), piece) for slot, piece in zip(rest[::2], rest[1::2], strict=True)]

    @staticmethod
    def _what_is_common(message: PushMessage, now: int) -> tuple[object, ...]:
        return (message.ttl, message.receipt_url is not None, address(message), now)

    def fits(self, message: PushMessage, now: int) -> bool:
        """Whether this is the form of that push at that time (Unix seconds)."""
        # The people of a batch share one push, unless it has placeholders outside title and body.
        same = message.push is self._push or message.push == self._push
        return same and self._what_is_common(message, now) == self._common

    def fill(self, message: PushMessage) -> bytes:
        """Return the JSON of a push that fits."""
        own = (message.registration, message.title, message.body, message.notification_id, message.receipt_url or "")
        texts = [_quoted(text) for text in own]
        return (self._head + "".join([texts[slot] + piece for slot, piece in self._rest])).encode()


def withdrawal(message: Withdrawal) -> bytes:
    """Return the JSON of a silent push, which withdraws one."""
    return _encode({"message": encode_withdrawal(message, now=time.time())}).encode()
