"""The choice among several SMS providers: by weight, without those that fail at the moment.

Each message has its own order of providers, calculated from its id, so that every worker makes the same choice. A
provider with too many errors is demoted for all workers. After a pause it gets one message as a probe; if the probe
succeeds, the provider is no longer demoted. Without Redis all providers count as fine.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from importlib import resources
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from knocktwice_shared.records import record
from knocktwice_worker.channels.outcomes import Outcome, Retry, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta

    from redis import Redis

log = structlog.get_logger(__name__)

_SCRIPT = resources.files(__package__).joinpath("provider_health.lua").read_text()


class Why(StrEnum):
    """The reason for the choice of a provider."""

    #: It is the first in the message's own order, which follows the weights.
    WEIGHT = "weight"
    #: The providers before it in the message's order are demoted.
    OTHERS_DEMOTED = "others_demoted"
    #: It is demoted and gets this message as a probe.
    PROBE = "probe"
    #: All providers are demoted, so the first in the message's order gets it.
    ALL_DEMOTED = "all_demoted"


class _Standing(IntEnum):
    """The standing of a provider, in the numbers of the Lua script."""

    #: It gets messages by its weight.
    FINE = 0
    #: It gets no messages, because too many of them failed.
    DEMOTED = 1
    #: It is demoted, and its next message is a probe.
    PROBE = 2


#: Reasons of choices whose outcome decides whether a demoted provider gets messages again.
_DECIDING = {Why.PROBE, Why.ALL_DEMOTED}


@record
class Choice:
    """The choice for one message.

    Attributes:
        provider: the name of the provider.
        why: the reason for the choice; ``None``: the provider was chosen at an earlier try.
    """

    provider: str
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The state of a provider.

    Attributes:
        provider: the name of the provider.
        weight: its configured weight.
        ok: its messages of the last minute that did not fail.
        bad: its messages of the last minute that failed.
        reason: the last failure before it was demoted; ``None``: it is not demoted.
    """

    provider: str
    weight: float
    ok: int
    bad: int
    reason: str | None = None


class Providers:
    """The providers of one installation.

    Args:
        redis: shares the workers' counts.
        weights: provider → weight. A provider with weight 0 gets a message only if no other can send it.
        share: the share of errors in a minute, 0 to 1, from which a provider is demoted.
        sample: the least messages in a minute from which the share is calculated.
        pause: the time without messages for a demoted provider. Each failed probe doubles it, up to ten minutes.
        patience: the longest time that a probe may take.
    """

    def __init__(
        self,
        redis: Redis,
        weights: Mapping[str, float],
        *,
        share: float,
        sample: int,
        pause: timedelta,
        patience: timedelta,
    ) -> None:
        self._redis = redis
        self._weights = dict(weights)
        self._limits = (share, sample, pause.total_seconds())
        self._patience = patience.total_seconds()
        self._script = redis.register_script(_SCRIPT)

    def __len__(self) -> int:
        return len(self._weights)

    def __contains__(self, provider: object) -> bool:
        return provider in self._weights

    def choose(
        self,
        messages: Sequence[tuple[str, str | None, int]],
        avoided: Callable[[str, str], bool] | None = None,
        unable: Callable[[str, str], bool] | None = None,
    ) -> dict[str, Choice]:
        """Choose the providers of a batch.

        Args:
            messages: id, provider (if one was chosen) and number of tries of each message. A message that was tried
                stays with its provider, even a demoted one, because only this provider knows what became of it.
            avoided: says of a message's id and a provider whether it must not go by that one while another is left.
            unable: says of a message's id and a provider whether that one cannot send it; at least one must be able to.
        """
        standings = self._standings(probe=any(not tries for _, _, tries in messages))
        probes = {name for name, standing in standings.items() if standing is _Standing.PROBE}
        chosen: dict[str, Choice] = {}
        for id_, provider, tries in messages:
            if tries and provider is not None:
                chosen[id_] = Choice(provider)
                continue
            order = _left(id_, self._order(id_, unable), avoided)
            fine = [name for name in order if standings[name] is _Standing.FINE]
            if probe := next((name for name in order if name in probes), None):
                probes.remove(probe)
                chosen[id_] = Choice(probe, Why.PROBE)
            elif not fine:
                chosen[id_] = Choice(order[0], Why.ALL_DEMOTED)
            else:
                chosen[id_] = Choice(fine[0], Why.WEIGHT if fine[0] == order[0] else Why.OTHERS_DEMOTED)
        return chosen

    def another(
        self,
        ids: Sequence[str],
        current: Mapping[str, str | None],
        avoided: Callable[[str, str], bool] | None = None,
        unable: Callable[[str, str], bool] | None = None,
    ) -> dict[str, str]:
        """Return another provider that is fine for each message that its provider refused, if there is one."""
        standings = self._standings(probe=False)
        found: dict[str, str] = {}
        for id_ in ids:
            order = _left(id_, self._order(id_, unable), avoided)
            rest = [n for n in order if n != current[id_] and standings[n] is _Standing.FINE]
            if rest:
                found[id_] = rest[0]
        return found

    def note(self, outcomes: Sequence[tuple[str, Why | None, Outcome]]) -> None:
        """Count the outcomes of messages, given as provider, reason of the choice, and outcome."""
        for provider, deciding in sorted({(p, why in _DECIDING) for p, why, _ in outcomes}):
            own = [o for p, why, o in outcomes if (p, why in _DECIDING) == (provider, deciding)]
            # A request for a slower pace, or our own lateness, does not show that a provider fails; such outcomes are
            # not counted.
            counted = [o for o in own if not (isinstance(o, Retry) and (o.too_fast or o.ours))]
            bad = [o.reason for o in counted if isinstance(o, Retry | Unknown)]
            if counted and provider in self._weights:
                self._count(provider, len(counted) - len(bad), bad, deciding=deciding)

    def health(self) -> list[Health]:
        """Return the state of each provider, for ``knocktwice doctor``."""
        found = []
        for name, weight in self._weights.items():
            row = {_said(k): _said(v) for k, v in self._redis.hgetall(_key(name)).items()}
            ok, bad = (sum(int(v) for k, v in row.items() if k.startswith(f"{kind}:")) for kind in ("ok", "bad"))
            found.append(Health(name, weight, ok, bad, row.get("reason") if "down" in row else None))
        return found

    def _count(self, provider: str, ok: int, bad: Sequence[str], *, deciding: bool) -> None:
        reason = bad[-1] if bad else ""
        try:
            args: list[str | float] = ["note", ok, len(bad), reason, int(deciding), *self._limits]
            change = self._script(keys=[_key(provider)], args=args)
        except RedisError as error:
            log.warning("sms provider not counted", provider=provider, error=type(error).__name__)
            return
        if change == 1:
            log.warning("sms provider demoted", provider=provider, reason=reason)
        elif change == 2:
            log.info("sms provider is back", provider=provider)

    def _standings(self, *, probe: bool) -> dict[str, _Standing]:
        names = list(self._weights)
        try:
            keys = [_key(name) for name in names]
            answer = self._script(keys=keys, args=["look", self._patience if probe else 0])
        except RedisError as error:
            log.warning("sms providers not looked at", error=type(error).__name__)
            return dict.fromkeys(names, _Standing.FINE)
        return {name: _Standing(standing) for name, standing in zip(names, answer, strict=True)}

    def _order(self, id_: str, unable: Callable[[str, str], bool] | None) -> list[str]:
        """Return the providers that can send a message, in its own order: each is first as often as its weight says."""
        able = self._weights if unable is None else [name for name in self._weights if not unable(id_, name)]
        return sorted(able, key=lambda name: self._rank(id_, name))

    def _rank(self, id_: str, name: str) -> tuple[bool, float]:
        # Random times with exponential distributions of these rates: each is the smallest with a chance in proportion
        # to its rate.
        digest = hashlib.blake2b(f"{id_}|{name}".encode(), digest_size=8).digest()
        time = -math.log((int.from_bytes(digest) + 1) / (2**64 + 1))
        weight = self._weights[name]
        return weight == 0, time / (weight or 1)


def _left(id_: str, order: list[str], avoided: Callable[[str, str], bool] | None) -> list[str]:
    """Return a message's providers without those that it must not go by; all of them, if none is left."""
    return order if avoided is None else [name for name in order if not avoided(id_, name)] or order


def _key(name: str) -> str:
    return f"knocktwice:{{providers}}:{name}"


def _said(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
