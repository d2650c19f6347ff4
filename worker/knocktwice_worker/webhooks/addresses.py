"""The addresses that webhooks may use.

An endpoint makes our servers call the address that its creator chose, so private addresses must be refused.
"""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from knocktwice_shared.errors import InvalidMessage

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_MOST_CHARS = 2000


def check(url: str, *, private: bool) -> None:
    """Refuse an endpoint's URL that could not be used, or should not.

    Args:
        private: whether private addresses and plain http are allowed.

    Raises:
        InvalidMessage: what is wrong with it, and what would help.
    """
    try:
        parsed = urlsplit(url)
        host, _ = parsed.hostname, parsed.port
    except ValueError:
        raise InvalidMessage("url", "is not a URL such as https://shop.example/hooks") from None
    if (
        parsed.scheme not in ("http", "https")
        or not host
        or len(url) > _MOST_CHARS
        or not url.isprintable()
        or " " in url
    ):
        raise InvalidMessage("url", "is not a URL such as https://shop.example/hooks")
    if parsed.username is not None or parsed.password is not None:
        raise InvalidMessage("url", "holds a password; the signature says who we are")
    if private or is_loopback(url):
        return
    if parsed.scheme != "https":
        raise InvalidMessage("url", "must be https (or set KNOCKTWICE_WEBHOOK_PRIVATE=true)")
    # A name that does not resolve now may do so later; whom we connect to is looked at again then.
    with suppress(OSError):
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        if any(is_private(str(address[0])) for *_, address in found):
            raise InvalidMessage(
                "url", f"{host} has a private address (set KNOCKTWICE_WEBHOOK_PRIVATE=true to allow that)"
            )


def is_loopback(url: str) -> bool:
    """Return whether a URL says itself that it is this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def is_private(address: str) -> bool:
    """Return whether an IP address is none of the public internet's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    # An IPv4 address that is mapped into IPv6 is checked as the IPv4 address.
    if isinstance(found, ipaddress.IPv6Address):
        found = found.ipv4_mapped or found.sixtofour or found
    return not found.is_global or found.is_multicast
