"""ring and due: each row once per lease, and nothing before its time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_worker.notifications import store
from support.store_book import HOUR, LEASE, Book, batch, ids

if TYPE_CHECKING:
    from support.clock import Clock


def test_a_row_rings_once_per_lease(book: Book, clock: Clock) -> None:
    one = batch("ada", after=7200)
    book.pushed(one)
    clock.advance(timedelta(hours=2, seconds=1))
    assert len(book(store.ring, limit=10, lease=LEASE)[0]) == 1
    assert book(store.ring, limit=10, lease=LEASE)[0] == []
    clock.advance(LEASE)
    assert len(book(store.ring, limit=10, lease=LEASE)[0]) == 1


def test_what_has_waited_longest_rings_first(book: Book, clock: Clock) -> None:
    longest, long, short = (batch("ada", after=after) for after in (60, 120, 180))
    # Their ids do not lie in this order.
    for one in (long, short, longest):
        book.pushed(one)
    clock.advance(timedelta(seconds=200))
    rung = [book(store.ring, limit=1, lease=LEASE)[0][0].notification_id for _ in range(3)]
    assert rung == [*ids(longest), *ids(long), *ids(short)]


def test_a_check_that_comes_early_finds_nothing_due(book: Book, clock: Clock) -> None:
    one = batch("ada", after=7200)
    book.pushed(one)
    clock.advance(timedelta(hours=2) - timedelta(seconds=5))
    assert book(store.due, ids(one)) == []
    clock.advance(timedelta(seconds=5))
    assert len(book(store.due, ids(one))) == 1


def test_concurrent_dispatchers_share_the_rows(book: Book, clock: Clock) -> None:
    many = batch(*["ada"] * 200)
    book.pushed(many)
    clock.advance(HOUR + timedelta(seconds=1))
    with ThreadPoolExecutor(8) as pool:
        rung = list(pool.map(lambda _: book(store.ring, limit=25, lease=LEASE)[0], range(8)))
    got = [str(row.notification_id) for rows in rung for row in rows]
    assert sorted(got) == sorted(ids(many))
