"""Flower's pages with a large history: none of their queries reads as many rows as there are."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import history
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.flower import figures, finding, lanes, listings
from support import plans
from support.crowd import Crowd

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services
    from support.clock import Clock

NUMBER, NOBODYS = "+16505550100", "+16505550199"


def test_no_query_of_a_page_reads_a_whole_table_of_notifications(working: Services, clock: Clock) -> None:
    id_ = str(uuid7())
    wire = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    recipient = {"id": id_, "phone": NUMBER, "key": "order-1"}
    working.pushes.send(parse_batch({**wire, "recipients": [recipient]}))
    Crowd(working, clock).push(2, blast="sale")
    rules = working.settings.phone_rules
    # As many as make PostgreSQL choose as it would with millions.
    history.past(working.engine, 30_000, timedelta(days=2))
    with working.engine.begin() as conn:
        conn.execute(sa.text("ANALYZE"))

    def found(word: str) -> Callable[[Connection], object]:
        return lambda conn: finding.find(conn, word, "", rules)

    pages: dict[str, Callable[[Connection], object]] = {
        "now": lambda conn: figures.now(conn, working),
        "blasts": figures.blasts,
        "switches": lambda conn: figures.standing(conn, working),
        "one": lambda conn: lanes.draw(conn, id_),
        **{
            f"find {word}": found(word)
            for word in ("", id_, "order-1", "u-1", NUMBER, NOBODYS, "sale", "SM" + "0" * 32, "a blast")
        },
        **{name: lambda conn, read=read: read(conn, working) for name, (_, read) in listings.PAGES.items()},  # type: ignore[misc]
    }
    unbounded = {}
    for name, read in pages.items():
        with plans.noted(working.engine) as asked, working.engine.connect() as conn:
            read(conn)
        assert asked or name == "providers", "it asks the broker only"
        with working.engine.connect() as conn:
            unbounded[name] = [(one["Index Name"], one.get("Filter")) for one in plans.unbounded(conn, asked)]
    assert {name: own for name, own in unbounded.items() if own} == {}
    # Half of all notifications are one person's. A page of somebody's ends after about as many rows as it shows.
    with working.engine.begin() as conn:
        conn.execute(sa.text("UPDATE notifications SET user_id = 'many' WHERE CAST(right(user_id, 1) AS integer) < 5"))
        conn.execute(sa.text("ANALYZE notifications"))
    for word in ("many", "nobody", NOBODYS, NUMBER, "sale"):
        with plans.noted(working.engine) as asked, working.engine.connect() as conn:
            found(word)(conn)
        with working.engine.connect() as conn:
            assert plans.rows_read(conn, asked, "notifications") < 500, word
