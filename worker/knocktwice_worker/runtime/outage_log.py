"""What a worker's threads log of an outage: its beginning and its end, not every attempt in between."""

from __future__ import annotations

import structlog

log = structlog.get_logger(__name__)


class Outage:
    """Whether a thread's work fails at present, for one thread.

    Args:
        work: what the log calls it.
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._told: tuple[str, str | None] | None = None

    def failed(self, error: Exception, reason: str | None = None) -> None:
        """Log an error, unless it is the one that was logged last.

        Args:
            reason: of an error whose text has no personal data; of all others only the kind is logged.
        """
        kind = type(error).__name__, reason
        if kind != self._told:
            log.error("work stumbled; it is tried again and again", work=self._work, error=kind[0], reason=reason)
            self._told = kind

    def worked(self) -> None:
        """Log that an outage is over, if there was one."""
        if self._told:
            log.info("work goes on", work=self._work)
            self._told = None
