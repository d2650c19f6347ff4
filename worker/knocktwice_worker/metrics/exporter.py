"""``knocktwice exporter``: the series on a port of their own, for gateways that Prometheus cannot reach."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from knocktwice_worker.metrics.scrape import CONTENT_TYPE, Scrapes

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

#: Seconds that a client may take to ask.
_ASKED_WITHIN_S = 5.0


def server(here: Services, host: str, port: int) -> ThreadingHTTPServer:
    """Return the HTTP server, which listens; serving is the caller's.

    Args:
        port: 0 takes a free one.
    """
    scrapes = Scrapes(here)

    class Handler(BaseHTTPRequestHandler):
        timeout = _ASKED_WITHIN_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] not in ("/metrics", "/"):
                self.send_error(404)
                return
            body = scrapes.text()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: Prometheus asks every few seconds."""

    found = ThreadingHTTPServer((host, port), Handler)
    found.daemon_threads = True
    return found
