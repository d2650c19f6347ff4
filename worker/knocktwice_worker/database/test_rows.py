"""Rows of tests: how SQL tells what was only tried out from what is real (``knocktwice_shared/test_side.py``)."""

from __future__ import annotations

from knocktwice_shared.test_side import MARK

#: The provider of a test's message in ``deliveries``, and the provider's id of its push in ``attempts``. No real
#: provider can have this name.
STAND_IN = MARK


def is_test(project: str) -> str:
    """Return the SQL condition that a column with a project is of the test side; never NULL."""
    return f"coalesce(right({project}, {len(MARK)}) = '{MARK}', false)"


def real_side(project: str) -> str:
    """Return the SQL of the project without the mark; NULL: no project."""
    return f"nullif(replace({project}, '{MARK}', ''), '')"


def real_message(delivery: str) -> str:
    """Return the SQL condition that a delivery's message is real. It holds from the moment at which it is reserved."""
    return f"{delivery}.provider IS DISTINCT FROM '{STAND_IN}'"
