"""Conditions on states in SQL."""

from __future__ import annotations


def is_in(column: str, *states: str) -> str:
    """Return SQL that is true in one of these states, in a form whose frequency the planner cannot estimate.

    States change within seconds, but the planner's statistics lag behind by minutes. With a plain condition the planner
    expects hardly any ``sending`` rows, scans the whole table for them, and joins the batch to each row that it finds.
    That takes seconds instead of milliseconds.
    """
    wanted = ", ".join(f"'{state}'" for state in states)
    return f"CASE WHEN {column} IN ({wanted}) THEN true END"
