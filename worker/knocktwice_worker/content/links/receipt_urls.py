"""The address that a push carries so that its app can report with one request: signed, short-lived, safe to repeat.

A token names a notification, a device and the moment until which it may be used. It fits one device's push: changing
any of these breaks the signature. Delivered and clicked share one token, and the app says which by the end of the path:
both would travel in the same push to the same device, so two would protect nothing more and take a hundred bytes of
FCM's 4 KB.

Layout (39 bytes, 52 characters in base64url): version, notification id (16), device (6), end in Unix seconds (4), MAC
(12).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

#: The path of receipts, below the public URL.
PATH = "/r/"
#: The prefix of :func:`device_mark`, by which a hash differs from a registration.
MARK = "~"

_VERSION = 1
_FIELDS = struct.Struct(">B16s6sI")
#: 96 bits: what a forger would have to guess, one HTTP request at a time.
_MAC_BYTES = 12
_LENGTH = (_FIELDS.size + _MAC_BYTES) * 4 // 3
#: Separates this use of the secret from every other.
_PURPOSE = b"knocktwice receipt "
_LAST_MOMENT = 2**32 - 1


class RefusedToken(ValueError):
    """This token gives no right to report anything. The text says why and quotes nothing."""


@dataclass(frozen=True, slots=True)
class ReceiptToken:
    """The push and the device that a valid token stands for.

    Attributes:
        device: the hash of the registration that the push went to, see :func:`device_hash`.
    """

    notification: UUID
    device: bytes


class ReceiptTokens:
    """Signs and reads tokens.

    Args:
        secrets: any of them makes a token valid; the first signs.
        valid: how long after its push has expired a token may still be used.
    """

    def __init__(self, secrets: Sequence[bytes], valid: timedelta) -> None:
        if not all(secrets) or not secrets:
            raise ValueError("a receipt secret is empty")
        self._macs = [hmac.new(hashlib.sha256(_PURPOSE + secret).digest(), digestmod="sha256") for secret in secrets]
        self._valid_s = int(valid.total_seconds())

    def sign(self, notification: str, registration: str, *, now: float, ttl_s: float = 0) -> str:
        """Return the token of one push to one device.

        Args:
            notification: its id.
            registration: the device.
            now: Unix time.
            ttl_s: how long the push may still be on its way, in seconds.
        """
        end = min(int(now + ttl_s) + self._valid_s, _LAST_MOMENT)
        id_ = bytes.fromhex(notification.replace("-", ""))
        body = _FIELDS.pack(_VERSION, id_, device_hash(registration), end)
        return base64.urlsafe_b64encode(body + _mac(self._macs[0], body)).decode()

    def read(self, token: str, *, now: float) -> ReceiptToken:
        """Return what a token stands for.

        Args:
            now: Unix time.

        Raises:
            RefusedToken: it is not one of ours, was changed, or has expired.
        """
        if len(token) != _LENGTH:
            raise RefusedToken("is not a receipt token")
        try:
            raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise RefusedToken("is not a receipt token") from None
        body, mac = raw[: _FIELDS.size], raw[_FIELDS.size :]
        # All keys are tried, so that the time taken does not tell which one fits.
        fits = [hmac.compare_digest(_mac(known, body), mac) for known in self._macs]
        if not any(fits):
            raise RefusedToken("was not signed by this system")
        version, id_, device, end = _FIELDS.unpack(body)
        if version != _VERSION:
            raise RefusedToken("is of a version that is not known here")
        if now >= end:
            raise RefusedToken("has expired")
        return ReceiptToken(UUID(bytes=id_), device)


class ReceiptUrls:
    """Makes the addresses that pushes carry.

    Args:
        public_url: where the world reaches the gateway.
    """

    def __init__(self, public_url: str, tokens: ReceiptTokens) -> None:
        self._start = public_url.rstrip("/") + PATH
        self._tokens = tokens

    def url(self, notification: str, registration: str, *, now: float, ttl_s: float) -> str:
        """Return the address of this push's receipts, without the kind at its end. Arguments as for ``sign``."""
        return self._start + self._tokens.sign(notification, registration, now=now, ttl_s=ttl_s)


def device_hash(registration: str) -> bytes:
    """Return 6 bytes that tell the few devices of one notification apart and do not give their addresses away."""
    return hashlib.sha256(registration.encode()).digest()[:6]


def device_mark(device: bytes) -> str:
    """Return a receipt's name for a device with a known hash, until :mod:`receipts` finds the registration."""
    return MARK + device.hex()


def _mac(known: hmac.HMAC, body: bytes) -> bytes:
    """Return a body's MAC, cut to what a token has room for.

    Copied from one that has its key already: ``hmac.digest`` lets go of the interpreter's lock, which under load takes
    long to get back.
    """
    mac = known.copy()
    mac.update(body)
    return mac.digest()[:_MAC_BYTES]
