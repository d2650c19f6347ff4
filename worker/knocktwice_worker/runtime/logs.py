"""Log lines: a static event, fields as data. Never a phone number, a token or a message body."""

from __future__ import annotations

import logging
import sys
from logging.handlers import WatchedFileHandler

import structlog

#: The loggers that may say more than INFO: debug lines of libraries below them have no bodies or numbers.
_TALKATIVE = ("knocktwice", "knocktwice_worker", "celery", "kombu")
#: Celery's debug lines of each task quote its arguments, which are numbers and texts.
_INDISCREET = ("celery.worker.strategy", "celery.pool", "celery.concurrency")


def configure(*, as_json: bool, level: int = logging.INFO, file: str | None = None) -> None:
    """Send structlog and the standard library's logging to one place.

    Args:
        as_json: for machines; else for people.
        level: the least important lines that are written. Below ``INFO`` only our own modules, Celery and kombu say
            more: other libraries would tell of numbers and texts.
        file: where lines go, appended; ``None`` is standard error. A file that was moved away is opened again.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        # Pretty tracebacks show local variables, which may contain numbers and texts, so plain ones are used.
        else structlog.dev.ConsoleRenderer(
            colors=file is None and sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    as_text = [structlog.processors.format_exc_info] if as_json else []
    handler = logging.StreamHandler() if file is None else WatchedFileHandler(file, encoding="utf-8")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *as_text, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.INFO), force=True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(level)
    for name in _INDISCREET:
        logging.getLogger(name).setLevel(max(level, logging.INFO))
