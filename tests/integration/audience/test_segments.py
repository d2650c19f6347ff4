"""Segments on a real PostgreSQL: the same people as a plain reading of the filter gives,
and no value ever in SQL text.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import segments
from knocktwice_worker.audience.segment_filter import parse
from knocktwice_worker.audience.segment_sql import where
from support import invented_people
from support.databases import new_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers
    from knocktwice_worker.services import Services

PEOPLE = invented_people.invent(300)


@pytest.fixture(scope="module")
def crowded(servers: Servers) -> Iterator[sa.Engine]:
    """A database with :data:`PEOPLE` in it."""
    with new_database(servers) as url:
        engine = sa.create_engine(url)
        with engine.begin() as conn:
            invented_people.insert(conn, PEOPLE)
        yield engine
        engine.dispose()


def found(engine: sa.Engine, wanted: object) -> list[str]:
    """Return who belongs, read in pages."""
    checked, people = parse(wanted), list[str]()
    with engine.connect() as conn:
        while page := segments.members(conn, checked, people[-1] if people else None, 64):
            people += page
        assert segments.count(conn, checked) == len(people)
    return people


# -- the same people as in Python

CARRIABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
ORDERED = (
    st.sampled_from([item for item in invented_people.ITEMS if not isinstance(item, bool)])
    | CARRIABLE
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
ITEM = ORDERED | st.booleans()
MOMENT = (
    st.integers(0, 60).map(lambda days: f"{days} days ago")
    | st.integers(0, 1500).map(lambda hours: f"{hours} hours ago")
    | st.integers(0, 60).map(lambda days: (invented_people.NOW - days * invented_people.DAY).isoformat())
)


def condition(field: st.SearchStrategy[str], op: str, value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"field": field, "op": st.just(op), "value": value})


def word(field: str, value: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    name = st.just(field)
    return st.one_of(
        *(condition(name, op, value) for op in ("=", "!=")),
        condition(name, "in", st.lists(value, min_size=1, max_size=3)),
        condition(name, "exists", st.booleans()),
    )


TAG = st.sampled_from(invented_people.TAGS).map("tags.".__add__)
FLAGS = ["has_device", "notifications_enabled", "has_phone", "can_receive_sms", "consent"]
CONDITION = st.one_of(
    *(condition(TAG, op, ITEM) for op in ("=", "!=", "contains")),
    *(condition(TAG, op, ORDERED) for op in "<>"),
    condition(TAG, "in", st.lists(ITEM, min_size=1, max_size=5)),
    condition(TAG, "exists", st.booleans()),
    word("locale", st.sampled_from([*invented_people.LOCALES, "DE-at", "fr"])),
    word("language", st.sampled_from(["de", "EN", "zh", "fr"])),
    word("country", st.sampled_from(["AT", "at", "US", "TW", "GB", "RS", "FR"])),
    word("platform", st.sampled_from(invented_people.PLATFORMS)),
    *(condition(st.sampled_from(FLAGS), op, st.booleans()) for op in ("=", "!=")),
    *(condition(st.just("last_seen"), op, MOMENT) for op in "<>"),
    condition(st.just("last_seen"), "exists", st.booleans()),
    st.just({"everyone": True}),
)
FILTER = st.recursive(
    CONDITION,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=FILTER)
def test_any_filter_gives_the_same_people_as_a_plain_reading_of_it(crowded: sa.Engine, wanted: Any) -> None:
    expected = sorted(person.id for person in PEOPLE if invented_people.belongs(person, wanted))
    event("all" if len(expected) == len(PEOPLE) else "some" if expected else "nobody")
    assert sorted(found(crowded, wanted)) == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=FILTER)
def test_everybody_is_in_a_filter_or_in_its_opposite(crowded: sa.Engine, wanted: Any) -> None:
    assert len(found(crowded, wanted)) + len(found(crowded, {"not": wanted})) == len(PEOPLE)


@pytest.mark.parametrize("item", invented_people.ITEMS, ids=repr)
@pytest.mark.parametrize("op", ["=", "in", "contains", "<", ">"])
def test_every_awkward_value_finds_somebody_and_the_right_ones(crowded: sa.Engine, op: str, item: Any) -> None:
    if op in "<>" and isinstance(item, bool):
        return
    parts = [
        {"field": f"tags.{tag}", "op": op, "value": [item] if op == "in" else item} for tag in invented_people.TAGS
    ]
    people = found(crowded, {"or": parts})
    assert sorted(people) == sorted(p.id for p in PEOPLE if invented_people.belongs(p, {"or": parts}))
    extremes = {("<", ""), (">", "😀"), ("<", -1), (">", 10**40)}
    assert bool(people) is ((op, item) not in extremes)


# -- no value in SQL


class _Marked:
    """Replaces every value of a filter by one that would be seen in SQL text."""

    def __init__(self) -> None:
        self.text, self.number = "zqx'; DROP TABLE users; --", 918273645

    def __call__(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: self(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self(v, key) for v in value]
        if isinstance(value, str) and key == "field" and value.startswith("tags."):
            return f"tags.{self.text}"
        if key == "value" and isinstance(value, str):
            return self.text
        return self.number if key == "value" and type(value) in (int, float) else value


TAG_FILTER = st.recursive(
    st.one_of(
        *(condition(TAG, op, ITEM) for op in ("=", "!=", "contains")),
        *(condition(TAG, op, ORDERED) for op in "<>"),
        condition(TAG, "in", st.lists(ITEM, min_size=1, max_size=5)),
        condition(TAG, "exists", st.booleans()),
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}), st.fixed_dictionaries({"not": inner})
    ),
    max_leaves=6,
)


def compiled(wanted: object) -> Any:
    statement: sa.Select[Any] = sa.select(sa.literal_column("x")).where(where(parse(wanted)))
    return statement.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]


@given(TAG_FILTER)
def test_no_value_and_no_tag_name_reaches_sql_as_text(wanted: Any) -> None:
    marked = compiled(_Marked()(wanted))
    assert "zqx" not in marked.string
    assert "918273645" not in marked.string
    assert "zqx" in repr(marked.params)


@given(FILTER)
def test_sql_text_holds_no_literal_at_all(wanted: Any) -> None:
    text = re.sub(r"%\(\w+\)s|__\[POSTCOMPILE_\w+\]|anon_\d+", "", compiled(wanted).string)
    assert not re.search(r"['0-9$]", text), text


@pytest.mark.parametrize(
    "hostile", ["'; DROP TABLE users; --", "%(x)s %s %", ":x", "\\'", '"}', "$1", "a?b", "\u202e😀", "{}", "\n"]
)
def test_a_hostile_text_is_a_value_like_any_other(here: Services, hostile: str) -> None:
    with here.engine.begin() as conn:
        tags = json.dumps({hostile: hostile, "list": [hostile]})
        conn.execute(
            sa.text("INSERT INTO users (id, tags) VALUES (:id, CAST(:tags AS jsonb))"), {"id": hostile, "tags": tags}
        )
        conn.execute(sa.text("INSERT INTO users (id) VALUES ('other')"))
        for op, value in (("=", hostile), ("in", [hostile, "x"]), ("exists", True), ("<", hostile + "~"), (">", "")):
            wanted = parse({"field": f"tags.{hostile}", "op": op, "value": value}) if hostile.strip() else None
            if wanted is not None:
                assert segments.members(conn, wanted, None, 10) == [hostile]
        contains = parse({"field": "tags.list", "op": "contains", "value": hostile})
        assert segments.members(conn, contains, None, 10) == [hostile]
        assert segments.sample(conn, contains, 10) == [hostile]


def test_texts_are_compared_by_code_point_whatever_the_databases_collation() -> None:
    # The database of the tests knows no other collation, so here the words have to do.
    for op in "<>":
        assert f'COLLATE "C") {op}' in compiled({"field": "tags.city", "op": op, "value": "M"}).string


# -- saved segments

GOLD = {"field": "tags.plan", "op": "=", "value": "gold"}


def test_a_segment_is_saved_changed_and_deleted(here: Services) -> None:
    with here.engine.begin() as conn:
        assert segments.put(conn, "gold", parse(GOLD), "who pays")
        assert not segments.put(conn, "gold", parse(GOLD), "who pays")
        first = segments.get(conn, "gold")
        assert (first.name, first.filter, first.description) == ("gold", parse(GOLD), "who pays")
        assert segments.put(conn, "gold", parse({"not": GOLD}), "who pays")
        assert segments.get(conn, "gold").filter == parse({"not": GOLD})
        segments.put(conn, "all of them", parse({"everyone": True}))
        assert [s.name for s in segments.list_all(conn)] == ["all of them", "gold"]
        segments.delete(conn, "gold")
        for call in (segments.get, segments.delete):
            with pytest.raises(segments.UnknownSegment, match="no segment 'gold'; 'knocktwice segment list' shows"):
                call(conn, "gold")


@pytest.mark.parametrize("name", ["", " ", "x" * 101, "a\nb", "a\0b", "\ud83d"])
def test_a_name_that_cannot_be_shown_is_refused(here: Services, name: str) -> None:
    with here.engine.begin() as conn:
        with pytest.raises(InvalidMessage, match=r"^name: must be 1 to 100 printable"):
            segments.put(conn, name, parse(GOLD))
        with pytest.raises(segments.UnknownSegment):
            segments.get(conn, name)


def test_a_filter_that_was_spoilt_by_hand_is_named(here: Services) -> None:
    with here.engine.begin() as conn:
        segments.put(conn, "gold", parse(GOLD))
        conn.execute(sa.text("""UPDATE segments SET filter = '{"and": [{"field": "tagz.plan", "op": "="}]}'"""))
        with pytest.raises(InvalidMessage, match=r"^segment gold: filter\.and\[0\]\.field: must be one of"):
            segments.get(conn, "gold")


def test_a_sample_is_drawn_from_those_who_belong(crowded: sa.Engine) -> None:
    wanted = {"field": "has_phone", "op": "=", "value": True}
    expected = {p.id for p in PEOPLE if invented_people.belongs(p, wanted)}
    with crowded.connect() as conn:
        draws = [segments.sample(conn, parse(wanted), 5) for _ in range(10)]
        assert set(segments.sample(conn, parse(wanted), 1000)) == expected
    assert all(len(set(draw)) == 5 and set(draw) <= expected for draw in draws)
    assert len({frozenset(draw) for draw in draws}) > 1


def test_who_comes_and_goes_between_two_pages_shifts_nobody(here: Services) -> None:
    everyone = parse({"everyone": True})
    with here.engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO users (id) SELECT unnest(ARRAY['b', 'd', 'f', 'h'])"))
        first = segments.members(conn, everyone, None, 2)
        conn.execute(sa.text("DELETE FROM users WHERE id = 'b'"))
        conn.execute(sa.text("INSERT INTO users (id) VALUES ('a')"))
        assert (first, segments.members(conn, everyone, first[-1], 2)) == (["b", "d"], ["f", "h"])
        assert segments.members(conn, everyone, "h", 2) == []
