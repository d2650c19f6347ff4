"""The fixtures for applications, in a pytest of an application's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SHOP = """
    from knocktwice import Client, Push

    def ship(order, client):
        return client.notify(user=order, push=Push("On its way", "It arrives at 19:30."), key=f"{order}-shipped")

    def test_shipping_notifies(knocktwice):
        ship("u-17", knocktwice)
        assert knocktwice.assert_notified("u-17").push.title == "On its way"

    def test_a_client_of_the_application_finds_the_broker(knocktwice_broker):
        with Client() as client:
            first = ship("u-17", client)
            assert ship("u-17", client) == first

    def test_each_test_has_an_empty_broker(knocktwice_broker):
        import redis

        assert redis.Redis.from_url(knocktwice_broker).dbsize() == 0
"""


def test_an_applications_tests_need_no_server(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SHOP)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
