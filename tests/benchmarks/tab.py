"""Every page and every search of the tab in Flower, over HTTP, with ten million notifications in the tables."""

from __future__ import annotations

import os
import statistics
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING

import sqlalchemy as sa
from rich.console import Console

from benchmarks import long_history, quick
from benchmarks.history import pending
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.flower.listings import PAGES
from support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROWS = int(os.environ.get("ROWS") or quick.of(200_000, 10_000_000))
#: So many steps wait while the pages are opened.
WAITING = quick.of(5_000, 100_000)
ROUNDS = 5
#: Seconds that no answer may take.
LONGEST_S = 1.0


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures, the slowest page first."""
    database_url = here.database()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    console, start = Console(stderr=True), time.monotonic()
    long_history.fill(
        engine, ROWS, lambda words: console.print(f"{time.monotonic() - start:.0f} s: {words}", style="dim")
    )
    pending(engine, WAITING)
    filled = time.monotonic() - start
    with engine.connect() as conn:
        rows = conn.execute(sa.text("SELECT count(*) FROM notifications")).scalar_one()
        size = conn.execute(sa.text("SELECT pg_size_pretty(pg_database_size(current_database()))")).scalar_one()
        pages = _pages(conn)
    figures.add("notifications", f"{rows:,}", f"{size}; made and counted in {filled:.0f} s", rows=rows)
    with _flower(here, database_url) as url:
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        # The first page opens the connections.
        _took(opener, f"{url}/notifications")
        took = {
            name: [_took(opener, f"{url}/notifications{path}") for _ in range(ROUNDS)] for name, path in pages.items()
        }
    for name, own in sorted(took.items(), key=lambda one: -max(one[1])):
        figures.add(name, f"{max(own):.2f} s", f"{ROUNDS} answers, half of them within {statistics.median(own):.2f} s")
    slowest = max(max(own) for own in took.values())
    figures.add("slowest answer", f"{slowest:.2f} s", f"target: {LONGEST_S:g} s at most", slowest_s=slowest)


def _pages(conn: sa.Connection) -> dict[str, str]:
    """Return what is opened → its path behind the tab's own."""

    def one(query: str, **values: str) -> str:
        return str(conn.execute(sa.text(query), values).scalar_one())

    middle = one("SELECT bench_id(now() - interval '30 days')")
    id_ = one("SELECT id FROM notifications WHERE state = 'texted' AND id > CAST(:id AS uuid) LIMIT 1", id=middle)
    oldest = f"news-{long_history.DAYS}"
    words = {
        "a notification's id": id_,
        "an idempotency key": one("SELECT key FROM notifications WHERE key IS NOT NULL ORDER BY id DESC LIMIT 1"),
        "a provider's id": one("SELECT provider_id FROM deliveries WHERE step = 1 AND notification_id = :id", id=id_),
        "a provider's id that is not there": "SM" + "0" * 32,
        "the user with the most": "user-0",
        "a user with few": "user-99990",
        "a user that is not there": "nobody",
        "the number of the user with the most": one("SELECT number FROM phones WHERE user_id = 'user-0'"),
        "a number given with the call": one("SELECT phone FROM notifications WHERE phone IS NOT NULL LIMIT 1"),
        "a number that is not there": "+16505550199",
        "the largest blast": f"news-{long_history.LARGEST_ON}",
        "the latest blast": "news-1",
        "the oldest blast": oldest,
    }
    found = {f"search: {name}": f"/find?q={urllib.parse.quote(word)}" for name, word in words.items()}
    deep = {
        f"page from the middle on: {name}": f"/find?q={word}&before={middle}"
        for name, word in (
            ("everybody", ""),
            ("the user with the most", "user-0"),
            ("a user with few", "user-99990"),
            ("the oldest blast", oldest),
        )
    }
    lists = {title: f"/{name}" for name, (title, _) in PAGES.items()}
    curves = {
        f"delay curve of {name}": f"/content?template={name}"
        for name in ("t-0", f"t-{long_history.TEMPLATES - 1}", "news")
    }
    return {
        "Now": "",
        "History": "/find",
        "one notification": f"/one/{id_}",
        "Blasts": "/blasts",
        "Switches": "/switches",
        **lists,
        **curves,
        **found,
        **deep,
    }


@contextmanager
def _flower(here: Installation, database_url: str) -> Iterator[str]:
    """Run Flower, and yield its address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    argv = [sys.executable, "-m", "celery", "-A", "knocktwice_worker", "flower", f"--port={port}"]
    child = Child("flower", argv, here.home / "flower.log", env=here.environment(database_url, here.provider.url))
    child.start()
    try:
        here.wait(lambda: _answers(f"{url}/healthcheck"), [child])
        yield url
    finally:
        child.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - our own server
            return True
    except OSError:
        return False


def _took(opener: urllib.request.OpenerDirector, url: str) -> float:
    """Return how long an answer took, with the page behind a redirect."""
    start = time.monotonic()
    try:
        with opener.open(url, timeout=30) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        Console(stderr=True).print(f"{url}: {error}")
    return time.monotonic() - start
