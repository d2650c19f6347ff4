"""The addresses that webhooks may use.

An endpoint makes our servers call the address that its creator chose, so private addresses must be refused, in every
form in which an address can be written.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from knocktwice_shared.errors import InvalidMessage

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
#: Ends of names that mean this machine or the network around it.
_PRIVATE_NAMES = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa")
_MOST_CHARS = 2000
_NO_URL = "is not a URL such as https://shop.example/hooks"
_ALLOW = "(set KNOCKTWICE_WEBHOOK_PRIVATE=true to allow that)"
_NAME = re.compile(r"(?!.*\.\.)[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
#: The last label of a host that programs read as an IPv4 address, such as ``2130706433``, ``0x7f.1`` or ``127.1``.
_NUMERIC = re.compile(r"([0-9]+|0x[0-9a-f]*)")

#: The public part of IPv6. Whatever lies outside of it is private, local, reserved or a translation.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
#: Prefixes whose last 32 bits are an IPv4 address, which is the address that is reached: mapped, translated and NAT64.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")))
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
#: Ranges that the standard library, depending on its age, takes for public: Teredo, documentation, 6to4's relays.
_NEVER = tuple(map(ipaddress.ip_network, ("2001::/32", "2001:db8::/32", "3fff::/20", "192.88.99.0/24", "192.0.0.0/24")))
#: The interface ids of ISATAP, whose last 32 bits are an IPv4 address within an organisation.
_ISATAP = (0x00005EFE, 0x02005EFE)


def check(url: str, *, private: bool) -> str:
    """Refuse an endpoint's URL that could not be used, or should not.

    Args:
        private: whether private addresses and plain http are allowed.

    Returns:
        The URL in ASCII, as it is called.

    Raises:
        InvalidMessage: what is wrong with it, and what would help.
    """
    parsed = _parsed(url)
    host = _host(parsed.hostname or "")
    ascii_url = _with_host(parsed, host)
    if private or is_loopback(url):
        return ascii_url
    if parsed.scheme != "https":
        raise InvalidMessage("url", "must be https (or set KNOCKTWICE_WEBHOOK_PRIVATE=true)")
    if any(is_private(address) for address in _addresses(host)):
        raise InvalidMessage("url", f"{host} has a private address {_ALLOW}")
    if any(f".{host}".endswith(f".{name}") for name in _PRIVATE_NAMES):
        raise InvalidMessage("url", f"{host} is a name of a private network {_ALLOW}")
    return ascii_url


def is_loopback(url: str) -> bool:
    """Return whether a URL says itself, in plain words, that it is this machine."""
    return urlsplit(url).hostname in _LOOPBACK


def is_private(address: str) -> bool:
    """Return whether an IP address is none of the public internet's."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if any(found.version == network.version and found in network for network in _NEVER):
        return True
    if isinstance(found, ipaddress.IPv6Address):
        if any(found in network for network in _TRANSLATED):
            return _is_private_v4(int(found))
        if found in _SIX_TO_FOUR:
            return _is_private_v4(int(found) >> 80)
        if found not in _GLOBAL_V6 or int(found) >> 32 & 0xFFFFFFFF in _ISATAP:
            return True
    return not found.is_global or found.is_multicast


def _is_private_v4(bits: int) -> bool:
    return is_private(str(ipaddress.IPv4Address(bits & 0xFFFFFFFF)))


def _parsed(url: str) -> SplitResult:
    try:
        parsed = urlsplit(url)
        _ = parsed.port
    except ValueError:
        raise InvalidMessage("url", _NO_URL) from None
    if (
        parsed.scheme not in ("http", "https")
        or not parsed.hostname
        or len(url) > _MOST_CHARS
        or not url.isprintable()
        or " " in url
        # Some programs read a backslash as a slash, so they would see another host.
        or "\\" in url
    ):
        raise InvalidMessage("url", _NO_URL)
    if parsed.username is not None or parsed.password is not None:
        raise InvalidMessage("url", "holds a password; the signature says who we are")
    if not (parsed.path + parsed.query + parsed.fragment).isascii():
        raise InvalidMessage("url", "has letters behind the host that must be written with %, like %C3%A9")
    return parsed


def _host(name: str) -> str:
    """Return a host as it is looked up: in ASCII, without a dot at the end, an IPv4 address in its usual form."""
    if ":" in name:
        return name
    try:
        host = name.encode("idna").decode().lower().rstrip(".")
    except UnicodeError:
        raise InvalidMessage("url", _NO_URL) from None
    if not _NAME.fullmatch(host):
        raise InvalidMessage("url", _NO_URL)
    if not _NUMERIC.fullmatch(host.rpartition(".")[2]):
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        raise InvalidMessage("url", f"{host} is not an IP address") from None


def _with_host(parsed: SplitResult, host: str) -> str:
    port = "" if parsed.port is None else f":{parsed.port}"
    return parsed._replace(netloc=(f"[{host}]" if ":" in host else host) + port).geturl()


def _addresses(host: str) -> list[str]:
    """Return the addresses of a host; none for a name that does not resolve.

    A name may resolve later, or to something else; the address is judged again when the engine connects to it.
    """
    if ":" in host:
        return [host]
    with suppress(OSError):
        return [str(address[0]) for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    return []
