"""The log of an outage: its beginning and its end, not every attempt in between."""

from __future__ import annotations

import structlog

log = structlog.get_logger(__name__)


class Outage:
    """Whether the work of one thread fails at present.

    Args:
        work: the log's name for the work.
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._logged: tuple[str, str | None] | None = None

    def failed(self, error: Exception, reason: str | None = None) -> None:
        """Log an error, unless it is the one that was logged last.

        Args:
            reason: the error's text, if it has no personal data. Without one only the kind of the error is logged.
        """
        kind = type(error).__name__, reason
        if kind != self._logged:
            log.error("work stumbled; it is tried again and again", work=self._work, error=kind[0], reason=reason)
            self._logged = kind

    def worked(self) -> None:
        """Log that an outage is over, if there was one."""
        if self._logged:
            log.info("work goes on", work=self._work)
            self._logged = None
