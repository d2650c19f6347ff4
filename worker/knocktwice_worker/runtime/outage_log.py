"""The log of an outage: its beginning and its end, without the attempts in between."""

from __future__ import annotations

import structlog

log = structlog.get_logger(__name__)


class Outage:
    """Logs whether the work of one thread fails at present.

    Args:
        work: the log's name for the work.
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._logged: tuple[str, str | None] | None = None

    def failed(self, error: Exception, reason: str | None = None) -> None:
        """Log an error, unless it is the same as the last one.

        Args:
            reason: the error's text, if it contains no personal data. Without it only the error's type is logged.
        """
        kind = type(error).__name__, reason
        if kind != self._logged:
            log.error("work stumbled; it is tried again and again", work=self._work, error=kind[0], reason=reason)
            self._logged = kind

    def worked(self) -> None:
        """Log the end of an outage, if there was one."""
        if self._logged:
            log.info("work goes on", work=self._work)
            self._logged = None
