"""Locales and time zones as apps and applications say them, made comparable."""

from __future__ import annotations

import re

import structlog

from knocktwice_worker.content import locales
from knocktwice_worker.notation import time_zones

log = structlog.get_logger(__name__)

_DECORATED = re.compile(r"[#.@]")


def locale(said: str | None) -> str | None:
    """Return a locale without the suffixes of Java, iOS and POSIX, so that segments find its language and country."""
    return said if said is None or not _DECORATED.search(said) else locales.plain(said) or said


def zone(said: str | None) -> str | None:
    """Return a zone by its IANA name. An unknown zone is left out: the device matters more than its clock."""
    try:
        return said and time_zones.canonical(said)
    except ValueError:
        log.warning("time zone is not known", time_zone=said)
        return None
