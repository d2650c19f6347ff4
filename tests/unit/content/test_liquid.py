"""Liquid's standard filters and tags work as in Shopify's reference, or are refused; docs/liquid.md says which."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import Push
from knocktwice_worker.content import liquid, liquid_environment, rendering
from support.rendered import render

DOC = (Path(__file__).parents[3] / "docs" / "liquid.md").read_text()

#: The examples of https://shopify.github.io/liquid/filters and /tags: template, parameters, result.
REFERENCE: list[tuple[str, dict[str, Any], str]] = [
    ("{{ -17 | abs }}", {}, "17"),
    ("{{ '/my/fancy/url' | append: '.html' }}", {}, "/my/fancy/url.html"),
    ("{{ 4 | at_least: 5 }} {{ 4 | at_most: 3 }}", {}, "5 3"),
    ("{{ 'one two' | base64_encode }}", {}, "b25lIHR3bw=="),
    ("{{ 'b25lIHR3bw==' | base64_decode }}", {}, "one two"),
    ("{{ '<<???>>' | base64_url_safe_encode }}", {}, "PDw_Pz8-Pg=="),
    ("{{ 'PDw_Pz8-Pg==' | base64_url_safe_decode }}", {}, "<<???>>"),
    ("{{ 'my GREAT title' | capitalize }}", {}, "My great title"),
    ("{{ 1.2 | ceil }} {{ 1.7 | floor }} {{ 2.7 | round }} {{ 183.357 | round: 2 }}", {}, "2 1 3 183.36"),
    ("{{ a | compact | join: ',' }}", {"a": ["x", None, "y"]}, "x,y"),
    ("{{ a | concat: b | join: ' ' }}", {"a": ["x"], "b": ["y", 1]}, "x y 1"),
    ("{{ '2026-11-20' | date: '%d %b %Y' }}", {}, "20 Nov 2026"),
    ("{{ nil | default: 'you' }}{{ '' | default: '!' }}{{ false | default: true, allow_false: true }}", {}, "you!false"),
    ("{{ 20 | divided_by: 7 }} {{ 20 | divided_by: 7.0 | round: 3 }}", {}, "2 2.857"),
    ("{{ 'Parker Moore' | downcase }} {{ 'Parker' | upcase }}", {}, "parker moore PARKER"),
    ("{{ '1 < 2 & 3' | escape }} {{ '1 &lt; 2 & 3' | escape_once }}", {}, "1 &lt; 2 &amp; 3 1 &lt; 2 &amp; 3"),
    ("{% assign f = a | find: 'k', 2 %}{{ f.n }}", {"a": [{"k": 1, "n": "x"}, {"k": 2, "n": "y"}]}, "y"),
    ("{{ a | find_index: 'k', 2 }} {{ a | has: 'k', 3 }}", {"a": [{"k": 1}, {"k": 2}]}, "1 false"),
    ("{{ a | first }}{{ a | last }}", {"a": ["x", "y"]}, "xy"),
    ("{{ a | join: ' and ' }}", {"a": ["John", "Paul"]}, "John and Paul"),
    ("{{ '  x  ' | lstrip }}|{{ '  x  ' | rstrip }}|{{ '  x  ' | strip }}", {}, "x  |  x|x"),
    ("{{ a | map: 'n' | join: ', ' }}", {"a": [{"n": "x"}, {"n": "y"}]}, "x, y"),
    ("{{ 4 | minus: 2 }} {{ 183 | modulo: 12 }} {{ 4 | plus: 2 }} {{ 3 | times: 2 }}", {}, "2 3 6 6"),
    ("{{ a | newline_to_br }}", {"a": "x\ny"}, "x<br />\ny"),
    ("{{ 'b' | prepend: 'a' }}", {}, "ab"),
    ("{{ a | reject: 'k', 1 | map: 'k' | join }}", {"a": [{"k": 1}, {"k": 2}]}, "2"),
    ("{{ 'a-b-a' | remove: 'a' }} {{ 'a-b-a' | remove_first: 'a' }} {{ 'a-b-a' | remove_last: 'a' }}", {}, "-b- -b-a a-b-"),
    ("{{ 'a-a' | replace: 'a', 'x' }} {{ 'a-a' | replace_first: 'a', 'x' }}", {}, "x-x x-a"),
    ("{{ 'a-a' | replace_last: 'a', 'x' }}", {}, "a-x"),
    ("{{ 'a,b' | split: ',' | reverse | join: ',' }}", {}, "b,a"),
    ("{{ 'Liquid' | size }} {{ 'Liquid' | slice: 2, 3 }} {{ 'Liquid' | slice: -3, 2 }}", {}, "6 qui ui"),
    ("{{ 'zebra,octopus,Sally' | split: ',' | sort | join: ' ' }}", {}, "Sally octopus zebra"),
    ("{{ 'zebra,octopus,Sally' | split: ',' | sort_natural | join: ' ' }}", {}, "octopus Sally zebra"),
    ("{{ a | squish }}", {"a": "  x \n y "}, "x y"),
    ("{{ 'Have <em>you</em>' | strip_html }}", {}, "Have you"),
    ("{{ a | strip_newlines }}", {"a": "x\ny"}, "xy"),
    ("{{ a | sum }} {{ b | sum: 'q' }}", {"a": [1, 2], "b": [{"q": 2}, {"q": 3}]}, "3 5"),
    ("{{ 'Ground control' | truncate: 9 }} {{ 'a b c' | truncatewords: 2 }}", {}, "Ground... a b..."),
    ("{{ 'ant bug ant' | split: ' ' | uniq | join: ' ' }}", {}, "ant bug"),
    ("{{ '%27Stop%21%27+said' | url_decode }} {{ 'a b@c' | url_encode }}", {}, "'Stop!' said a+b%40c"),
    ("{{ a | where: 'k', 'v' | size }} {{ a | where: 'w' | size }}", {"a": [{"k": "v"}, {"w": True}]}, "1 1"),
    ("{% assign a = 1 %}{% capture b %}{{ a }}!{% endcapture %}{{ b }}", {}, "1!"),
    ("{% case a %}{% when 1, 2 %}few{% else %}many{% endcase %}", {"a": 2}, "few"),
    ("{% comment %}x{% endcomment %}{% # y %}{% echo 'z' %}", {}, "z"),
    ("{% for i in (1..5) %}{% if i == 2 %}{% continue %}{% elsif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}", {}, "13"),
    ("{% for i in a limit: 2 offset: 1 %}{{ i }}{% else %}none{% endfor %}", {"a": [1, 2, 3, 4]}, "23"),
    ("{% cycle 'a', 'b' %}{% cycle 'a', 'b' %}{% increment n %}{% increment n %}{% decrement m %}", {}, "ab01-1"),
    ("{% for i in a %}{% ifchanged %}{{ i }}{% endifchanged %}{% endfor %}", {"a": [1, 1, 2]}, "12"),
    ("{% liquid assign a = 1\n echo a %}{% raw %}{{ b }}{% endraw %}", {}, "1{{ b }}"),
    ("{% unless a %}x{% endunless %}", {"a": False}, "x"),
    ("{% tablerow i in (1..2) %}{{ i }}{% endtablerow %}", {}, '<tr class="row1">\n<td class="col1">1</td><td class="col2">2</td></tr>\n'),
]  # fmt: skip


@pytest.mark.parametrize(("template", "params", "result"), REFERENCE)
def test_it_works_as_in_the_reference(template: str, params: dict[str, Any], result: str) -> None:
    assert liquid.fill(template, params) == result


def _listed(heading: str) -> set[str]:
    section = DOC.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {
        name
        for row in section.splitlines()
        if row.startswith("|")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }


def test_the_document_lists_exactly_what_is_on_and_what_is_refused() -> None:
    assert _listed("Filters") == set(liquid_environment.FILTERS)
    assert _listed("Tags") == liquid_environment.tags()
    assert _listed("Refused") == set(liquid_environment.ABSENT_TAGS)
    assert _listed("Filters") == {name for t, _, _ in REFERENCE for name in re.findall(r"\| (\w+)", t)} | {"track"}


@pytest.mark.parametrize(
    ("template", "params", "text"),
    [
        ("{{ items }}", {"items": [{"qty": 2}]}, '{"qty": 2}'),
        ("{{ a }}", {"a": {"b": None, "c": [True, "é"]}}, '{"b": null, "c": [true, "é"]}'),
        ("{{ a }}", {"a": ["x", True, None, 1]}, "xtrue1"),
        ("{{ a | append: '!' }}", {"a": [1, True]}, "[1, true]!"),
        ("{{ a | append: '!' }}", {"a": True}, "true!"),
        ("{{ a | join: ',' }}", {"a": [True, None, {"b": 1}]}, 'true,,{"b": 1}'),
        ("{{ 'a b' | split: ' ' | append: '!' }}", {}, '["a", "b"]!'),
        ("{{ a | first }}", {"a": {"b": 1}}, "b1"),
        ("{% echo a %}", {"a": {"b": False}}, '{"b": false}'),
    ],
)
def test_no_value_is_written_as_python_writes_it(template: str, params: dict[str, Any], text: str) -> None:
    assert liquid.fill(template, params) == text


@pytest.mark.parametrize("missing", ["first-name", "firstname", "First_Name"])
def test_a_name_that_is_nearly_right_gets_a_hint(missing: str) -> None:
    with pytest.raises(InvalidMessage, match=f"'{missing}' is undefined; did you mean first_name"):
        render(Push("t", f"{{{{ {missing} }}}}"), None, {"first_name": "Ana", "x": 1})


def test_nothing_empty_is_sent() -> None:
    empty = "{% if vip %}Thank you{% endif %} "
    with pytest.raises(InvalidMessage, match=r"content\.push: says nothing when filled in"):
        render(Push(empty, empty), "text", {"vip": False})
    with pytest.raises(InvalidMessage, match=r"content\.sms\.text: says nothing when filled in"):
        render(Push("t", "b"), empty, {"vip": False})
    with pytest.raises(InvalidMessage, match=r"content\.sms\.text: says nothing when filled in"):
        rendering.render_sms(Push("t", empty), None, {"vip": False})
    assert render(Push("t", empty), None, {"vip": False}).title == "t"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abk"), inner, max_size=2),
    max_leaves=6,
)


@given(
    st.sampled_from(liquid_environment.FILTERS),
    st.lists(st.sampled_from(["a", "b", "'x'", "''", "-1", "0", "nil", "(1..3)", "'k'"]), max_size=3),
    st.fixed_dictionaries({"a": VALUES, "b": VALUES}),
)
def test_no_filter_crashes_on_any_value(name: str, args: list[str], params: dict[str, Any]) -> None:
    template = "{{ a | " + name + (": " + ", ".join(args) if args else "") + " }}"
    with suppress(InvalidMessage):
        assert "None" not in rendering.fill_in("field", template, params)


@given(
    st.lists(
        st.sampled_from(
            [
                "{{",
                "}}",
                "{%",
                "%}",
                "if",
                "for",
                "i in a",
                "endfor",
                "endif",
                "a",
                "|",
                "join",
                ":",
                "'",
                "(1..3)",
                "case",
                "when",
                "raw",
                "cycle",
                "liquid",
                "assign b =",
                "\n",
                "-",
                ".",
                "[",
                "]",
            ]
        ),
        max_size=14,
    ).map(" ".join)
)
def test_no_template_crashes(template: str) -> None:
    try:
        liquid.variables(template)
    except liquid.BrokenTemplate:
        return
    with suppress(InvalidMessage):
        rendering.fill_in("field", template, {"a": [1, {"k": 2}]})
