"""Where a provider's status callbacks arrive, for tests of what follows from them: no signatures, just the rows."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from knocktwice_worker import statuses
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.statuses import StatusReport
from system import eventually

if TYPE_CHECKING:
    from typing import Self

    from sqlalchemy import Engine


class Callbacks:
    """Listens on this machine and records what it hears."""

    def __init__(self, engine: Engine) -> None:
        callbacks = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
                query = parse_qs(urlsplit(self.path).query)
                callbacks.hear({k: v[0] for k, v in form.items()}, query["intent"][0])
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._engine = engine
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def hear(self, form: dict[str, str], intent: str) -> None:
        """Record one callback, as soon as no sender holds its message any more."""
        notification, _, step = intent.partition(".")
        report = StatusReport(
            provider_id=form["MessageSid"],
            status=ProviderState(form["MessageStatus"]),
            at=datetime.now(UTC),
            error=int(form["ErrorCode"]) if "ErrorCode" in form else None,
            intent=(notification, int(step)),
        )
        eventually(lambda: self._recorded(report))

    def _recorded(self, report: StatusReport) -> bool:
        with self._engine.begin() as conn:
            return not statuses.record(conn, [report])

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
