"""What never called back: asked for in the provider's own books, and given up after a while.

Twilio calls back once, or twice within 15 seconds, and then not again; some operators never report at all. So once a day
its list is read, which also has the prices, and before a message's delivery counts as unknown it is asked for by its id.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import text

from knocktwice_worker.channels.http_sms.file import TWILIO
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications.store import provider_reports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.channels.twilio.reports import Report
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: How far back the daily look goes: a day, and one more in case that one was missed.
_SPAN = timedelta(days=2)
#: Messages asked for by id at once, and in one run.
_AT_ONCE, _MOST = 100, 2_000


def bring_waiting(services: Services) -> int:
    """Bring reports to their deliveries that could not be brought when they came; return how many still wait."""
    with services.engine.begin() as conn:
        return provider_reports.bring(conn)


def read_list(services: Services) -> int:
    """Take over what the provider's list says of the messages of the last two days; return how many of them are ours."""
    with services.engine.connect() as conn:
        now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    taken = 0
    for page in services.reports.sent_between(services.transport, now - _SPAN, now):
        taken += take_over(services, page, now)
    return taken


def ask_and_close(services: Services) -> None:
    """Ask once more about messages whose delivery report is overdue, and then wait no longer."""
    wait = services.settings.sms_report_wait
    with services.engine.connect() as conn:
        now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
        silent = provider_reports.unreported(conn, age=wait, limit=_MOST)
    # Other providers have no reports to ask for.
    askable = [id_ for id_, provider in silent.items() if provider in (None, TWILIO)]
    for start in range(0, len(askable), _AT_ONCE):
        some = askable[start : start + _AT_ONCE]
        take_over(services, services.reports.fetch(services.transport, some), now)
    with services.engine.begin() as conn:
        closed = provider_reports.close(conn, wait, silent)
    if silent:
        log.info("delivery reports overdue", asked=len(askable), unknown=closed)


def take_over(services: Services, reports: Sequence[Report], now: datetime) -> int:
    """Write what the provider says of messages that are ours; return how many those are."""
    if not reports:
        return 0
    with services.engine.begin() as conn:
        mine = provider_reports.ours(conn, [r.sid for r in reports])
        heard = [_callback(r, now) for r in reports if r.sid in mine]
        provider_reports.accept(conn, heard)
        provider_reports.bring(conn, mine)
    return len(mine)


def _callback(report: Report, now: datetime) -> provider_reports.Callback:
    return provider_reports.Callback(
        report.sid, ProviderState(report.status), now, report.error, price=report.price, price_unit=report.unit
    )
