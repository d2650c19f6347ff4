"""Lists arrive in PostgreSQL as they are."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from knocktwice import NotificationId
from knocktwice_worker.database import arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers

# What PostgreSQL's text and JSON's UTF-8 can carry.
_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
_ODD = st.sampled_from(
    ["", "NULL", "null", "{}", "{", ",", '"', "\\", "\\\\", '\\"', "'", "''", " a ", "a\nb", "%s", ":x", "$1"]
)
_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-9))])


class Colour(StrEnum):
    RED = "red"


@pytest.fixture(scope="module")
def conn(servers: Servers) -> Iterator[sa.Connection]:
    arrays.register()
    engine = sa.create_engine(servers.database_url, poolclass=sa.NullPool)
    with engine.connect() as conn:
        yield conn


def _back(conn: sa.Connection, kind: str, items: list[Any]) -> list[Any]:
    # One by one, so that it is PostgreSQL that takes the array apart.
    query = sa.text(f"SELECT i FROM unnest(CAST(:items AS {kind}[])) WITH ORDINALITY AS t(i, n) ORDER BY n")  # noqa: S608
    return list(conn.execute(query, {"items": items}).scalars())


@given(items=st.lists(_TEXT | _ODD))
def test_text(conn: sa.Connection, items: list[str]) -> None:
    assert _back(conn, "text", items) == items


@given(items=st.lists(st.none() | _TEXT | _ODD))
def test_text_with_gaps(conn: sa.Connection, items: list[str | None]) -> None:
    assert _back(conn, "text", items) == items


@pytest.mark.parametrize(
    ("kind", "items"),
    [
        ("int", [1, -(2**31), None]),
        ("bigint", [2**63 - 1]),
        ("float8", [0.1, -1e300, None]),
        ("numeric", [Decimal("0.0075"), Decimal("-1E+3"), None]),
        ("boolean", [True, False, None]),
        ("uuid", [UUID(int=7), None]),
        ("uuid", [NotificationId(UUID(int=7), duplicate=True), UUID(int=8)]),
        ("date", [date(2026, 11, 21)]),
        ("text", [Colour.RED]),
        ("text", [Colour.RED, None]),
        ("text", [None, None]),
        ("text", []),
    ],
)
def test_other_kinds(conn: sa.Connection, kind: str, items: list[Any]) -> None:
    assert _back(conn, kind, items) == items


def test_bytes(conn: sa.Connection) -> None:
    items = [b"", b"\0\\x\xff", None]
    assert [i if i is None else bytes(i) for i in _back(conn, "bytea", items)] == items


@given(items=st.lists(st.none() | st.datetimes(min_value=datetime(1900, 1, 1), timezones=_ZONES)))  # noqa: DTZ001
def test_times(conn: sa.Connection, items: list[datetime | None]) -> None:
    assert _back(conn, "timestamptz", items) == items


@given(items=st.lists(st.none() | st.timedeltas(min_value=timedelta(days=-999), max_value=timedelta(days=9_999))))
def test_durations(conn: sa.Connection, items: list[timedelta | None]) -> None:
    assert _back(conn, "interval", items) == items


@pytest.mark.parametrize("items", [[["a"]], [{"a": 1}], ["a", object()]])
def test_what_has_no_place_in_an_array_is_refused(items: list[Any]) -> None:
    with pytest.raises(TypeError, match="cannot be an array"):
        arrays.literal(items)


@pytest.mark.parametrize("items", [["a\0b"], ["a", "\0"]])
def test_a_nul_is_refused_and_does_not_make_two_of_one(items: list[str]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        arrays.literal(items)
