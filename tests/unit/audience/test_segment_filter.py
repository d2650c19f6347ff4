"""The filter language: what is right comes out as it went in, what is wrong is refused by its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience.segment_fields import Ago, moment
from knocktwice_worker.audience.segment_filter import Condition, dump, parse, parse_json

GOLD = {"field": "tags.plan", "op": "=", "value": "gold"}
NO_FILTERS: list[object] = [None, [], {}, "x", 7, True, {"and": [], "or": []}, {"x": 1}]
SHAPE = "must be an object with one of and, or, not, everyone, or with field, op and value"


def is_(field: str, op: str = "=", value: object = True) -> dict[str, object]:
    return {"field": field, "op": op, "value": value}


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = GOLD
    for _ in range(levels - 1):
        inner = {"not": inner}
    return inner


def lists(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "wire",
    [
        GOLD,
        {"everyone": True},
        {"and": [GOLD, {"or": [GOLD, {"not": GOLD}]}]},
        is_("tags.a.b c'", "in", [1, 1.5, True, "x"]),
        is_("tags.n", "<", 10**30),
        is_("tags.likes", "contains", ""),
        is_("tags.x", "exists", False),
        is_("locale", "in", ["de-AT", "de_DE"]),
        is_("country", "!=", "at"),
        is_("platform", "=", "ios"),
        is_("notifications_enabled", "!=", False),
        is_("last_seen", "<", "1 day ago"),
        is_("last_seen", ">", "2026-11-21T09:30:00+01:00"),
        nested(10),
        {"or": [GOLD] * 200},
        is_("tags.x", "in", ["y" * 1_000] * 1_000),
    ],
    ids=lambda wire: str(wire)[:60],
)
def test_a_filter_comes_out_as_it_went_in(wire: object) -> None:
    assert dump(parse(wire)) == wire
    assert parse(dump(parse(wire))) == parse(wire)


def test_types_of_values_are_kept_apart() -> None:
    condition = parse(is_("tags.x", "in", [1, 1.0, True, "1"]))
    assert isinstance(condition, Condition)
    assert [type(value) for value in condition.values] == [int, float, bool, str]


def test_to_exist_needs_no_value() -> None:
    assert parse({"field": "tags.x", "op": "exists"}) == parse(is_("tags.x", "exists"))


@pytest.mark.parametrize(
    ("wire", "place", "problem"),
    [
        *((wrong, "filter", SHAPE) for wrong in NO_FILTERS),
        ({"and": []}, "filter.and", "is empty"),
        ({"or": 7}, "filter.or", "must be a list of filters"),
        ({"and": [GOLD, {}]}, "filter.and[1]", SHAPE),
        ({"and": [GOLD, {"not": []}]}, "filter.and[1].not", SHAPE),
        ({"everyone": False}, "filter.everyone", "must be true"),
        ({"and": [GOLD], "field": "x"}, "filter.field", "is not a field of a filter"),
        (GOLD | {"valeu": 1}, "filter.valeu", "is not a field of a filter"),
        (GOLD | {"a\nb\0": 1}, "filter.a\\nb\\x00", "is not a field of a filter"),
        ({"op": "=", "value": 1}, "filter.field", "is missing"),
        ({"field": "tags.x", "value": 1}, "filter.op", "is missing"),
        ({"and": [GOLD, {"not": is_("tag.x")}]}, "filter.and[1].not.field", "must be one of tags.NAME, locale"),
        *(
            (is_(name), "filter.field", "must name a tag")
            for name in ("tags.", "tags. ", "tags." + 65 * "x", "tags.\0")
        ),
        (is_("tags.x", "~"), "filter.op", "must be one of = != < > in exists contains for tags.x"),
        (is_("locale", "<", "de"), "filter.op", "must be one of = != in exists for locale"),
        (is_("consent", "exists"), "filter.op", "must be one of = != for consent"),
        (is_("last_seen", "="), "filter.op", "must be one of < > exists for last_seen"),
        ({"field": "tags.x", "op": ["="], "value": 1}, "filter.op", "must be one of"),
        (is_("tags.x", "=", None), "filter.value", "is missing"),
        ({"field": "tags.x", "op": "="}, "filter.value", "is missing"),
        (is_("tags.x", "=", [1]), "filter.value", "must be text, a number, true or false"),
        (is_("tags.x", "=", {}), "filter.value", "must be text, a number, true or false"),
        (is_("tags.x", "=", "\0"), "filter.value", "neither NUL"),
        (is_("tags.x", "=", "\ud83d"), "filter.value", "half a surrogate"),
        (is_("tags.x", "=", "x" * 1_001), "filter.value", "at most 1000 characters"),
        (is_("tags.x", "=", float("nan")), "filter", "JSON cannot carry"),
        (is_("tags.x", "=", object()), "filter", "JSON cannot carry"),
        (is_("tags.x", "<", True), "filter.value", "must be a number or text, which have an order"),
        (is_("tags.x", "in", "x"), "filter.value", "must be a list of 1 to 1000 values"),
        (is_("tags.x", "in", []), "filter.value", "must be a list of 1 to 1000 values"),
        (is_("tags.x", "in", [1] * 1_001), "filter.value", "must be a list of 1 to 1000 values"),
        (is_("tags.x", "in", [1, [2]]), "filter.value", "must be text, a number, true or false"),
        (is_("tags.x", "exists", 1), "filter.value", "must be true or false"),
        (is_("has_phone", "=", "yes"), "filter.value", "must be true or false"),
        ({"field": "has_phone", "op": "="}, "filter.value", "must be true or false"),
        (is_("platform", "=", "symbian"), "filter.value", "must be one of android, ios, web"),
        (is_("country", "=", "UK"), "filter.value", "did you mean GB?"),
        (is_("country", "in", ["AT", "Austria"]), "filter.value", "did you mean AT?"),
        (is_("language", "=", "de-AT"), "filter.value", "must be a language like de"),
        (is_("locale", "=", "de AT"), "filter.value", "must be a locale like de-AT"),
        *(
            (is_("last_seen", "<", time), "filter.value", "must be an ISO 8601 time with an offset, or like")
            for time in ("yesterday", "2026-11-21T09:30:00", "-1 days ago", "1 month ago", "999999 days ago", 7)
        ),
        (nested(11), "filter", "is nested deeper than 10 levels"),
        (nested(900), "filter", "is nested deeper than 10 levels"),
        ({"or": [GOLD] * 201}, "filter", "has more than 200 conditions"),
        ({"or": [{"and": [GOLD] * 67}] * 3}, "filter", "has more than 200 conditions"),
    ],
    ids=lambda part: str(part)[:40] if isinstance(part, str | dict) else "",
)
def test_what_is_wrong_is_named_by_its_place(wire: object, place: str, problem: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse(wire)
    assert caught.value.field == place
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "nul"])
def test_what_is_no_json_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InvalidMessage, match=r"^filter: is not JSON"):
        parse_json(text)


@pytest.mark.parametrize(
    ("levels", "problem"), [(900, "filter.value: must be text"), (100_000, "filter: holds something JSON cannot carry")]
)
def test_lists_in_lists_are_no_way_around_the_limit(levels: int, problem: str) -> None:
    with pytest.raises(InvalidMessage, match=problem):
        parse(is_("tags.x", "=", lists(levels)))


def test_a_value_is_not_quoted_in_an_error() -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse(is_("country", "=", "+436601234567"))
    assert "436" not in str(caught.value)


def test_times_are_fixed_or_relative() -> None:
    assert moment("2026-11-21T09:30:00+01:00") == datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    assert moment("2 weeks ago") == Ago(timedelta(weeks=2))
    assert moment("1 minute ago") == Ago(timedelta(minutes=1))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["and", "or", "not", "field", "op", "value", "x"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_json_is_a_filter_or_refused_by_name(wire: object) -> None:
    try:
        parse(wire)
    except InvalidMessage as error:
        refused = error
    else:
        return
    assert refused.field.startswith("filter")
    str(refused).encode()
