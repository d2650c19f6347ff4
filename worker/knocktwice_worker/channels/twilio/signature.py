"""Is this request really Twilio's? https://www.twilio.com/docs/usage/security#validating-requests

Twilio's own library computes the signature. Two things are decided here, because the library's ``validate`` decides them
for fewer requests: which spellings of the address count (it cuts IPv6 addresses in two and drops an empty query), and
whether a body fits its hash (it decodes the body as UTF-8 first, and fails for one without a hash).

Twilio signs the address that it was given, so the configured public URL counts, never what proxies have made of host,
scheme and port on the way.
"""

from __future__ import annotations

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
    # Imported at the first callback: the command line and the workers start without it.
    from twilio.request_validator import RequestValidator

    if body is not None:
        given = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0]
        if not hmac.compare_digest(hashlib.sha256(body).hexdigest().encode(), given.lower().encode()):
            return False
        form = ()
    validator, fields = RequestValidator(token), _Fields(form)
    # Twilio leaves a default port out in most products and writes it in some.
    expected = [validator.compute_signature(spelling, fields) for spelling in _spellings(url)]
    return any(hmac.compare_digest(one.encode(), signature.encode(errors="replace")) for one in expected)


class _Fields(dict[str, list[str]]):
    """The fields of a form as Twilio's library reads them, when one name may stand for several values."""

    def __init__(self, form: Iterable[tuple[str, str]]) -> None:
        super().__init__()
        for name, value in form:
            self.setdefault(name, []).append(value)

    def getlist(self, name: str) -> list[str]:
        return self[name]


def _spellings(url: str) -> set[str]:
    address = urlsplit(url)
    before, after = f"{address.scheme}://", url[len(address.scheme) + 3 + len(address.netloc) :]
    name = address.netloc.rpartition(":")[0] if address.port else address.netloc
    port = address.port or _DEFAULT_PORTS.get(address.scheme)
    return {url, f"{before}{name}{after}", f"{before}{name}:{port}{after}"}
