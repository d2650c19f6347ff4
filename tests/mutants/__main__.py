"""``make mutants``: break the program in small ways, and name those that no test notices."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mutants import mutant as lists
from mutants import own_choice
from mutants.report import Report
from mutants.trial import Scratch, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[2]
_KEPT = Path(__file__).with_name("kept")
_STOREYS = Path(__file__).with_name("storeys.toml")


def main() -> int:
    """Try the mutants that the command line asks for; 1 if one survived or could not be tried, 2 if some are left."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("--only", default="", help="those whose file, promise or tests hold this text")
    parser.add_argument("--seed", type=int, help="instead of the kept list: the tool's own choice, by this seed")
    parser.add_argument("--count", type=int, default=100, help="how many of its own choice")
    parser.add_argument("--limit", type=float, default=100, help="seconds that one test may take")
    parser.add_argument("--results", type=Path, help="a file that keeps the verdicts: what is in it is not tried again")
    parser.add_argument("--within", type=float, default=float("inf"), help="begin none after so many seconds")
    options = parser.parse_args()
    kept = lists.read(_KEPT)
    wanted = kept if options.seed is None else own_choice.choose(_ROOT, _STOREYS, kept, options.seed, options.count)
    wanted = [one for one in wanted if options.only in " ".join((one.file, one.promise, *one.tests))]
    report = Report(options.results)
    _try_all([one for one in wanted if one not in report], report, options.limit, time.monotonic() + options.within)
    print(report.table(wanted))
    if left := sum(one not in report for one in wanted):
        print(f"{left} are left: run it again with the same --results")
    return 1 if report.bad(wanted) else 2 if left else 0


def _try_all(wanted: list[lists.Mutant], report: Report, limit_s: float, until: float) -> None:
    for one in wanted:
        if one.equivalent:
            report.note(one, Verdict.EQUIVALENT)
    wanted = [one for one in wanted if not one.equivalent]
    if not wanted:
        return
    with tempfile.TemporaryDirectory(prefix="knocktwice-mutants-") as folder, _servers(Path(folder)) as home:
        scratch = Scratch(_ROOT, Path(folder) / "tree", home)
        for one in wanted:
            if time.monotonic() > until:
                break
            begun = time.monotonic()
            try:
                verdict, red = scratch.judge(one, limit_s)
            except ValueError as error:
                verdict, red = Verdict.BROKEN, None
                print(error)
            report.note(one, verdict, red)
            took = time.monotonic() - begun
            print(f"{verdict:9} {took:5.1f} s  {one.place}: {one.promise}", flush=True)
        report.confirm(scratch, limit_s)


@contextmanager
def _servers(folder: Path) -> Iterator[Path]:
    """Servers that all trials use, one after the other. They are of the tree as it is, not of the copy."""
    import sqlalchemy as sa

    from knocktwice_worker.database import migrations
    from knocktwice_worker.embedded.servers import EmbeddedServers

    home = folder / "servers"
    with EmbeddedServers(home) as running:
        engine = sa.create_engine(running.database_url)
        migrations.upgrade(engine)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            # Nobody needs these databases after a power failure.
            for name in ("fsync", "synchronous_commit", "full_page_writes"):
                conn.exec_driver_sql(f"ALTER SYSTEM SET {name} = off")
            conn.exec_driver_sql("SELECT pg_reload_conf()")
        engine.dispose()
        yield home


if __name__ == "__main__":
    sys.exit(main())
