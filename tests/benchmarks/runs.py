"""One run of the full pipeline, ours or another, timed in exactly the same way.

The feeder keeps the queue short and full, as an application with much to say would, and confirms every second push soon
after it was made. So half of the notifications end with a receipt and half with an SMS. The rate is counted in the
database, over the time in which everything is under way at once: from the first SMS until the last notification was
handed over. What was accepted and what has ended in that time are both counted, and the lower of both is the rate: a
queue that grows, or one that is worked off, makes nothing look faster.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import textbook, written
from benchmarks.contestants import COUNTDOWN, Contestant, Ours, Peer, Textbook
from benchmarks.installation import WORKERS, Installation
from benchmarks.meter import Spent, measure
from knocktwice import Client

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.peers import Program
    from benchmarks.written import Written


@dataclass(frozen=True)
class Result:
    """What a run showed.

    Attributes:
        count: notifications.
        per_s: rate while everything was under way.
        total_s: from the first call to the last outcome, the countdown included.
        texted: share that ended with an SMS.
        spent: CPU by role.
        written: what the servers were asked and wrote.
    """

    count: int
    per_s: float
    total_s: float
    texted: float
    spent: Spent
    written: Written

    @property
    def cpu_us(self) -> float:
        """Worker CPU per notification."""
        return self.spent.cpu_us("workers", self.count)

    @property
    def all_us(self) -> float:
        """CPU of all processes per notification, the application and the stand-in included."""
        return self.spent.all_us(self.count)


def run(here: Installation, contestant: Contestant, count: int, engine: sa.Engine) -> Result:
    """Take ``count`` notifications all the way."""
    before = written.look(engine, here.redis, here.home)
    with measure(here.roles(contestant.workers)) as spent:
        started = time.time()
        fed = contestant.feed(count)
        # The ends carry their times, so looking seldom changes no rate; looking often was a quarter of PostgreSQL's
        # work.
        here.wait(lambda: contestant.ended() >= count, contestant.workers, every_s=1)
    spent.cpu_s["application"] = fed.cpu_s
    after = written.look(engine, here.redis, here.home)
    times = contestant.times()
    return Result(
        count=count,
        per_s=_rate(times, started + COUNTDOWN.total_seconds() + 1, fed.until),
        total_s=max(end for _, end, _ in times) - started,
        texted=sum(state == "texted" for _, _, state in times) / count,
        spent=spent,
        written=after.since(before),
    )


def _rate(times: Sequence[tuple[float, float, str]], start: float, end: float) -> float:
    if end - start < 1:
        # Too short to have a middle: the whole run without the wait of the first.
        first, last = min(at for at, _, _ in times), max(at for _, at, _ in times)
        return len(times) / (last - first)
    accepted = sum(start <= at < end for at, _, _ in times)
    ended = sum(start <= at < end for _, at, _ in times)
    return min(accepted, ended) / (end - start)


@dataclass
class Tally:
    """What all runs against one database wrote.

    Attributes:
        notifications: how many there were, those of the warm-up included.
        row_versions: how many row versions; known when the workers have ended.
    """

    notifications: int = 0
    row_versions: int = 0

    @property
    def each(self) -> float:
        """Row versions per notification."""
        return self.row_versions / self.notifications


#: Batches before anything is measured.
WARM_UP = 2 * WORKERS * 8


def ours(
    here: Installation,
    *,
    url: str,
    count: int,
    rounds: int,
    portion: int,
    database_url: str,
    withdraw: bool = False,
    tally: Tally | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Result]:
    """Run knocktwice several times.

    Args:
        withdraw: whether an SMS takes its push off the screen, by one more push; the textbook does not.
        tally: is filled in when all rounds are over.
        settings: variables for the workers, beyond those that every run has.
    """
    env = here.environment(database_url, url) | {"KNOCKTWICE_WITHDRAW": str(withdraw)} | written.counting(here.home)
    env |= settings or {}
    here.empty_the_broker()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    before = written.row_versions(engine) if tally else 0
    warm_up = WARM_UP * portion
    with here.workers("benchmarks.trusting", env=env, count=WORKERS) as workers, Client(here.broker_url) as client:
        # Connections, credentials and compiled templates are made in the first second of a worker's life.
        run(here, Ours(here, database_url, workers, client, portion), warm_up, engine)
        for _ in range(rounds):
            yield run(here, Ours(here, database_url, workers, client, portion), count, engine)
    if tally:
        tally.notifications = warm_up + rounds * count
        tally.row_versions = written.row_versions(engine) - before


def the_textbook(here: Installation, *, url: str, count: int, rounds: int) -> Iterator[Result]:
    """Run the textbook several times."""
    database_url = _textbook_database(here)
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    env = here.environment(database_url, url) | {"TEXTBOOK_COUNTDOWN_S": str(COUNTDOWN.total_seconds())}
    here.empty_the_broker()
    textbook.app.conf.broker_url = here.broker_url
    with here.workers("benchmarks.textbook", "--pool", "prefork", "--concurrency", str(WORKERS), env=env) as workers:
        run(here, Textbook(here, database_url, workers), 20, engine)
        for _ in range(rounds):
            yield run(here, Textbook(here, database_url, workers), count, engine)


def the_peer(here: Installation, program: Program, *, url: str, count: int, warm_up: int) -> Result:
    """Run another library's pipeline once.

    Raises:
        Unavailable: it cannot be had here.
    """
    argv, more = program.install(here.home)
    database_url = _textbook_database(here)
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    env = here.environment(database_url, url) | here.plainly(database_url) | more
    env["TEXTBOOK_COUNTDOWN_S"] = str(COUNTDOWN.total_seconds())
    here.empty_the_broker()
    program.prepare(argv, env)
    with here.processes([*argv, "work"], env=env, count=WORKERS) as workers:
        run(here, Peer(database_url, workers, argv, env), warm_up, engine)
        return run(here, Peer(database_url, workers, argv, env), count, engine)


def _textbook_database(here: Installation) -> str:
    database_url = here.database()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    textbook.Base.metadata.create_all(engine)
    with engine.begin() as conn:
        conn.execute(
            sa.text(
                "INSERT INTO textbook_people (id, token, phone) SELECT p.user_id, d.registration, p.number "
                "FROM phones p JOIN devices d USING (user_id)"
            )
        )
    engine.dispose()
    return database_url
