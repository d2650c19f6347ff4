"""Verification of Twilio's signatures. https://www.twilio.com/docs/usage/security#validating-requests

Twilio's own library computes the signature. This module decides two things itself, because the library's ``validate``
gets them wrong for some requests: which spellings of the address count (``validate`` cuts IPv6 addresses in two and
drops an empty query), and whether a body matches its hash (``validate`` decodes the body as UTF-8 first, and fails for
a body without a hash).

Twilio signs the address that it was given. So the configured public URL counts, and not the host, scheme and port of
the request, which proxies may have changed.
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
    """Return whether Twilio signed a request.

    Args:
        token: the account's auth token.
        url: the address that Twilio was given, with the query unchanged.
        signature: the ``X-Twilio-Signature`` header.
        form: the fields of a form body, in any order.
        body: any other body, in place of a form; its hash is in the query as ``bodySHA256``.
    """
    # Imported at the first callback, so that the command line and the workers start without it.
    from twilio.request_validator import RequestValidator

    if body is not None:
        given = parse_qs(urlsplit(url).query).get("bodySHA256", [""])[0]
        if not hmac.compare_digest(hashlib.sha256(body).hexdigest().encode(), given.lower().encode()):
            return False
        form = ()
    validator, fields = RequestValidator(token), _Fields(form)
    # Most of Twilio's products leave a default port out and some write it, so all spellings are tried.
    expected = [validator.compute_signature(spelling, fields) for spelling in _spellings(url)]
    return any(hmac.compare_digest(one.encode(), signature.encode(errors="replace")) for one in expected)


class _Fields(dict[str, list[str]]):
    """The fields of a form in the shape that Twilio's library reads; one name may have several values."""

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
