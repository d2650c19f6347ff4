"""Runs the gateway: uvicorn, in one process or several."""

from __future__ import annotations

import logging
import multiprocessing
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any

import uvicorn

from knocktwice_worker import config
from knocktwice_worker.embedded import launch
from knocktwice_worker.gateway.application import create_app
from knocktwice_worker.gateway.http.protocol import BoundedHttpProtocol
from knocktwice_worker.gateway.log_limit import WarningsOncePerMinute
from knocktwice_worker.runtime import error_reports, logs
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from starlette.types import ASGIApp

#: Seconds that requests get to end when the gateway is stopped.
GRACE_S = 20
#: Connections that one process serves at once; whoever comes then is told to come back (503). Fewer, if it may not open
#: as many files.
CONNECTIONS_LIMIT = 2_000
#: Files that one process may need: connections, those that are on their way out, and what it keeps open itself.
FILES = 2 * CONNECTIONS_LIMIT
#: Seconds after which one of several processes that does not answer is taken for dead. Starting counts: on a busy
#: machine that takes longer than uvicorn's five, and each would be ended before it has begun.
HANGS_AFTER_S = 60


def run(host: str, port: int, processes: int) -> None:
    """Serve until SIGTERM or Ctrl-C; requests under way are ended first."""
    logs.configure(as_json=config.load().log_json)
    uvicorn.run(
        "knocktwice_worker.gateway.server:application",
        factory=True,
        host=host,
        port=port,
        workers=processes,
        **OPTIONS | {"limit_concurrency": connections_limit()},
    )


#: Options that are the same for every operator.
OPTIONS: dict[str, Any] = {
    # Paths name users and devices.
    "access_log": False,
    # The setting decides whose X-Forwarded-For is believed (client_address.py).
    "proxy_headers": False,
    "log_config": None,
    "server_header": False,
    "limit_concurrency": CONNECTIONS_LIMIT,
    "timeout_graceful_shutdown": GRACE_S,
    "timeout_worker_healthcheck": HANGS_AFTER_S,
    "http": BoundedHttpProtocol,
    # Else they are taken as soon as a library for them is installed, past all limits.
    "ws": "none",
}


def application() -> ASGIApp:
    """Return the application of this process."""
    _end_with_the_supervisor()
    logs.configure(as_json=config.load().log_json)
    logging.getLogger("uvicorn.error").addFilter(WarningsOncePerMinute())
    error_reports.start(config.load().error_reports_to, "gateway")
    return create_app(services())


def connections_limit() -> int:
    """Raise the limit of open files as far as connections need it; return the connections that it suffices for.

    The default is often 1,024. Without a free file the gateway cannot even answer that a client should come back later.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if most == resource.RLIM_INFINITY else min(FILES, most)
    if allowed != resource.RLIM_INFINITY and allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
        allowed = wanted
    return CONNECTIONS_LIMIT if allowed == resource.RLIM_INFINITY else min(CONNECTIONS_LIMIT, allowed * 3 // 4)


def _end_with_the_supervisor() -> None:
    """End with the parent process: a process that outlives it would keep the port, and could not be stopped."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None or sys.platform != "linux":
        return
    launch.prctl(launch.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor.pid:
        # It died before that.
        sys.exit(1)
