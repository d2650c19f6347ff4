"""The sender of a request, in the two ways that Tencent documents: basic authentication, and a signature.

``AccessId`` is the id of one of our keys. ``SecretKey`` is its signing secret (``knocktwice key sign``); basic
authentication also takes the key's own last part, which a signature cannot use: only its hash is stored.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from typing import TYPE_CHECKING

from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.auth.access import here
from knocktwice_worker.gateway.auth.signing import signing_secret
from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request

    from knocktwice_worker.gateway.auth.keyring import KeyRing
    from knocktwice_worker.gateway.auth.keys import Key

#: Seconds by which a signature's ``TimeStamp`` may differ from this server's clock; Tencent's own default for signed
#: requests.
CLOCK_S = 600


async def key_of(request: Request, raw: bytes) -> Key:
    """Return the key that a request proves to have.

    Args:
        raw: the body, byte for byte as it came: the signature covers it.

    Raises:
        Problem: it proves none.
    """
    if "sign" in request.headers:
        return await _signed(request, raw)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise _refused(
            "send Authorization: Basic base64(AccessId:SecretKey), or the headers AccessId, TimeStamp and Sign"
        )
    try:
        id_, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _refused("Authorization: Basic must be followed by base64(AccessId:SecretKey)") from None
    ring: KeyRing = request.app.state.keys
    root = secret(here(request).settings)
    key = await ring.find(f"kt_{id_}_{password}") or await ring.find_proved(
        id_, lambda digest: hmac.compare_digest(signing_secret(digest, root).encode(), password.encode())
    )
    if key is None:
        raise _refused("no key has this AccessId and SecretKey; 'knocktwice key sign ID' shows a key's")
    return key


async def _signed(request: Request, raw: bytes) -> Key:
    id_, moment, sign = (request.headers.get(name, "") for name in ("accessid", "timestamp", "sign"))
    if not id_ or not moment.isascii() or not moment.isdigit():
        raise _refused("beside Sign the headers AccessId and TimeStamp are needed, the latter in seconds")
    if abs(time.time() - int(moment[:20])) > CLOCK_S:
        raise _refused(f"TimeStamp differs by more than {CLOCK_S} seconds from this server's clock")
    ring: KeyRing = request.app.state.keys
    root = secret(here(request).settings)
    said = moment.encode() + id_.encode() + raw

    def fits(digest: bytes) -> bool:
        signed = hmac.digest(signing_secret(digest, root).encode(), said, "sha256").hex()
        return hmac.compare_digest(base64.b64encode(signed.encode()), sign.encode())

    key = await ring.find_proved(id_, fits)
    if key is None:
        raise _refused(
            "Sign does not fit: it must be base64 of the hexadecimal HMAC-SHA256 of TimeStamp, AccessId and the body as "
            "it is sent, by the SecretKey that 'knocktwice key sign ID' shows"
        )
    return key


def _refused(detail: str) -> Problem:
    return Problem("unauthorized", detail)
