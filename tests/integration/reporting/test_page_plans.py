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

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from knocktwice_worker.services import Services

NUMBER = "+16505550100"


def test_no_query_of_a_page_reads_a_whole_table_of_notifications(working: Services) -> None:
    id_ = str(uuid7())
    wire = {"v": 1, "id": str(uuid7()), "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    recipient = {"id": id_, "phone": NUMBER, "key": "order-1"}
    working.pushes.send(parse_batch({**wire, "recipients": [recipient]}))
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
        **{f"find {word}": found(word) for word in ("", id_, "order-1", "u-1", NUMBER, "SM" + "0" * 32, "a blast")},
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
