"""Lists as a table in SQL."""

from __future__ import annotations

from knocktwice_worker.database.bulk import numbered_rows, rows


def _flat(sql: str) -> str:
    return " ".join(sql.split())


def test_each_column_is_a_list_of_its_type_under_its_own_name() -> None:
    found = _flat(rows("r", id="uuid", step="smallint"))
    assert found == "unnest( CAST(:id AS uuid[]), CAST(:step AS smallint[]) ) AS r(id, step)"


def test_a_column_may_be_called_as_the_arguments_are() -> None:
    found = _flat(numbered_rows("a", "i", alias="text", counter="text"))
    assert found.endswith("WITH ORDINALITY AS a(alias, counter, i)")
