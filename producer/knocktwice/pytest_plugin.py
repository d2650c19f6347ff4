"""Fixtures for an application's own tests; pytest finds them where knocktwice is installed.

``knocktwice`` is a client that records what it was asked for, and ``knocktwice_broker`` a broker in the test process,
for code that makes a client of its own. Neither needs a server.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from knocktwice.testing import RecordingClient

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def knocktwice() -> RecordingClient:
    """A client that checks every call as the real one does, and keeps it: see :mod:`knocktwice.testing`."""
    return RecordingClient()


@pytest.fixture
def knocktwice_broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a broker in this process, empty at first; ``KNOCKTWICE_BROKER_URL`` names it during the test.

    It accepts what the real one accepts, but no worker reads it. Needs ``pip install 'knocktwice[testing]'``.
    """
    try:
        from fakeredis import TcpFakeServer
    except ImportError:
        pytest.fail("the fixture knocktwice_broker needs fakeredis: pip install 'knocktwice[testing]'")
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    url = f"redis://127.0.0.1:{server.server_address[1]}/0"
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", url)
    yield url
    server.shutdown()
    server.server_close()
    thread.join()
