"""Workers and beat say of themselves what they work with, and that they live."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from knocktwice_shared.names import Queue
from knocktwice_worker.counters import totals
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.fleet import members
from knocktwice_worker.runtime import heartbeat
from support.system import System, eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_a_worker_announces_itself_with_its_queues_and_credentials_and_leaves_in_order(
    installation: System, tmp_path: Path
) -> None:
    file = tmp_path / "beats"
    worker = installation.start_worker(KNOCKTWICE_HEARTBEAT_FILE=str(file))
    (one,) = eventually(
        lambda: [m for m in members.list_all(installation.redis) if m.credentials], why=installation.logs
    )
    assert set(one.queues) == {queue.value for queue in Queue}
    assert one.role == "worker"
    assert one.credentials == {"push": "", "sms": "", "whatsapp": ""}
    assert one.ahead_s is not None
    assert abs(one.ahead_s) < 5
    # A file that was touched once and never again would look the same.
    first = eventually(lambda: file.stat().st_mtime_ns if file.exists() else None, why=installation.logs)
    eventually(lambda: file.stat().st_mtime_ns > first, why=installation.logs)
    installation.notify("+16505550100")
    # What the worker has counted reaches Redis without a stop.
    eventually(lambda: ("provider_answers", "fcm", "sent", "none") in totals.read(installation.redis))
    worker.stop()
    assert members.list_all(installation.redis) == []


def test_beat_announces_itself_and_touches_its_file(installation: System, tmp_path: Path) -> None:
    file = tmp_path / "beats"
    environment = {
        **installation.environment,
        "KNOCKTWICE_HEARTBEAT_FILE": str(file),
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    argv = [sys.executable, "-m", "celery", "-A", "knocktwice_worker", "beat", f"--schedule={tmp_path / 'schedule'}"]
    beat = Child("beat", argv, tmp_path / "log", env=environment)
    beat.start()
    try:
        eventually(lambda: [m for m in members.list_all(installation.redis) if m.role == "beat"])
        first = eventually(lambda: file.stat().st_mtime_ns if file.exists() else None)
        eventually(lambda: file.stat().st_mtime_ns > first)
    finally:
        beat.stop()


def test_the_file_of_a_worker_is_touched_without_a_broker_and_not_while_its_loop_stands_still(tmp_path: Path) -> None:
    file, pulse = tmp_path / "beats", heartbeat.Pulse()
    pulse.beat(file)
    assert file.exists()
    file.unlink()
    pulse.turned_at = time.monotonic() - heartbeat.STUCK_S
    pulse.beat(file)
    assert not file.exists()
    pulse.turned_at = time.monotonic()
    pulse.beat(file)
    assert file.exists()
