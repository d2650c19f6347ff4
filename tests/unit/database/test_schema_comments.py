"""The schema explains itself, in the code and in the database."""

from __future__ import annotations

from knocktwice_worker.database.schema import metadata


def test_every_table_and_every_column_says_what_it_means() -> None:
    silent = [table.name for table in metadata.sorted_tables if not table.comment]
    silent += [f"{c.table.name}.{c.name}" for table in metadata.sorted_tables for c in table.columns if not c.comment]
    assert not silent


def test_a_comment_is_a_short_sentence_in_any_encoding_that_a_database_has() -> None:
    comments = [item.comment or "" for table in metadata.sorted_tables for item in (table, *table.columns)]
    assert [c for c in comments if not c.isascii() or "\n" in c or len(c) > 120 or not c.endswith(".")] == []
