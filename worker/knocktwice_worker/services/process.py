"""The services of this process, with the settings that operators have changed."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import SQLAlchemyError

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker import config
from knocktwice_worker.services.parts import Services
from knocktwice_worker.switches import overrides

log = structlog.get_logger(__name__)

#: How long the settings that operators have changed are taken as known, in seconds.
_FRESH_S = 1.0

_services: dict[int, Services] = {}


def services() -> Services:
    """Return this process's services; a forked child gets its own, because sockets do not survive a fork."""
    pid = os.getpid()
    if pid not in _services:
        _services.clear()
        _services[pid] = Services(config.load())
    return _services[pid]


@dataclass(slots=True)
class _Steered:
    """The settings of this process that operators have changed.

    Attributes:
        changed: environment variable → its value instead.
        looked_at: when that was asked, on the monotonic clock.
        lock: lets one thread ask at a time.
    """

    changed: dict[str, str] = field(default_factory=dict)
    looked_at: float = float("-inf")
    lock: threading.Lock = field(default_factory=threading.Lock)


_steered: dict[int, _Steered] = {}


def steered() -> Services:
    """Return this process's services with the settings that operators have changed, as they were a second ago at most.

    While the database does not answer, the settings stay as they were known last.
    """
    here, known = services(), _steered.setdefault(os.getpid(), _Steered())
    if time.monotonic() - known.looked_at <= _FRESH_S:
        return here
    with known.lock:
        if time.monotonic() - known.looked_at <= _FRESH_S:
            return services()
        # The time before the query counts: a worker that stands still during the query asks again.
        at = time.monotonic()
        try:
            with here.engine.connect() as conn:
                changed = {one.name: one.value for one in overrides.list_all(conn)}
            if changed != known.changed:
                _services[os.getpid()] = here.with_settings(overrides.applied(config.load(), changed))
                known.changed = changed
                log.warning("settings changed by an operator", names=sorted(changed))
        except (SQLAlchemyError, KnocktwiceError) as error:
            log.warning("changed settings are not known", error=type(error).__name__)
        known.looked_at = at
    return services()
