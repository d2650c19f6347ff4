"""The gateway as its clients meet it: uvicorn on 127.0.0.1, real HTTP, keys."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx
import uvicorn

from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.application import create_app
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.server import OPTIONS
from support.system import eventually

if TYPE_CHECKING:
    from typing import Self

    from starlette.types import ASGIApp

    from knocktwice_worker.services import Services


@dataclass
class HttpGateway:
    """A gateway in this process.

    Attributes:
        services: what it works with.
        port: where it listens; 0 for any free port.
        app: its ASGI application.
    """

    services: Services
    port: int = 0
    app: ASGIApp = field(init=False)

    def __enter__(self) -> Self:
        self.app = create_app(self.services)
        config = uvicorn.Config(self.app, host="127.0.0.1", port=self.port, **OPTIONS)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        eventually(lambda: self._server.started or not self._thread.is_alive())
        assert self._server.started, "the gateway did not start"
        self._clients: list[httpx.Client] = []
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._server.should_exit = True
        self._thread.join()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._server.server_state.connections)

    def key(self, *scopes: Scope, project: str | None = None, test: bool = False) -> str:
        """Make a key; without scopes for everything that such a key may do."""
        own = secret(self.services.settings)
        with self.services.engine.begin() as conn:
            wanted = frozenset(scopes or (keys.TEST_SCOPES if test else [Scope.ADMIN]))
            return keys.create(conn, "test", wanted, secret=own, project=project, test=test)

    def client(self, *scopes: Scope, project: str | None = None, test: bool = False) -> httpx.Client:
        """Return a client with a key of its own; see :meth:`key`."""
        headers = {"Authorization": f"Bearer {self.key(*scopes, project=project, test=test)}"}
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30)
        self._clients.append(client)
        return client

    def stranger(self) -> httpx.Client:
        """Return a client without a key."""
        client = httpx.Client(base_url=self.url, timeout=30)
        self._clients.append(client)
        return client
