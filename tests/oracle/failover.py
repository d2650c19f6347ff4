"""``make failover OF=database|broker TIMES=20``: the server that all work with is lost under load, another takes its
place.

Again and again, each time until all is as before. Then the judge says what was lost or done twice, and the provider's
books say how long nothing new arrived. ``LOOSE=1`` shows what it costs not to wait for replicas; it fails for nothing.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from knocktwice_shared.names import INBOX_MESSAGES
from oracle import scenes
from oracle.callers import Callers
from oracle.faults import Faults
from oracle.gathering import gather
from oracle.judge import count, judge
from oracle.records import Book, Fault, Rules
from oracle.replicated import ReplicatedBroker, ReplicatedDatabase
from oracle.storm import IMPATIENT, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from oracle.installation import Installation
    from oracle.records import Evidence
    from oracle.violations import Finding

#: What can be lost, and within how many seconds something new has to arrive again.
OF: dict[str, tuple[type[ReplicatedDatabase | ReplicatedBroker], float]] = {
    "database": (ReplicatedDatabase, 30),
    "broker": (ReplicatedBroker, 15),
}
#: Traffic before each loss and behind the last; how long who decides takes to notice a lost database (Sentinel takes
#: its own time); the longest that anything may take (seconds).
_CALM_S, _NOTICED_S, _LIMIT_S = 4, 3, 90
#: Messages that wait on an ordinary day.
_FEW = 5
#: How far behind replicas are that nobody waits for.
_LAG_S = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the failovers showed.

    Attributes:
        pauses: of each, seconds from the loss until the provider was asked for something that a caller wanted after it.
    """

    evidence: Evidence
    findings: list[Finding]
    pauses: list[float]
    settled: bool


def fail_over(of: str, home: Path, *, times: int, seed: int, per_s: float = 8, synchronous: bool = True) -> Outcome:
    """Lose a server so many times under traffic. Call it from the main thread.

    Args:
        of: a key of :data:`OF`.
        home: an empty folder, in which the evidence stays.
        per_s: scenes each second.
        synchronous: nothing counts before a replica has it.
    """
    rules = Rules(per_day=4)
    with OF[of][0](home, IMPATIENT, seed=seed, synchronous=synchronous) as here:
        log, over = Book(here.log), threading.Event()
        callers = Callers(here.broker_url, here.gateway_url, here.key, log, durability=here.durability)
        traffic = scenes.Traffic(callers, seed, per_s=per_s, over=over)
        traffic.start()
        try:
            for _ in range(times):
                _lose_once(here, of, log, lag=not synchronous)
            _look_until(here, lambda: False, within=_CALM_S)
        finally:
            over.set()
            _look_until(here, lambda: not traffic.is_alive(), within=_LIMIT_S)
            traffic.finish()
        settled = settle(here, Faults(here, log, []), within=2 * rules.recovery_s + 30)
        callers.close()
        here.await_gateway()
        evidence = gather(here, rules, settled=settled)
    return Outcome(evidence, judge(evidence), pauses(evidence), settled)


def pauses(evidence: Evidence) -> list[float]:
    """Return how long after each fault the provider was asked for something that a caller wanted after it (seconds)."""
    asked_at: dict[str, float] = {}
    for call in evidence.notifies:
        asked_at[call.token] = min(call.asked_at, asked_at.get(call.token, call.asked_at))
    arrived = [(push.at, asked_at[push.token]) for push in evidence.pushes if push.token in asked_at]
    arrived += [(text.at, asked_at[text.token]) for text in evidence.texts if text.token in asked_at]
    return [
        min((at for at, wanted in arrived if wanted > fault.at), default=evidence.ended_at) - fault.at
        for fault in evidence.faults
    ]


def _lose_once(here: ReplicatedDatabase | ReplicatedBroker, of: str, log: Book, *, lag: bool) -> None:
    _look_until(here, lambda: False, within=_CALM_S)
    # What waited for the last one is worked off first, or the losses would add up.
    _look_until(here, lambda: here.redis.hlen(INBOX_MESSAGES) <= _FEW, within=_LIMIT_S)
    at = time.time()
    if lag:
        here.lag()
        _look_until(here, lambda: False, within=_LAG_S)
    here.lose()
    if isinstance(here, ReplicatedDatabase):
        _look_until(here, lambda: False, within=_NOTICED_S)
    if not _look_until(here, here.replaced, within=_LIMIT_S):
        raise TimeoutError(f"nobody took the place of the {of}\n{here.tails()}")
    here.restore()
    if not _look_until(here, here.followed, within=_LIMIT_S):
        raise TimeoutError(f"nobody follows the {of}\n{here.tails()}")
    log.write(Fault(at, time.time(), f"the {of} is lost"))


def _look_until(here: Installation, seen: Callable[[], bool], *, within: float) -> bool:
    """Start again what dies until something is seen or the time is over; return whether it was seen."""
    end = time.monotonic() + within
    while not (found := seen()) and time.monotonic() < end:
        here.look()
        time.sleep(0.05)
    return found


def main() -> int:
    """Run it from a command line."""
    options = argparse.ArgumentParser(prog="python -m oracle.failover", description=__doc__)
    options.add_argument("--of", choices=OF, default="database")
    options.add_argument("--times", type=int, default=20)
    options.add_argument("--seed", type=int)
    options.add_argument("--per-s", type=float, default=8, help="scenes each second")
    options.add_argument(
        "--loose", action="store_true", help="nobody waits for replicas: what is lost that lag a second?"
    )
    given = options.parse_args()
    seed = random.randrange(10**6) if given.seed is None else given.seed
    home = Path(tempfile.mkdtemp(prefix="knocktwice-failover-"))
    print(
        f"make failover OF={given.of} TIMES={given.times} SEED={seed}" + (" LOOSE=1" if given.loose else ""), flush=True
    )
    shown = fail_over(given.of, home, times=given.times, seed=seed, per_s=given.per_s, synchronous=not given.loose)
    print(f"evidence: {home}; settled: {shown.settled}; {len(shown.evidence.notifies)} calls to notify")
    for violation, number in count(shown.findings).items():
        print(f"  {violation:20} {number:5}")
    for finding in shown.findings[:20]:
        print(f"      {finding.violation} {finding.who}: {finding.story}")
    limit = OF[given.of][1]
    print(f"  on again after {', '.join(f'{pause:.1f}' for pause in shown.pauses)} s; {limit:g} s at most")
    return int(not given.loose and (bool(shown.findings) or max(shown.pauses) > limit))


if __name__ == "__main__":
    sys.exit(main())
