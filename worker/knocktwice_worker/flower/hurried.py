"""The services of Flower's process: as a worker's, but Redis is not waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knocktwice_worker import services as of_this_process
from knocktwice_worker.embedded.installation import connect_redis, state_url

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

#: Seconds that a page waits for an answer of Redis. What it shows comes from PostgreSQL.
_LONGEST_S = 0.8


def services() -> Services:
    """Return them. A Redis that hangs is asked once, and not for long."""
    here = of_this_process.services()
    parts: dict[str, Any] = vars(here)
    if "redis" not in parts:
        parts["redis"] = connect_redis(state_url(here.settings), timeout_s=_LONGEST_S, hurried=True)
    return here
