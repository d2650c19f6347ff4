"""The process of a server that a test has for itself, to be killed and suspended as a whole."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class OwnProcess:
    """A server's process, with the processes that it has started."""

    _process: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def suspend(self) -> None:
        """Stop the server as ``SIGSTOP`` does; :meth:`kill` still ends it."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended server go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def _begin(self, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        with log.open("ab") as written:
            self._process = subprocess.Popen(
                words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                # A group of its own, so that what it starts ends with it.
                start_new_session=True,
            )
