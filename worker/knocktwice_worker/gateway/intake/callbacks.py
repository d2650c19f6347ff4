"""Providers' callbacks on their way to PostgreSQL, many requests' together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from sqlalchemy.exc import DBAPIError

from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.intake.group_commit import GroupCommit
from knocktwice_worker.notifications.pipeline import receipts, replies
from knocktwice_worker.notifications.store import provider_reports

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: What is written together, and how much may wait.
_AT_ONCE, _MOST_WAITING = provider_reports.LIMIT, 20_000


class CallbackIntake:
    """Takes status reports and inbound texts.

    Args:
        services: where PostgreSQL is.
    """

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._troubles = services.troubles
        self._channels = services.channels
        self._replies_within = services.settings.reply_within
        self._useless_after = services.settings.useless_after
        self._secret = secret(services.settings).encode()
        self._group: GroupCommit[StatusReport | InboundText] = GroupCommit(
            self._write, at_once=_AT_ONCE, most_waiting=_MOST_WAITING
        )

    async def take(self, *ones: StatusReport | InboundText) -> None:
        """Return once they are durable. Repeats are harmless."""
        await self._group.add(ones)

    async def close(self) -> None:
        """Write what waits."""
        await self._group.close()

    def _write(self, items: Sequence[StatusReport | InboundText]) -> None:
        reports = [item for item in items if isinstance(item, StatusReport)]
        with self._engine.begin() as conn:
            texts = [item for item in items if isinstance(item, InboundText)]
            answered = replies.receive(conn, texts, self._secret, self._channels, self._replies_within)
            provider_reports.accept(conn, reports)
        self._troubles.reported(reports)
        try:
            # They are kept. What cannot be brought to its delivery now is brought by the clock.
            mine = {report.provider_id for report in reports}
            provider_reports.bring_and_take_up(self._engine, mine, self._useless_after)
        except DBAPIError as error:
            log.warning("reports kept and not brought yet", reports=len(reports), error=type(error.orig).__name__)
        try:
            # The answers are kept, and every decision reads them. What cannot be ended now ends when it is due.
            receipts.settle(self._engine, answered)
        except DBAPIError as error:
            log.warning("replies kept and not settled yet", replies=len(answered), error=type(error.orig).__name__)
