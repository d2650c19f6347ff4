"""An application that is told by webhooks: a real HTTP server that keeps what it hears."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self


@dataclass
class WebhookReceiver:
    """Takes webhooks, or does not: ``answer`` decides by the event.

    Attributes:
        taken: ids and bodies of those it answered with a 2xx, in the order in which they came.
        seen: headers and bodies of all.
    """

    answer: Callable[[Mapping[str, Any]], int] = lambda _: 204
    taken: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        application = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                application.seen.append(({k.lower(): v for k, v in self.headers.items()}, body))
                told = json.loads(body)
                code = application.answer(told)
                if 200 <= code < 300:
                    application.taken.append((self.headers["webhook-id"], told))
                self.send_response(code)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # Fifty at once are normal; with the five of the default their connections would wait for a second.
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                # Whoever called was killed.
                pass

        self.server = Server(("0.0.0.0", 0), Handler)  # noqa: S104 - 127.0.0.2 is this machine, too
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def types(self) -> list[str]:
        """Return what was taken by type."""
        return [told["type"] for _, told in self.taken]
