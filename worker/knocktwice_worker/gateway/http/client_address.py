"""The address of a request's client: the connection's address, or the one that trusted proxies report.

Any client may send ``X-Forwarded-For``, so only the entries that known proxies have added to it count.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from starlette.types import Scope

FORWARDED = b"x-forwarded-for"
#: Proxies behind each other, at the most.
_HOPS = 10
#: Longest text that may be an address, a port behind it included.
_LONGEST = 60
#: Addresses that need not be read again.
_REMEMBERED = 10_000
#: The prefix length of the smallest network that an IPv6 provider gives to one customer.
_CUSTOMER_BITS = 64


class _Hop(NamedTuple):
    """One address of the way that a request took: how it is counted, and whether a trusted proxy has it."""

    name: str
    trusted: bool


class ClientAddresses:
    """Finds the address by which a client is counted: an IPv4 address, or the /64 network of an IPv6 address.

    Args:
        proxies: networks of those whose ``X-Forwarded-For`` is believed.
    """

    def __init__(self, proxies: Collection[IPv4Network | IPv6Network] = ()) -> None:
        self._proxies = tuple(proxies)
        self._hop = lru_cache(maxsize=_REMEMBERED)(self._read)

    def of(self, scope: Scope) -> str:
        """Return the address of whoever made a request; of clients that have none (on a Unix socket) a common one."""
        client = scope.get("client")
        peer: str = client[0] if client else ""
        # As it stands, because reading it costs more than all the rest. Only IPv6 can be written in several ways.
        if not self._proxies and ":" not in peer:
            return peer
        hop = self._hop(peer) or _Hop(peer, trusted=False)
        if hop.trusted:
            for told in _forwarded(scope):
                before = self._hop(told) if len(told) <= _LONGEST else None
                if before is None:
                    # The proxy's entry is not an address, so the proxy's own address is the last one known.
                    break
                hop = before
                if not hop.trusted:
                    break
        return hop.name

    def _read(self, text: str) -> _Hop | None:
        try:
            address = ip_address(_without_port(text.strip()))
        except ValueError:
            return None
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        trusted = any(address in network for network in self._proxies)
        return _Hop(_counted_as(address), trusted)


def _forwarded(scope: Scope) -> Iterator[str]:
    """Yield what proxies have added, the latest first."""
    hops = 0
    for name, value in reversed(scope["headers"]):
        if name != FORWARDED:
            continue
        rest = value.decode("latin-1")
        while rest and hops < _HOPS:
            hops += 1
            rest, _, told = rest.rpartition(",")
            yield told


def _without_port(text: str) -> str:
    """Return an address without the port that some proxies write behind it."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


def _counted_as(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Address(int(address) >> (128 - _CUSTOMER_BITS) << (128 - _CUSTOMER_BITS)))
