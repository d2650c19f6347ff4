"""Runs the gateway: uvicorn, in one process or several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import uvicorn

from knocktwice_worker import config, logs
from knocktwice_worker.gateway import create_app
from knocktwice_worker.gateway.http_protocol import BoundedHttpProtocol
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from fastapi import FastAPI

#: Seconds that requests get to end when the gateway is stopped.
GRACE_S = 20
#: Connections that one process serves at once; whoever comes then is told to come back (503).
CONNECTIONS_LIMIT = 2_000


def run(host: str, port: int, processes: int) -> None:
    """Serve until SIGTERM or Ctrl-C; requests under way are ended first."""
    logs.configure(as_json=config.load().log_json)
    uvicorn.run(
        "knocktwice_worker.gateway.server:application",
        factory=True,
        host=host,
        port=port,
        workers=processes,
        **OPTIONS,
    )


#: What does not depend on who runs it.
OPTIONS: dict[str, Any] = {
    # Paths name users and devices.
    "access_log": False,
    "log_config": None,
    "server_header": False,
    "limit_concurrency": CONNECTIONS_LIMIT,
    "timeout_graceful_shutdown": GRACE_S,
    "http": BoundedHttpProtocol,
}


def application() -> FastAPI:
    """Return the application of this process."""
    logs.configure(as_json=config.load().log_json)
    return create_app(services())
