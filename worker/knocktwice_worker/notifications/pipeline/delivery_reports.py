"""What never called back: asked for in the provider's own books, and given up after a while.

Twilio calls back once, or twice within 15 seconds, and then not again; some operators never report at all. So once a day
its list is read, which also has the prices, and before a message's delivery counts as unknown it is asked for by its id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from knocktwice_worker.channels.http_sms.file import TWILIO
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.notifications.store.provider_statuses import Report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from knocktwice_worker.channels import Carrier
    from knocktwice_worker.channels.twilio.reports import Report as ListedReport
    from knocktwice_worker.channels.twilio.reports import TwilioReports

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
        reports: the provider's books.
        transport: carries the requests.
        wait: how long a message waits for its report before its arrival counts as unknown.
    """

    engine: Engine
    reports: TwilioReports
    transport: Carrier
    wait: timedelta

    def bring_waiting(self) -> int:
        """Bring reports to their deliveries that could not be brought when they came; return how many still wait."""
        with self.engine.begin() as conn:
            return provider_reports.bring(conn)

    def read_list(self) -> int:
        """Take over what the provider's list says of the last two days' messages; return how many of them are ours."""
        with self.engine.connect() as conn:
            now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
        taken = 0
        for page in self.reports.sent_between(self.transport, now - _SPAN, now):
            taken += self._take_over(page, now)
        return taken

    def ask_and_close(self) -> None:
        """Ask once more about messages whose delivery report is overdue, and then wait no longer."""
        with self.engine.connect() as conn:
            now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
            silent = provider_reports.unreported(conn, age=self.wait, limit=_MOST)
        # Other providers have no reports to ask for.
        askable = [id_ for id_, provider in silent.items() if provider in (None, TWILIO)]
        for start in range(0, len(askable), _AT_ONCE):
            some = askable[start : start + _AT_ONCE]
            self._take_over(self.reports.fetch(self.transport, some), now)
        with self.engine.begin() as conn:
            closed = provider_reports.close(conn, self.wait, silent)
        if silent:
            log.info("delivery reports overdue", asked=len(askable), unknown=closed)

    def _take_over(self, reports: Sequence[ListedReport], now: datetime) -> int:
        """Write what the provider says of messages that are ours; return how many those are."""
        if not reports:
            return 0
        with self.engine.begin() as conn:
            mine = store.known_provider_ids(conn, [r.sid for r in reports])
            heard = [_heard(r, now) for r in reports if r.sid in mine]
            provider_reports.accept(conn, heard)
            provider_reports.bring(conn, mine)
        return len(mine)


def _heard(report: ListedReport, now: datetime) -> Report:
    return Report(
        report.sid, ProviderState(report.status), now, report.error, price=report.price, price_unit=report.unit
    )
