"""``make bench QUICK=1``: the same measures with fewer notifications, for a look after each change."""

from __future__ import annotations

import os
from typing import TypeVar

_T = TypeVar("_T")

#: Whether this is a quick run.
on = bool(os.environ.get("QUICK"))


def of(few: _T, many: _T) -> _T:
    """Return the size of a measure: ``few`` in a quick run."""
    return few if on else many
