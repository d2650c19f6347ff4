"""An outage in the log: its beginning and its end."""

from __future__ import annotations

from structlog.testing import capture_logs

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.runtime.outage_log import Outage


def test_an_outage_is_told_once_and_so_is_its_end() -> None:
    outage = Outage("dispatcher")
    with capture_logs() as lines:
        for _ in range(3):
            outage.failed(ConnectionError("redis://:secret@host"))
        for _ in range(3):
            outage.worked()
    stumbled = "work stumbled; it is tried again and again"
    assert lines == [
        {"event": stumbled, "log_level": "error", "work": "dispatcher", "error": "ConnectionError", "reason": None},
        {"event": "work goes on", "log_level": "info", "work": "dispatcher"},
    ]


def test_another_error_and_another_reason_are_told_too() -> None:
    outage = Outage("webhooks")
    with capture_logs() as lines:
        for reason in ("one", "two", "two"):
            outage.failed(InvalidMessage("urls", reason), reason)
        outage.failed(OSError())
        outage.worked()
        outage.failed(OSError())
    told = [(line["log_level"], line.get("error"), line.get("reason")) for line in lines]
    assert told == [
        ("error", "InvalidMessage", "one"),
        ("error", "InvalidMessage", "two"),
        ("error", "OSError", None),
        ("info", None, None),
        ("error", "OSError", None),
    ]
