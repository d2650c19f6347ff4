"""Which provider a message gets, when all are fine: its own, at every worker, and as often as the weights say."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_worker.channels.outbound.provider_choice import Choice, Providers, Why

if TYPE_CHECKING:
    import redis


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
