"""A storm: the whole system under traffic and faults for a while, then quiet, then judgement."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import sqlalchemy as sa
from redis import RedisError

from oracle import scenes
from oracle.callers import Callers
from oracle.faults import Faults, plan
from oracle.gathering import ended, gather, measure, unsettled
from oracle.installation import Installation
from oracle.judge import judge
from oracle.records import Book, Evidence, Rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oracle.violations import Finding

#: Everything that recovers does so within seconds, and a number's limit is soon reached.
IMPATIENT = {
    "KNOCKTWICE_TICK_S": "0.2",
    "KNOCKTWICE_LEASE_S": "6",
    "KNOCKTWICE_INBOX_GRACE_S": "2",
    "KNOCKTWICE_SMS_UNKNOWN_GRACE_S": "15",
    "KNOCKTWICE_PROVIDER_TIMEOUT_S": "1.8",
    "KNOCKTWICE_SMS_PER_DAY": "4",
    "KNOCKTWICE_CONCURRENCY": "16",
}
#: What operators have who set nothing, and how long the lease is then.
DEFAULTS: dict[str, str] = {}
_DEFAULT_LEASE_S, _LEASE_S = 60, 6
#: How often faults, parts and figures are looked after, and how long it must be quiet (seconds).
_GLANCE_S, _MEASURE_S, _QUIET_S = 0.05, 5, 3


@dataclass(frozen=True, slots=True)
class Weather:
    """What kind of storm.

    Attributes:
        seconds: how long traffic and faults last.
        faults: how many there are.
        per_s: scenes each second; most have one or two notifications.
        crowd: people in one call for many, on average.
        kinds: of faults, by name; none: all.
        impatient: recovery within seconds; otherwise the settings are those of operators who set nothing.
    """

    seed: int
    seconds: float
    faults: int
    per_s: float = 8
    crowd: int = 20
    workers: int = 2
    impatient: bool = True
    kinds: tuple[str, ...] = ()

    @property
    def rules(self) -> Rules:
        """What is right under these settings."""
        return Rules(per_day=4) if self.impatient else Rules(late_s=30, recovery_s=300)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a storm showed."""

    evidence: Evidence
    findings: list[Finding]
    settled: bool


def rage(weather: Weather, home: Path) -> Outcome:
    """Let it rage. Call it from the main thread.

    Args:
        home: an empty folder, in which the evidence stays.
    """
    settings, lease_s = (IMPATIENT, _LEASE_S) if weather.impatient else (DEFAULTS, _DEFAULT_LEASE_S)
    with Installation(home, settings, workers=weather.workers, seed=weather.seed) as here:
        log = Book(here.log)
        callers = Callers(here.broker_url, here.gateway_url, here.key, log, crowd=weather.crowd)
        over = threading.Event()
        traffic = scenes.Traffic(callers, weather.seed, per_s=weather.per_s, over=over)
        planned = plan(
            weather.seed,
            weather.seconds,
            weather.faults,
            lease_s=lease_s,
            workers=weather.workers,
            kinds=weather.kinds,
        )
        faults = Faults(here, log, planned)
        traffic.start()
        try:
            _look_after(here, faults, log, seconds=weather.seconds, also_while=lambda: False)
            over.set()
            faults.end()
            here.mend()
            # Scenes that have begun are played to their end, and what died comes back meanwhile.
            _look_after(here, faults, log, seconds=0, also_while=traffic.is_alive)
        finally:
            over.set()
            traffic.finish()
        settled = settle(here, faults, within=2 * weather.rules.recovery_s + 30)
        faults.close()
        callers.close()
        here.await_gateway()
        evidence = gather(here, weather.rules, settled=settled)
    return Outcome(evidence, judge(evidence), settled)


def _look_after(
    here: Installation, faults: Faults, log: Book, *, seconds: float, also_while: Callable[[], bool]
) -> None:
    end, measured_at = time.monotonic() + seconds, 0.0
    while time.monotonic() < end or also_while():
        faults.look()
        here.look()
        if time.monotonic() - measured_at > _MEASURE_S:
            measured_at = time.monotonic()
            for sample in measure(here):
                log.write(sample)
        time.sleep(_GLANCE_S)


def settle(here: Installation, faults: Faults, *, within: float) -> bool:
    """Wait until nothing has been left to do for a while; return whether that came about.

    Args:
        within: seconds in which something must have been done, or it is given up.
    """
    left, done, since, quiet_since = math.inf, -1, time.monotonic(), None
    while time.monotonic() - since < within:
        here.look()
        faults.look()
        try:
            found = unsettled(here)
            # One message may become hundreds of rows, so less is not always left when something was done.
            ends = ended(here)
        except (sa.exc.DBAPIError, RedisError, httpx.HTTPError):
            found, ends = None, done
        now = time.monotonic()
        if found is not None and (found < left or ends > done):
            left, done, since = min(found, left), ends, now
        quiet_since = (quiet_since or now) if found == 0 else None
        if quiet_since is not None and now - quiet_since > _QUIET_S:
            return True
        time.sleep(0.2)
    return False
