"""The needs of a day with so many notifications: servers, disks, the bottleneck and the price, from measured figures.

    PYTHONPATH=tests .venv/bin/python -m benchmarks.model
    PYTHONPATH=tests .venv/bin/python -m benchmarks.model --day 200e6 --sms-share 0.02 --core-hour 0.03

First it predicts what was measured and not fitted, and prints by how much it is wrong. ``measured.json`` has the
figures and where they are from. What was never measured is an assumption and an option here; ``--help`` shows all of
them.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: CPU in µs by role.
Cost = dict[str, float]
ROLES = ("workers", "postgres", "valkey", "gateway")
#: Of the measured pipeline: half ends with an SMS, half with a receipt.
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """A figure that was measured, and what the model says without having been fitted to it."""

    what: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """How far off the prediction is, as a share of what was measured."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True, slots=True)
class Stages:
    """CPU of one notification's push, of one receipt over HTTP, and of one SMS.

    The push is measured by a blast and the receipt alone. The SMS is the rest of the pipeline, of which half ends with
    one.
    """

    push: Cost
    receipt: Cost
    sms: Cost

    @classmethod
    def of(cls, cpu: Mapping[str, Cost]) -> Stages:
        """Take the pipeline apart."""
        push, receipt = cpu["blast"], cpu["receipts"]
        sms = {role: (cpu["pipeline"][role] - push[role] - _HALF * receipt[role]) / _HALF for role in ROLES[:3]}
        return cls(push, _plus(receipt, cpu["gateway_receipts_durable"]), sms)

    def each(self, receipts: float, sms: float) -> Cost:
        """Return the CPU of a notification with so many receipts and SMS."""
        return _plus(self.push, _times(self.receipt, receipts), _times(self.sms, sms))


def checks(measured: Mapping[str, Any]) -> list[Check]:
    """Predict what was measured elsewhere than where the model's figures are from."""
    cpu, single, rows = measured["cpu_us"], measured["single"], measured["row_versions"]
    few, now, before = single["batches"], single["now"], single["before"]
    trip = (now["cpu_all_us"] - few["cpu_all_us"]) / (now["round_trips"] - few["round_trips"])
    return [
        Check("CPU with 5,000,000 old notifications", _all(cpu["growth_empty"]), _all(cpu["growth_old"])),
        Check(
            "CPU of a receipt over HTTP that ends a step",
            _all(Stages.of(cpu).receipt),
            _all(cpu["gateway_receipts_ended"]),
        ),
        Check("CPU of the pipeline, in another run", _all(cpu["pipeline"]), _all(cpu["growth_empty"])),
        Check(
            "WAL, as the sum of the statements",
            sum(measured["wal_bytes"]["statements"]),
            measured["wal_bytes"]["measured_idle"],
        ),
        Check("row versions, as counted by hand", sum(rows["parts"].values()), rows["measured_idle"]),
        Check(
            "CPU of single calls with 4 round trips each",
            few["cpu_all_us"] + trip * (before["round_trips"] - few["round_trips"]),
            before["cpu_all_us"],
        ),
    ]


@dataclass(frozen=True, slots=True)
class Plan:
    """The needs of a day.

    Attributes:
        average, peak: notifications a second over the day, and in the peak.
        cores: role → cores at the peak with all zones there.
        cells: how many cells, and which limit decides that.
        bottleneck: the limit that is reached first.
    """

    average: float
    peak: float
    cores: Mapping[str, float]
    cells: int
    bottleneck: str
    wal_mb_s: float
    disk_tb: float


def plan(measured: Mapping[str, Any], given: argparse.Namespace) -> Plan:
    """Return what a day takes."""
    average = given.day / 86_400
    peak = given.day * given.friday * given.peak_hour / 3_600
    each = Stages.of(measured["cpu_us"]).each(given.receipts, given.sms_share)
    # Utilisation leaves room for bursts; a lost zone leaves the others with its work.
    zones = given.zones / (given.zones - 1)
    cores = {role: peak * each.get(role, 0.0) * given.drift / 1e6 / given.utilisation * zones for role in ROLES}
    wal = peak * measured["wal_bytes"]["measured_busy"]
    needs = {
        "PostgreSQL's cores": cores["postgres"] / given.database_cores,
        "Valkey's one core": cores["valkey"] / 1,
        "PostgreSQL's WAL": wal / 1e6 / given.wal_mb_s,
    }
    disk = given.day * given.keep_days * given.row_bytes / 1e12
    needs["PostgreSQL's disk"] = disk / given.database_tb
    decides = max(needs, key=lambda name: needs[name])
    quota = peak * 60 / (given.fcm_per_min * given.fcm_projects)
    bottleneck = f"FCM's quota, {quota:.1f} times over; then {decides}" if quota > 1 else decides
    return Plan(average, peak, cores, max(1, math.ceil(needs[decides])), bottleneck, wal / 1e6, disk)


def refused(found: Plan, given: argparse.Namespace, minutes: float = 20.0) -> tuple[float, float]:
    """Return how many pushes wait after FCM refused for so long, and the minutes until they are gone, at average load.

    The capacity is that of the peak. Pushes wait as rows, so the broker's memory is not used.
    """
    waiting = found.average * minutes * 60
    spare = found.peak / given.utilisation * (given.zones / (given.zones - 1)) - found.average
    return waiting, waiting / spare / 60


def price(found: Plan, given: argparse.Namespace) -> dict[str, float]:
    """Return USD a month by what it is for.

    Servers are there for the peak all the time, with a standby of each database.
    """
    hours = 730
    cores = found.cores["workers"] + found.cores["gateway"] + 2 * (found.cores["postgres"] + found.cores["valkey"])
    return {
        "cores": cores * hours * given.core_hour,
        "disks": 2 * found.disk_tb * 1000 * given.gb_month,
        "SMS": given.day * 30 * given.sms_share * given.sms_price,
    }


def options() -> argparse.ArgumentParser:
    """Return the options. Their defaults are assumptions unless ``measured.json`` has them."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.model", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--measured", type=Path, default=Path(__file__).with_name("measured.json"), help="figures")
    for name, default, meaning in (
        ("--day", 1e9, "notifications a day"),
        ("--friday", 1.5, "a Friday against the average day"),
        ("--peak-hour", 0.10, "share of the day in its busiest hour"),
        ("--receipts", 0.6, "receipts for each notification"),
        ("--sms-share", 0.05, "share that ends with an SMS"),
        ("--utilisation", 0.6, "share of the cores that is used at the peak"),
        ("--drift", 1.25, "how much slower the same machine is in another mood"),
        ("--zones", 3, "zones, one of which may be lost at the peak"),
        ("--database-cores", 32, "cores of a database server; that they scale so far was not measured"),
        ("--wal-mb-s", 200, "WAL that a database's disk and standby take, MB/s"),
        ("--database-tb", 10, "disk of a database server, TB"),
        ("--keep-days", 30, "days for which notifications are kept"),
        ("--row-bytes", 2500, "bytes of a notification in the tables and indexes"),
        ("--fcm-per-min", 600_000, "FCM's quota for a project, by default"),
        ("--fcm-projects", 1, "Firebase projects"),
        ("--core-hour", 0.04, "USD for a core and hour"),
        ("--gb-month", 0.10, "USD for a GB and month"),
        ("--sms-price", 0.0083, "USD for an SMS"),
    ):
        parser.add_argument(name, type=float, default=default, help=meaning)
    return parser


def main(words: Sequence[str] | None = None) -> None:
    """Print the checks, and the day."""
    given = options().parse_args(words)
    measured = json.loads(given.measured.read_text())
    print("predicted and not fitted                       predicted  measured   error")
    for one in checks(measured):
        print(f"  {one.what:44} {one.predicted:9,.1f} {one.measured:9,.1f} {one.error:+7.0%}")
    found = plan(measured, given)
    print(f"\n{given.day:,.0f} a day: {found.average:,.0f}/s on average, {found.peak:,.0f}/s in Friday's busiest hour")
    print(f"  cells {found.cells}; bottleneck: {found.bottleneck}")
    for role, cores in found.cores.items():
        print(
            f"  {role:9} {cores:7,.0f} cores, one zone of {given.zones:.0f} lost included; {cores / found.cells:,.1f} a cell"
        )
    print(f"  WAL at the peak {found.wal_mb_s:,.0f} MB/s, {found.wal_mb_s / found.cells:,.0f} a cell")
    print(f"  disk {found.disk_tb:,.0f} TB for {given.keep_days:.0f} days, {found.disk_tb / found.cells:,.1f} a cell")
    print(f"  lateness of decisions {measured['lateness_p99_s']} s for 99 of 100 while cores are free, as measured")
    waiting, minutes = refused(found, given)
    print(
        f"  FCM refuses for 20 minutes: {waiting / 1e6:,.1f} million pushes wait as rows, gone after {minutes:,.1f} minutes"
    )
    for name, usd in price(found, given).items():
        print(f"  {name:9} {usd:12,.0f} USD a month")


def _plus(*costs: Mapping[str, float]) -> Cost:
    return {role: sum(cost.get(role, 0.0) for cost in costs) for role in ROLES}


def _times(cost: Mapping[str, float], factor: float) -> Cost:
    return {role: value * factor for role, value in cost.items()}


def _all(cost: Mapping[str, float]) -> float:
    return sum(cost.values())


if __name__ == "__main__":
    main()
