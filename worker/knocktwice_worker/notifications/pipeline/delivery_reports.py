"""Reports that never came: asked for in the providers' own books, and given up after a while.

A provider calls back once, or twice within some seconds, and then not again; some operators never report at all. So once a
day the lists of the providers that have one are read, which also have the prices. Before the delivery of a message counts as
unknown, its provider is asked for it by its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import provider_reports

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Engine

    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.reports import Books, StatusReport

log = structlog.get_logger(__name__)

#: How far back the daily look goes: a day, and one more in case that one was missed.
_SPAN = timedelta(days=2)
#: Messages asked for by id at once, and in one run.
_AT_ONCE, _MOST = 100, 2_000


@dataclass(frozen=True, kw_only=True)
class DeliveryReports:
    """Asks providers what became of messages.

    Attributes:
        engine: for short transactions.
        books: provider → its list of what it has sent.
        transport: carries the requests.
        wait: how long a message waits for its report before its arrival counts as unknown.
    """

    engine: Engine
    books: Mapping[str, Books]
    transport: Carrier
    wait: timedelta

    def bring_waiting(self) -> int:
        """Bring reports to their deliveries that could not be brought when they came; return how many still wait."""
        with self.engine.begin() as conn:
            return provider_reports.bring(conn)

    def read_lists(self) -> int:
        """Take over what providers' lists say of the last two days' messages; return how many of them are ours."""
        now = self._now()
        taken = 0
        for books in self.books.values():
            for page in books.sent_between(self.transport, now - _SPAN, now):
                taken += self._take_over(page)
        return taken

    def ask_and_close(self) -> None:
        """Ask once more about messages whose delivery report is overdue, and then wait no longer."""
        now = self._now()
        with self.engine.connect() as conn:
            silent = provider_reports.unreported(conn, age=self.wait, limit=_MOST)
        asked = 0
        for name, books in self.books.items():
            askable = [id_ for id_, provider in silent.items() if provider == name]
            asked += len(askable)
            for start in range(0, len(askable), _AT_ONCE):
                self._take_over(books.fetch(self.transport, askable[start : start + _AT_ONCE], now))
        with self.engine.begin() as conn:
            closed = provider_reports.close(conn, self.wait, silent)
        if silent:
            log.info("delivery reports overdue", asked=asked, unknown=closed)

    def _now(self) -> datetime:
        with self.engine.connect() as conn:
            now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
        return now

    def _take_over(self, reports: Sequence[StatusReport]) -> int:
        """Write what a provider says of messages that are ours; return how many those are."""
        if not reports:
            return 0
        with self.engine.begin() as conn:
            mine = store.known_provider_ids(conn, [r.provider_id for r in reports])
            provider_reports.accept(conn, [r for r in reports if r.provider_id in mine])
            provider_reports.bring(conn, mine)
        return len(mine)
