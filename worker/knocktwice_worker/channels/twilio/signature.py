"""Is this request really Twilio's? https://www.twilio.com/docs/usage/security#validating-requests

Twilio signs the address that it was given, so what counts is the configured public URL, never what proxies have made of
host, scheme and port on the way. A test holds this against ``RequestValidator`` of Twilio's own library.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable

_DEFAULT_PORTS = {"https": 443, "http": 80}


def is_genuine(
    *, token: str, url: str, signature: str, form: Iterable[tuple[str, str]] = (), body: bytes | None = None
) -> bool:
    """Return whether Twilio signed this request.

    Args:
        token: the account's auth token.
        url: the address as Twilio was given it, with the query as it came.
        signature: the ``X-Twilio-Signature`` header.
        form: the fields of a form body, in any order.
        body: instead of a form: any other body, whose hash is in the query as ``bodySHA256``.
    """
    if body is not None:
        given = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0]
        if not hmac.compare_digest(hashlib.sha256(body).hexdigest().encode(), given.lower().encode()):
            return False
        form = ()
    signed = "".join(f"{name}{value}" for name, value in sorted(set(form)))
    # Twilio leaves a default port out in most products and writes it in some.
    expected = [_sign(token, spelling + signed) for spelling in _spellings(url)]
    return any(hmac.compare_digest(one, signature.encode(errors="replace")) for one in expected)


def _spellings(url: str) -> set[str]:
    address = urlsplit(url)
    before, after = f"{address.scheme}://", url[len(address.scheme) + 3 + len(address.netloc) :]
    name = address.netloc.rpartition(":")[0] if address.port else address.netloc
    port = address.port or _DEFAULT_PORTS.get(address.scheme)
    return {url, f"{before}{name}{after}", f"{before}{name}:{port}{after}"}


def _sign(token: str, text: str) -> bytes:
    return base64.b64encode(hmac.digest(token.encode(), text.encode(), "sha1"))
