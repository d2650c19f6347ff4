"""The age of the installed number plans."""

from __future__ import annotations

from datetime import date, timedelta
from importlib.metadata import version

#: The package has no date. Since 9.0.0 a release came about every two weeks, and its last number counts them.
_FIRST, _EVERY = date(2025, 3, 6), timedelta(days=14)
#: Older plans lack ranges that people have by now.
OLD = timedelta(days=183)


def installed() -> str:
    """Return the installed release of phonenumbers."""
    return version("phonenumbers")


def released(release: str) -> date | None:
    """Return about when a release came out; ``None``: its number does not tell."""
    major, _, rest = release.partition(".")
    minor, _, patch = rest.partition(".")
    return _FIRST + int(patch) * _EVERY if (major, minor) == ("9", "0") and patch.isdecimal() else None
