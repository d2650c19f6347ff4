"""Where webhooks may go: whatever means a private address is refused, however it is written."""

from __future__ import annotations

import pytest

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.webhooks import addresses

PRIVATE = [
    "0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.2", "169.254.169.254", "172.16.0.1", "192.0.0.1", "192.0.2.1",
    "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::7f00:1", "::a00:1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "64:ff9b:1:ffff::8.8.8.8", "100::1", "2001::1",
    "2001:0:a00:1::", "2001:db8::1", "2002:a00:1::", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "2606:4700::5efe:a00:1",
    "2606:4700::200:5efe:a00:1", "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fe80::1", "fe80::1%eth0", "fec0::1",
    "ff02::1", "ff0e::1", "no address",
]  # fmt: skip
PUBLIC = [
    "8.8.8.8", "1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_the_public_internets_is_private(address: str) -> None:
    assert addresses.is_private(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_public_internet_is_not_private(address: str) -> None:
    assert not addresses.is_private(address)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433", "0x7f000001", "0x7f.1", "127.1", "017700000001", "0177.0.0.1", "0", "127.0.0.1.", "127.0.0.2",
        "localhost.", "a.localhost", "printer.local", "db.internal", "router.lan", "nas.home.arpa", "LOCALHOST.",
        "\uff11\uff12\uff17.0.0.1", "\u24db\u24de\u24d2alhost", "10\u30020.0.1", "169.254.43518", "0xa9fea9fe",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]",
        "[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[fe80::1%25eth0]", "[::]",
    ],
)  # fmt: skip
def test_a_private_address_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises(InvalidMessage, match="KNOCKTWICE_WEBHOOK_PRIVATE"):
        addresses.check(f"https://{host}/hooks", private=False)


@pytest.mark.parametrize(
    "host", ["999.1.1.1", "1.2.3.4.5", "0x1ffffffff", "127.0.0.0x", "a..b", "-a.example", "127.0.0.1%00.x"]
)
def test_what_only_looks_like_a_host_is_refused(host: str) -> None:
    with pytest.raises(InvalidMessage):
        addresses.check(f"https://{host}/hooks", private=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.example\\@127.0.0.1/",
        "https://8.8.8.8\\.a.example/",
        "https://8.8.8.8/caf\u00e9",
        "https://u@8.8.8.8/",
    ],
)
def test_an_address_that_two_programs_would_read_differently_is_refused(url: str) -> None:
    with pytest.raises(InvalidMessage):
        addresses.check(url, private=False)


@pytest.mark.parametrize(
    ("url", "called"),
    [
        ("https://8.8.8.8./a?b=c", "https://8.8.8.8/a?b=c"),
        ("https://134744072:8443/", "https://8.8.8.8:8443/"),
        ("https://[2606:4700:4700::1111]:8443/", "https://[2606:4700:4700::1111]:8443/"),
        ("https://b\u00fccher.invalid/x", "https://xn--bcher-kva.invalid/x"),
        ("https://Shop.Invalid./X", "https://shop.invalid/X"),
        ("http://localhost:3000/", "http://localhost:3000/"),
        ("http://127.0.0.1:3000/", "http://127.0.0.1:3000/"),
        ("http://[::1]:3000/", "http://[::1]:3000/"),
    ],
)
def test_what_is_allowed_is_called_by_one_form_of_its_host(url: str, called: str) -> None:
    assert addresses.check(url, private=False) == called
