"""A small SMS provider with an HTTP interface of its own, to stand beside the sandbox's Twilio."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

TOKEN = "acme-secret"


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


@dataclass
class SmsProvider:
    """The provider. What it took is in ``texts``, with our own name of each as ``ref``.

    Attributes:
        says: what it answers from now on: ``ok``, or one of :data:`ANSWERS`, or ``drop``, ``take and drop`` and
            ``hang``.
        asked: how many requests to send it had.
    """

    says: str = "ok"
    texts: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self.over = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def spec(self, **changes: object) -> dict[str, Any]:
        """Return its entry in the file of providers."""
        entry: dict[str, Any] = {
            "name": "acme",
            "weight": 30,
            "url": f"{self.url}/send",
            "headers": {"Authorization": "Bearer ${ACME_TOKEN}"},
            "json": {"to": "{to}", "from": "{sender}", "text": "{text}", "ref": "{id}"},
            "sender": "Acme",
            "id": "message.id",
            "answers": [
                {"status": 503, "means": "retry"},
                {"where": {"error.code": [7, 8]}, "means": "rejected", "reason": "invalid_number"},
                {"where": {"error.code": 9}, "means": "opted_out"},
            ],
        }
        return {name: value for name, value in (entry | changes).items() if value is not None}

    def file(self, folder: Path, *, twilio: float = 70, **changes: object) -> Path:
        """Write a file of providers that names it."""
        path = folder / "providers.json"
        path.write_text(json.dumps({"twilio": {"weight": twilio}, "providers": [self.spec(**changes)]}))
        return path

    def listing(self) -> dict[str, str]:
        """Return what a file says of its list."""
        url = f"{self.url}/list?to={{to}}&since={{since}}"
        return {"url": url, "items": "items", "id": "id", "to": "to", "created": "at", "reference": "ref"}

    def take(self, message: dict[str, Any], key: str | None) -> str:
        with self._lock:
            for text in self.texts:
                if key is not None and text["key"] == key:
                    return str(text["id"])
            id_ = str(next(self._ids))
            self.texts.append({**message, "id": id_, "key": key, "at": time.time()})
            return id_


#: What it says besides the truth.
ANSWERS: dict[str, tuple[int, dict[str, str], object]] = {
    "busy": (503, {}, {"error": "try later"}),
    "too fast": (429, {"Retry-After": "7"}, {}),
    "broken": (500, {}, {}),
    "account": (401, {}, {}),
    "number": (400, {}, {"error": {"code": 7, "text": "+16505550987 SECRET"}}),
    "stop": (400, {}, {"error": {"code": 9}}),
}


def _handler(provider: SmsProvider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["content-length"])))
            provider.asked += 1
            says = provider.says
            if self.headers["authorization"] != f"Bearer {TOKEN}":
                says = "account"
            if says == "hang":
                provider.over.wait(30)
                says = "drop"
            if says in ANSWERS:
                return self._answer(*ANSWERS[says])
            if says != "drop":
                id_ = provider.take(message, self.headers["idempotency-key"] or message.get("key"))
            if says != "ok":
                self.close_connection = True
                return None
            return self._answer(200, {}, {"message": {"id": id_}})

        def do_GET(self) -> None:
            to = parse_qs(urlsplit(self.path).query)["to"][0]
            return self._answer(200, {}, {"items": [t for t in provider.texts if t["to"] == to]})

        def _answer(self, status: int, headers: dict[str, str], body: object) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep still."""

    return Handler
