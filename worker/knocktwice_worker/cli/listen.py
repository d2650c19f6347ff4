"""``knocktwice listen``: webhooks as they arrive, shown and handed on to a server under development.

It is an endpoint like any other, on this machine, for as long as it runs: events come in order, signed, and again until
the server behind it takes them.
"""

from __future__ import annotations

import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from knocktwice_worker.cli.output import AsJson, clock, err, out, reading
from knocktwice_worker.services import services
from knocktwice_worker.webhooks import endpoints, signing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

#: By its path an endpoint of ours is known, also one whose command was killed.
_PATH = "/knocktwice-listen"
#: The headers of a webhook that the server behind needs to verify it.
_HANDED_ON = ("content-type", "user-agent", "webhook-id", "webhook-timestamp", "webhook-signature")
#: Seconds that the server behind has; workers wait a little longer.
_PATIENCE_S = 8
#: The most bytes of an answer that are handed back; workers read no more.
_MOST_BYTES = 65_536
_UNREACHABLE = 502


def listen(
    forward_to: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where each webhook is handed on to, like http://127.0.0.1:3000/hooks."),
    ] = None,
    types: Annotated[str, typer.Option("--events", help="Only these types, with commas between; left out: all.")] = "",
    personal: Annotated[bool, typer.Option("--personal", help="With user id, number and key, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show webhooks as they arrive, and hand them on to your own server, until Ctrl-C.

    They are signed with the secret that is printed first. The answer of your server counts: after anything but a 2xx an
    event comes again, as in production. The workers must run on this machine, as beside 'knocktwice up'.

    Example: knocktwice listen --forward-to http://127.0.0.1:3000/hooks --events notification.finished
    """
    if forward_to is not None and urlsplit(forward_to).scheme not in ("http", "https"):
        raise typer.BadParameter("must begin with http:// or https://", param_hint="--forward-to")
    wanted = [event.strip() for event in types.split(",") if event.strip()]
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(forward_to, as_json=as_json))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with _endpoint(f"http://127.0.0.1:{server.server_port}{_PATH}", wanted, personal=personal) as id_:
        err.print(f"secret {signing.key_of(services().webhook_secrets[0], id_)}", soft_wrap=True, markup=False)
        err.print("listening; Ctrl-C ends it")
        stop.wait()
    server.shutdown()


@contextmanager
def _endpoint(url: str, wanted: list[str], *, personal: bool) -> Iterator[str]:
    """Be an endpoint for as long as the block runs; forget those of commands that were killed."""
    with reading(services()) as conn, conn.begin():
        for one in endpoints.list_all(conn):
            if urlsplit(one.url).path == _PATH and not _is_there(one.url):
                endpoints.remove(conn, one.id)
        id_ = endpoints.add(conn, url, wanted, personal=personal, private=False)
    try:
        yield id_
    finally:
        with reading(services()) as conn, conn.begin():
            endpoints.remove(conn, id_)


def _is_there(url: str) -> bool:
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1).close()
    except OSError:
        return False
    return True


def _handler(forward_to: str | None, *, as_json: bool) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, answer, problem = _hand_on(forward_to, self.headers, body) if forward_to else (204, b"", "")
            _show(self.headers["webhook-id"], body, status, problem, as_json=as_json)
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing: what arrives is shown by :func:`_show`."""

    return Handler


def _hand_on(url: str, headers: Message, body: bytes) -> tuple[int, bytes, str]:
    """Return the status and the body that the server behind answers, and what was wrong."""
    kept = {name: headers[name] for name in _HANDED_ON if name in headers}
    request = urllib.request.Request(url, data=body, headers=kept, method="POST")  # noqa: S310 - the developer's own
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:  # noqa: S310
            return answer.status, answer.read(_MOST_BYTES), ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(_MOST_BYTES), ""
    except OSError as error:
        return _UNREACHABLE, b"", str(getattr(error, "reason", error))


def _show(id_: str, body: bytes, status: int, problem: str, *, as_json: bool) -> None:
    told = json.loads(body)
    if as_json:
        print(json.dumps({"id": id_, "status": status, "problem": problem or None, "event": told}), flush=True)
        return
    about = told.get("data", {}).get("notification", "")
    end = f"{status}{f' ({problem})' if problem else ''}"
    out.print(f"{clock(datetime.now(UTC))}  {told['type']:24} {about}  {end}", markup=False, soft_wrap=True)
