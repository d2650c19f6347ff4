"""An application that calls again and again, in a thread of this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

    from knocktwice import Client


class Application:
    """Calls :meth:`knock` from the beginning of a ``with`` block to its end.

    Args:
        client: its client, which is closed in the end.
        pause_s: seconds between two calls.
    """

    def __init__(self, client: Client, pause_s: float) -> None:
        self.client = client
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def knock(self) -> None:
        """Make one call."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.client.close()

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            self.knock()
