"""Checks of the fleet: what the running workers say of themselves, not what this environment would have them be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.names import Queue
from knocktwice_worker import config
from knocktwice_worker.diagnosis.check import Finding, Level
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.fleet import members
from knocktwice_worker.fleet.fingerprints import differences, fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from knocktwice_worker.fleet.members import Member
    from knocktwice_worker.services import Services

#: Seconds by which clocks may differ before it is a warning, and an error: leases and tokens rely on them.
_DIFFERS_S, _FAR_S = 2.0, 60.0
_NONE = "no worker announces itself; start one: celery -A knocktwice_worker worker"


def of_role(here: Services, role: str) -> tuple[list[Member], list[Member]]:
    """Return the members of a role that live, and those that fell silent within the last hour."""
    found = [one for one in members.list_all(here.redis) if one.role == role]
    return [one for one in found if not one.gone], [one for one in found if one.gone]


def there(here: Services) -> Finding:
    """Whether workers run, and whether all that ran go on."""
    alive, gone = of_role(here, "worker")
    if not alive:
        return Level.ERROR, _NONE
    versions = sorted({one.version for one in alive})
    found = f"{_workers(alive)}, version {' and '.join(versions)}"
    if gone:
        silent = ", ".join(f"{one.name} for {one.age_s} s" for one in gone[:5])
        return Level.WARNING, f"{found}; silent, and not stopped in order: {silent}"
    if len(versions) > 1:
        return Level.WARNING, f"{found}; fine while an upgrade runs"
    return Level.OK, found


def queues(here: Services) -> Finding:
    """Whether each queue has a worker."""
    alive, _ = of_role(here, "worker")
    if not alive:
        return Level.ERROR, f"no queue is served: {_NONE}"
    serving = {queue: sum(queue.value in one.queues for one in alive) for queue in Queue}
    if unserved := [queue.value for queue, count in serving.items() if not count]:
        served = [queue.value for queue, count in serving.items() if count]
        also = f" (only {_listed(served)})" if served else ""
        return Level.ERROR, f"no worker serves {_listed(unserved)}{also}; start one with -Q {','.join(unserved)}"
    return Level.OK, "each is served, by " + ", ".join(f"{queue.value} {count}" for queue, count in serving.items())


def settings(here: Services) -> Finding:
    """Whether all workers work with the same settings, and this environment with theirs."""
    alive, _ = of_role(here, "worker")
    if not alive:
        return Level.WARNING, "nothing to compare with: no worker announces itself"
    among = sorted({name for one in alive for name in differences(alive[0].settings, one.settings)})
    if among:
        return (
            Level.ERROR,
            f"workers differ from each other in {_variables(among)}; give all of them the same environment",
        )
    ours = differences(alive[0].settings, fingerprints(here.settings, secret(here.settings)))
    if ours:
        return Level.OK, f"all workers agree; this shell differs in {_variables(ours)}, and what workers have counts"
    return Level.OK, "all workers agree, and this shell with them"


def clocks(here: Services) -> Finding:
    """Whether the clocks of workers and database agree."""
    alive, _ = of_role(here, "worker")
    known = [one for one in alive if one.ahead_s is not None]
    if not known:
        return Level.WARNING, "no worker could compare its clock with the database's"
    worst = max(known, key=lambda one: abs(one.ahead_s or 0))
    by = worst.ahead_s or 0.0
    if abs(by) < _DIFFERS_S:
        return Level.OK, f"workers and database differ by {abs(by):.1f} s at most"
    level = Level.ERROR if abs(by) >= _FAR_S else Level.WARNING
    direction = "ahead of" if by > 0 else "behind"
    return level, f"the clock of {worst.name} is {abs(by):.0f} s {direction} the database's; let NTP set both"


def beat(here: Services) -> Finding:
    """Whether beat runs, which starts recurring work."""
    alive, gone = of_role(here, "beat")
    if alive:
        return Level.OK, f"{len(alive)} running"
    silent = f" (silent for {gone[0].age_s} s)" if gone else ""
    return Level.WARNING, (
        f"none announces itself{silent}; without it nothing old is deleted, no report is fetched and no recurring blast "
        "starts: celery -A knocktwice_worker beat"
    )


def _workers(alive: Sequence[Member]) -> str:
    return f"{len(alive)} worker{'s' if len(alive) > 1 else ''}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def _variables(names: Iterable[str]) -> str:
    return _listed([config.variable(name) for name in names])
