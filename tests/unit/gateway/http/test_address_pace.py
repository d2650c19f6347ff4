"""How fast one address may ask, by a clock that the test turns."""

from __future__ import annotations

import pytest

from knocktwice_worker.gateway.http import address_pace
from knocktwice_worker.gateway.http.address_pace import AT_ONCE, BURST_S, MOST, AddressPace
from knocktwice_worker.gateway.problems import Problem

#: Its fractions are exact.
PER_S = 8.0


class Now:
    """A clock."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def pace(now: Now) -> AddressPace:
    return AddressPace(PER_S, now)


def _served(pace: AddressPace, address: str, most: int = 1_000) -> int:
    """Ask until it is too much, and return how often it was not."""
    for asked in range(most):
        try:
            pace.enter(address)
        except Problem:
            return asked
        pace.leave(address)
    return most


def test_a_burst_and_then_so_many_a_second_are_served(pace: AddressPace, now: Now) -> None:
    assert _served(pace, "a") == int(BURST_S * PER_S) + 1
    with pytest.raises(Problem) as refused:
        pace.enter("a")
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    now.now += 2
    assert _served(pace, "a") == pytest.approx(2 * PER_S, abs=1)
    now.now += 1_000
    assert _served(pace, "a") == int(BURST_S * PER_S) + 1


def test_addresses_do_not_take_each_others_turns(pace: AddressPace) -> None:
    _served(pace, "a")
    assert _served(pace, "b") == int(BURST_S * PER_S) + 1


def test_what_counts_for_many_is_served_and_paid_for_afterwards(pace: AddressPace, now: Now) -> None:
    pace.enter("a", 1_000)
    with pytest.raises(Problem) as refused:
        pace.enter("a")
    wait_s = int(refused.value.headers["Retry-After"])
    assert wait_s == pytest.approx(1_000 / PER_S - BURST_S, abs=1)
    now.now += wait_s - 1
    with pytest.raises(Problem):
        pace.enter("a")
    now.now += 1
    pace.enter("a")


def test_what_was_given_back_can_be_used_again(pace: AddressPace) -> None:
    _served(pace, "a")
    pace.charge("a", -5)
    assert _served(pace, "a") == 5


def test_requests_that_are_not_answered_yet_are_limited_too() -> None:
    pace = AddressPace(1e9)
    for _ in range(AT_ONCE):
        pace.enter("a")
    with pytest.raises(Problem, match="wait for answers"):
        pace.enter("a")
    pace.enter("b")
    pace.leave("a")
    pace.enter("a")


def test_memory_is_bounded_however_many_addresses_ask(
    pace: AddressPace, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_pace, "MOST", 100)
    _served(pace, "owes")
    for n in range(1_000):
        now.now += 0.01
        pace.enter(f"{n}")
        pace.leave(f"{n}")
        assert pace.remembered <= 101
    # Whoever owes something is not forgotten for that.
    pace.charge("owes", 1_000)
    for n in range(1_000):
        now.now += 0.01
        pace.enter(f"again {n}")
        pace.leave(f"again {n}")
    with pytest.raises(Problem):
        pace.enter("owes")
    # Unless all do.
    for n in range(1_000):
        pace.enter(f"all {n}", 1_000)
        pace.leave(f"all {n}")
        assert pace.remembered <= 101


def test_fifty_thousand_addresses_fit() -> None:
    pace = AddressPace(0.001)
    for n in range(MOST + 1):
        pace.enter(str(n))
        pace.leave(str(n))
    assert pace.remembered <= MOST
