"""Lists of Python values as a table in SQL. Only this module writes ``unnest(CAST(:ids AS uuid[]), …)``."""

from __future__ import annotations


def rows(alias: str, /, **columns: str) -> str:
    """Return SQL for a table of parallel lists, for use in ``FROM``, ``USING`` or ``JOIN``.

    Every column is bound as a list under its own name: ``rows("r", id="uuid", step="smallint")`` is used with the
    parameters ``{"id": [...], "step": [...]}``, and the statement reads ``r.id`` and ``r.step``. All lists have the
    same length.

    The casts are necessary, because a list arrives as an array literal without a type (``arrays.py``).

    Args:
        alias: the table's name in the statement.
        columns: name and PostgreSQL type of each column, without the brackets.
    """
    return f"{_unnest(columns)} AS {alias}({', '.join(columns)})"


def numbered_rows(alias: str, counter: str, /, **columns: str) -> str:
    """Return the same as :func:`rows` with one more column, ``counter``, that numbers the rows from 1."""
    return f"{_unnest(columns)} WITH ORDINALITY AS {alias}({', '.join(columns)}, {counter})"


def _unnest(columns: dict[str, str]) -> str:
    casts = ",\n  ".join(f"CAST(:{name} AS {type_}[])" for name, type_ in columns.items())
    return f"unnest(\n  {casts}\n)"
