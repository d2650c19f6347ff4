"""Which provider a message gets, when all are fine: its own, at every worker, and as often as the weights say."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.channels.outbound.provider_choice import Choice, Providers, Why
from knocktwice_worker.channels.outcomes import Rejected, Retry, Sent, Unknown
from support.redis_clock import RedisClock

if TYPE_CHECKING:
    import redis

    from knocktwice_worker.channels.outcomes import Outcome

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def _providers(valkey: redis.Redis, **weights: float) -> Providers:
    return Providers(valkey, weights, share=0.5, sample=10, pause=timedelta(minutes=1), patience=timedelta(minutes=1))


def test_seventy_to_thirty(valkey: redis.Redis) -> None:
    ids = [f"0193-{n}" for n in range(4000)]
    chosen = _providers(valkey, twilio=70, acme=30).choose([(i, None, 0) for i in ids])
    share = sum(one.provider == "acme" for one in chosen.values()) / len(ids)
    assert 0.27 < share < 0.33
    assert {one.why for one in chosen.values()} == {Why.WEIGHT}


def test_every_worker_makes_the_same_choice(valkey: redis.Redis) -> None:
    asked = [(f"0193-{n}", None, 0) for n in range(50)]
    assert _providers(valkey, twilio=1, acme=1).choose(asked) == _providers(valkey, acme=1, twilio=1).choose(
        asked[::-1]
    )


def test_another_weight_moves_only_as_many_as_it_must(valkey: redis.Redis) -> None:
    asked = [(f"0193-{n}", None, 0) for n in range(2000)]
    before = _providers(valkey, twilio=70, acme=30).choose(asked)
    after = _providers(valkey, twilio=80, acme=30).choose(asked)
    assert not [i for i, one in after.items() if one.provider == "acme" and before[i].provider == "twilio"]


def test_who_has_no_weight_gets_nothing_while_another_is_there(valkey: redis.Redis) -> None:
    chosen = _providers(valkey, twilio=100, acme=0).choose([(str(n), None, 0) for n in range(500)])
    assert {one.provider for one in chosen.values()} == {"twilio"}


def test_what_was_tried_stays_where_it_is(valkey: redis.Redis) -> None:
    assert _providers(valkey, acme=1).choose([("a", "gone", 1)]) == {"a": Choice("gone")}


def _note(providers: Providers, *outcomes: Outcome, why: Why = Why.WEIGHT) -> None:
    providers.note([("acme", why, one) for one in outcomes])


def _chosen(providers: Providers) -> list[Why | None]:
    """Return why three messages, one after the other, go to the one provider that there is."""
    return [providers.choose([(str(n), None, 0)])[str(n)].why for n in range(3)]


def _reason(providers: Providers) -> str | None:
    (health,) = providers.health()
    return health.reason


def _demoted(providers: Providers) -> bool:
    return _reason(providers) is not None


@pytest.mark.parametrize(
    ("ok", "bad", "demoted"), [(4, 5, False), (5, 5, True), (6, 5, False), (0, 10, True), (10, 0, False), (0, 9, False)]
)
def test_half_of_ten_is_enough_to_be_demoted(valkey: redis.Redis, ok: int, bad: int, demoted: bool) -> None:
    providers = _providers(valkey, acme=1)
    _note(providers, *[Sent("1")] * ok, *[Unknown("timeout")] * bad)
    assert _reason(providers) == ("timeout" if demoted else None)


def test_who_is_asked_to_be_patient_or_refuses_a_number_does_not_fail(valkey: redis.Redis) -> None:
    providers = _providers(valkey, acme=1)
    _note(providers, *[Retry("busy", too_fast=True)] * 20, *[Retry("late", ours=True)] * 20)
    _note(providers, *[Rejected("invalid_number")] * 20)
    (health,) = providers.health()
    assert (health.ok, health.bad, health.reason) == (20, 0, None)


@pytest.mark.parametrize(("later", "demoted"), [(40, True), (60, False)])
def test_errors_count_for_a_minute(valkey: redis.Redis, later: int, demoted: bool) -> None:
    providers = _providers(valkey, acme=1)
    _note(providers, *[Retry("broken")] * 9)
    RedisClock(valkey).advance(later * SECOND)
    _note(providers, Retry("broken"))
    assert _demoted(providers) is demoted


def test_successes_of_long_ago_hide_no_errors(valkey: redis.Redis) -> None:
    providers, clock = _providers(valkey, acme=1), RedisClock(valkey)
    _note(providers, *[Sent("1")] * 90)
    for _ in range(6):
        # Something comes in between, so that the key is not forgotten.
        clock.advance(10 * SECOND)
        _note(providers, Retry("broken"), Retry("broken"))
    assert _demoted(providers)


def test_a_demoted_provider_is_probed_by_one_message_at_a_time_after_its_pause(valkey: redis.Redis) -> None:
    providers, clock = _providers(valkey, acme=1), RedisClock(valkey)
    _note(providers, *[Retry("broken")] * 10)
    # However many went well that had been under way before.
    _note(providers, *[Sent("1")] * 50)
    assert _chosen(providers) == [Why.ALL_DEMOTED] * 3
    clock.advance(50 * SECOND)
    assert _chosen(providers) == [Why.ALL_DEMOTED] * 3
    clock.advance(10 * SECOND)
    assert _chosen(providers) == [Why.PROBE, Why.ALL_DEMOTED, Why.ALL_DEMOTED]
    # Its sender died with the probe: after its time another one may try.
    clock.advance(50 * SECOND)
    assert _chosen(providers) == [Why.ALL_DEMOTED] * 3
    clock.advance(10 * SECOND)
    assert _chosen(providers)[0] is Why.PROBE
    _note(providers, Sent("1"), why=Why.PROBE)
    assert not _demoted(providers)
    assert _chosen(providers) == [Why.WEIGHT] * 3


def test_each_failed_probe_doubles_the_pause_up_to_ten_minutes(valkey: redis.Redis) -> None:
    providers, clock = _providers(valkey, acme=1), RedisClock(valkey)
    _note(providers, *[Retry("broken")] * 10)
    for minutes in (1, 2, 4, 8, 10, 10):
        clock.advance(minutes * MINUTE - 10 * SECOND)
        assert _chosen(providers) == [Why.ALL_DEMOTED] * 3
        clock.advance(10 * SECOND)
        assert _chosen(providers)[0] is Why.PROBE
        _note(providers, Unknown("still broken"), why=Why.PROBE)
        (health,) = providers.health()
        assert health.reason == "still broken"


def test_after_a_probe_that_failed_the_next_one_waits_for_the_pause_alone(valkey: redis.Redis) -> None:
    providers = Providers(valkey, {"acme": 1}, share=0.5, sample=10, pause=MINUTE, patience=30 * MINUTE)
    clock = RedisClock(valkey)
    _note(providers, *[Retry("broken")] * 10)
    for minutes in (1, 2):
        clock.advance(minutes * MINUTE)
        assert _chosen(providers)[0] is Why.PROBE
        _note(providers, Retry("broken"), why=Why.PROBE)


def test_a_provider_that_nobody_used_for_a_day_counts_as_fine_again(valkey: redis.Redis) -> None:
    providers, clock = _providers(valkey, acme=1), RedisClock(valkey)
    _note(providers, *[Retry("broken")] * 10)
    clock.advance(timedelta(hours=23))
    assert _demoted(providers)
    clock.advance(timedelta(hours=2))
    assert not _demoted(providers)
    assert not valkey.keys("*")


def test_without_a_message_that_may_be_a_probe_none_is_taken(valkey: redis.Redis) -> None:
    providers, clock = _providers(valkey, acme=1), RedisClock(valkey)
    _note(providers, *[Retry("broken")] * 10)
    clock.advance(MINUTE)
    assert providers.choose([("a", "acme", 1)]) == {"a": Choice("acme")}
    assert providers.another(["a"], {"a": "twilio"}) == {}
    assert _chosen(providers)[0] is Why.PROBE


def test_another_provider_is_one_that_works_and_not_the_one_that_refused(valkey: redis.Redis) -> None:
    providers = _providers(valkey, acme=1, twilio=1, zeta=1)
    _note(providers, *[Retry("broken")] * 10)
    ids = [str(n) for n in range(50)]
    assert set(providers.another(ids, dict.fromkeys(ids, "twilio")).values()) == {"zeta"}
