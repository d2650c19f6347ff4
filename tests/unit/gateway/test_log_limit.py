"""What anybody can have written into the log is written now and then."""

from __future__ import annotations

import logging

from knocktwice_worker.gateway.log_limit import EVERY_S, OncePerMinute, WarningsOncePerMinute


def test_a_line_of_a_kind_is_due_once_a_minute() -> None:
    now = [0.0]
    lines = OncePerMinute(lambda: now[0])
    assert [lines.due("a"), lines.due("b"), lines.due("a")] == [True, True, False]
    now[0] = EVERY_S
    assert [lines.due("a"), lines.due("a")] == [True, False]


def test_kinds_without_number_take_no_memory_without_bound() -> None:
    lines = OncePerMinute()
    for n in range(10_000):
        lines.due(str(n))
    assert len(lines._last) <= 1_000


def test_warnings_are_thinned_out_and_errors_are_not() -> None:
    logger = logging.getLogger("test.log_limit")
    logger.setLevel(logging.INFO)
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger.addHandler(Lines())
    logger.addFilter(WarningsOncePerMinute())
    for _ in range(3):
        logger.warning("Invalid HTTP request received.")
        logger.error("died")
        logger.info("started")
    assert lines == ["Invalid HTTP request received.", "died", "started", "died", "started", "died", "started"]
