"""Missing delivery reports: fetched from the providers' lists, and given up after a while.

A provider sends each report once, or twice within some seconds; some mobile operators never report. So once a day the
lists of sent messages are read from the providers that have one; the lists also contain prices. Before the delivery of
a message counts as unknown, its provider is asked for this message by its id.
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

    from knocktwice_shared.messages import Category
    from knocktwice_worker.channels.http import Carrier
    from knocktwice_worker.channels.reports import Books, StatusReport

log = structlog.get_logger(__name__)

#: The span that the daily reading covers: one day, and another in case that a reading was missed.
_SPAN = timedelta(days=2)
#: The most messages asked for by id in one request, and in one run.
_AT_ONCE, _MOST = 100, 2_000


@dataclass(frozen=True, kw_only=True)
class DeliveryReports:
    """Fetches missing reports from providers.

    Attributes:
        engine: opens short transactions.
        books: provider → its list of sent messages.
        transport: sends the requests.
        wait: how long a message waits for its report before its arrival counts as unknown.
        useless_after: how long after it was due a message may still go, by category.
    """

    engine: Engine
    books: Mapping[str, Books]
    transport: Carrier
    wait: timedelta
    useless_after: Mapping[Category, timedelta]

    def bring_waiting(self) -> int:
        """Write reports that could not be written when they came; return how many still wait."""
        return provider_reports.bring_and_take_up(self.engine, None, self.useless_after)

    def read_lists(self) -> int:
        """Record the reports in the providers' lists of the last two days; return how many are about our messages."""
        now = self._now()
        taken = 0
        for books in self.books.values():
            for page in books.sent_between(self.transport, now - _SPAN, now):
                taken += self._take_over(page)
        return taken

    def ask_and_close(self) -> None:
        """Fetch overdue reports once more by id, and then stop waiting for them."""
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
        """Record reports about our own messages; return how many those are."""
        if not reports:
            return 0
        with self.engine.begin() as conn:
            mine = store.known_provider_ids(conn, [r.provider_id for r in reports])
            provider_reports.accept(conn, [r for r in reports if r.provider_id in mine])
        provider_reports.bring_and_take_up(self.engine, mine, self.useless_after)
        return len(mine)
