"""Whose request it is: what anybody can write into a header does not count, what a trusted proxy has added does."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from knocktwice_worker.config import ConfigurationError, load
from knocktwice_worker.gateway.http.client_address import ClientAddresses

PROXIES = [ip_network("10.0.0.0/8"), ip_network("192.0.2.7"), ip_network("fd00::/8")]
TRUSTING = ClientAddresses(PROXIES)
PROXY = "10.1.2.3"


def _scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"host", b"x"), *((b"x-forwarded-for", one.encode("latin-1")) for one in forwarded), (b"accept", b"*")]
    return {"type": "http", "client": peer and (peer, 1234), "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        (PROXY, ["203.0.113.9"], "203.0.113.9"),
        # Whatever the client wrote itself stands before what the proxy has added.
        (PROXY, ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (PROXY, ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        (PROXY, ["10.9.9.9, 203.0.113.9"], "203.0.113.9"),
        (PROXY, ["203.0.113.9, 192.0.2.7 ,10.4.5.6"], "203.0.113.9"),
        (PROXY, ["203.0.113.9:51234"], "203.0.113.9"),
        (PROXY, ["[2001:db8:1:2:3::4]:443"], "2001:db8:1:2::"),
        (PROXY, ["2001:db8:1:2:ffff::4"], "2001:db8:1:2::"),
        (PROXY, ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.1.2.3", ["203.0.113.9"], "203.0.113.9"),
        # A client within the trusted network.
        (PROXY, ["10.7.7.7"], "10.7.7.7"),
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["unknown"], PROXY),
        (PROXY, ["203.0.113.9, _hidden"], PROXY),
        (PROXY, ["9" * 10_000], PROXY),
        (PROXY, ["\xff\xfe"], PROXY),
        # Not a proxy that is known: what it says is anybody's word.
        ("203.0.113.50", ["1.1.1.1"], "203.0.113.50"),
        ("192.0.2.8", ["1.1.1.1"], "192.0.2.8"),
        ("2001:db8:1:2:3::4", ["1.1.1.1"], "2001:db8:1:2::"),
        (None, ["1.1.1.1"], ""),
    ],
)
def test_a_client_is_counted_by_the_last_address_that_nobody_but_a_proxy_wrote(
    peer: str | None, forwarded: list[str], counted: str
) -> None:
    assert TRUSTING.of(_scope(peer, *forwarded)) == counted


def test_a_header_full_of_proxies_is_not_read_to_its_end() -> None:
    assert TRUSTING.of(_scope(PROXY, ",".join(["1.1.1.1"] + [f"10.0.0.{n}" for n in range(20)]))) == "10.0.0.10"


def test_without_trusted_proxies_only_the_connection_counts() -> None:
    nobody = ClientAddresses()
    assert nobody.of(_scope(PROXY, "1.1.1.1")) == PROXY
    assert nobody.of(_scope("2001:db8:1:2:3::4", "1.1.1.1")) == "2001:db8:1:2::"
    assert nobody.of(_scope(None)) == ""


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_GATEWAY_PROXIES", '["10.0.0.0/8", "2001:db8::7"]')
    assert load().gateway_proxies == {ip_network("10.0.0.0/8"), ip_network("2001:db8::7")}
    for wrong in ('["10.0.0.1/8"]', '["proxy.example"]', '["*"]', "10.0.0.1"):
        monkeypatch.setenv("KNOCKTWICE_GATEWAY_PROXIES", wrong)
        with pytest.raises(ConfigurationError, match=r"^KNOCKTWICE_GATEWAY_PROXIES: "):
            load()
