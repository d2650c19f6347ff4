"""Flower in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.config import Settings


@contextmanager
def flower(settings: Settings, home: Path, prefix: str = "", **environment: str) -> Iterator[str]:
    """Run Flower as operators start it; yield its address."""
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWER_", "KNOCKTWICE_"))}
    ours = {
        "KNOCKTWICE_DATABASE_URL": str(settings.database_url),
        "KNOCKTWICE_BROKER_URL": str(settings.broker_url),
        "KNOCKTWICE_STATE_URL": settings.state_url or "",
        "KNOCKTWICE_HOME": str(home),
    }
    options = [f"--port={port}", *([f"--url-prefix={prefix}"] if prefix else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "knocktwice_worker", "flower", *options],
        cwd=home,
        env={**kept, **ours, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}{'/' + prefix if prefix else ''}"
    try:
        eventually(lambda: status(f"{url}/healthcheck") == 200)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def status(url: str, data: bytes | None = None, **headers: str) -> int:
    """Return the status of an answer; 0: nobody answers. With ``data`` it is a form."""
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own server
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (urllib.error.URLError, ConnectionError):
        return 0
