"""Texts: filled in strictly, whatever the values, never beyond the providers' limits,
and never at the worker's expense.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from liquid.exceptions import LiquidError

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import PUSH_BYTES_LIMIT, SMS_CHARS_LIMIT, Push
from knocktwice_worker.content.liquid import BrokenTemplate, compile_template, fill, is_template
from knocktwice_worker.content.liquid_values import wrapped
from knocktwice_worker.content.rendering import fingerprint
from support.rendered import render


def body(template: str, **params: Any) -> str:
    return render(Push("Title", template), None, params).body


def test_each_text_is_filled_in_and_the_sms_says_what_the_push_says() -> None:
    texts = render(Push("Hi {{ name }}", "{{ n | plus: 1 }} parcels"), None, {"name": "Zoë 😀", "n": 2})
    assert (texts.title, texts.body, texts.sms) == ("Hi Zoë 😀", "3 parcels", "3 parcels")
    assert render(Push("a", "b"), "{{ name }}!", {"name": "Zoë"}).sms == "Zoë!"


@pytest.mark.parametrize("text", ["50% off { today }", "a }} b", "", "1 < 2 & 3", "{ {name} }"])
def test_a_text_without_placeholders_is_left_alone(text: str) -> None:
    assert body(text) == text


@pytest.mark.parametrize("value", ["{{ other }}", "{% raw %}", "<b>&", "'\"\\", "‮x"])
def test_a_value_is_text_and_never_a_template(value: str) -> None:
    assert body("{{ name }}", name=value) == value


@pytest.mark.parametrize(
    ("field", "push", "sms"),
    [
        ("content.push.title", Push("{{ nme }}", "b"), None),
        ("content.push.body", Push("a", "{{ nme }}"), None),
        ("content.sms.text", Push("a", "b"), "{{ nme }}"),
        ("content.push.body", Push("a", "{{ name.first }}"), None),
        ("content.push.body", Push("a", "{% if nme %}x{% endif %}"), None),
    ],
)
def test_a_missing_value_is_refused_with_the_text_that_wants_it(field: str, push: Push, sms: str | None) -> None:
    with pytest.raises(InvalidMessage, match="undefined") as caught:
        render(push, sms, {"name": "Ana"})
    assert caught.value.field == field
    assert "Ana" not in str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ name",
        "{% if %}",
        "{% if name %}",
        "{% endif %}",
        "{{ name | no_such_filter }}",
        "{% no_such_tag %}",
        "{{ 1 | divided_by: 0 }}",
        "{% include 'file' %}",
        "{% render 'file' %}",
    ],
)
def test_a_broken_template_is_refused(template: str) -> None:
    with pytest.raises(InvalidMessage, match=r"^content\.push\.body: "):
        body(template, name="Ana")


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in (1..100000000) %}x{% endfor %}",
        "{% for i in (1..900) %}{% for j in (1..900) %}x{% endfor %}{% endfor %}",
        "{% tablerow i in (1..100000000) %}x{% endtablerow %}",
        "{% for i in many %}x{% endfor %}",
        "{% for i in (1..900) %}" + "x" * 100 + "{% endfor %}",
        "{% capture c %}{% for i in (1..900) %}" + "x" * 100 + "{% endfor %}{% endcapture %}",
        "{% if 1 %}" * 1_000 + "{% endif %}" * 1_000,
    ],
)
def test_a_template_that_would_eat_the_worker_is_stopped(template: str) -> None:
    with pytest.raises(InvalidMessage, match="limit reached"):
        body(template, many=list(range(2_000)))


# The first text that hypothesis makes in a fresh clone waits for its table of Unicode.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(
            [
                "{{ name }}",
                "{{name}}",
                "{{{ name }}",
                "{{ name }}}",
                "{{ order }}",
                "{{ nil }}",
                "{{ name | upcase }}",
                "{{- name -}}",
                "{{ a.b }}",
                "{{ 'x' }}",
            ]
        )
        | st.text(st.sampled_from("ab {}%|-\n\r'€"), max_size=4),
        max_size=5,
    ).map("".join),
    st.dictionaries(
        st.sampled_from(["name", "order", "nil", "a"]),
        st.text(max_size=5)
        | st.integers()
        | st.booleans()
        | st.none()
        | st.floats(allow_nan=False)
        | st.just({"b": 1}),
    ),
)
def test_the_short_way_says_what_liquid_says(text: str, params: dict[str, Any]) -> None:
    def liquid() -> str:
        return (
            compile_template(text).render({name: wrapped(value) for name, value in params.items()})
            if is_template(text)
            else text
        )

    try:
        said = liquid()
    except (BrokenTemplate, LiquidError):
        with pytest.raises((BrokenTemplate, LiquidError)):
            fill(text, params)
    else:
        assert fill(text, params) == said


def test_a_default_stands_in_for_a_missing_value() -> None:
    assert body("{{ name | default: 'you' }}") == "you"
    assert body("{{ name | default: 'you' }}", name="Ana") == "Ana"


@pytest.mark.parametrize(
    "template",
    [
        "{% assign s = x %}{% for i in (1..20) %}{% assign s = s | append: s %}{% endfor %}",
        "{% assign n = 9 %}{% for i in (1..20) %}{% assign n = n | times: n %}{% endfor %}",
        "{{ x | append: x | append: x | replace: 'x', x }}",
        "{{ (1..300000) | join: x | size }}",
    ],
)
def test_a_template_that_makes_much_of_little_is_refused(template: str) -> None:
    with pytest.raises(InvalidMessage, match=r"limit reached|unknown filter"):
        body(template, x="x" * 1_000)


@pytest.mark.parametrize(
    ("template", "value"), [("{{ x | ceil }}", "inf"), ("{{ x | floor }}", "nan"), ("{{ x | times: x }}", 10**3_000)]
)
def test_a_value_that_a_filter_stumbles_over_is_the_messages_fault(template: str, value: object) -> None:
    with pytest.raises(InvalidMessage, match=r"^content\.push\.body: "):
        body(template, x=value)


def test_an_sms_may_be_as_long_as_the_provider_takes_and_no_longer() -> None:
    assert len(render(Push("a", "b"), "{{ x }}", {"x": "😀" * SMS_CHARS_LIMIT}).sms) == SMS_CHARS_LIMIT
    with pytest.raises(InvalidMessage, match=r"^content\.sms\.text: is 1601 characters when filled in; 1600 at most"):
        render(Push("a", "b"), "{{ x }}", {"x": "x" * (SMS_CHARS_LIMIT + 1)})


def test_a_push_that_grows_too_large_when_filled_in_is_refused() -> None:
    render(Push("{{ x }}", "b"), None, {"x": "x" * (PUSH_BYTES_LIMIT - 200)})
    for push in (Push("{{ x }}", "b"), Push("a", "b", data={"d": "x" * 2_000}, link="https://" + "x" * 1_990)):
        with pytest.raises(
            InvalidMessage, match=r"^content\.push: is [4-9][0-9]{3} bytes when filled in; 3900 at most"
        ):
            render(push, "sms", {"x": "😀" * 1_000})


@given(st.text(st.characters(codec="utf-8"), max_size=50))
def test_any_value_comes_out_as_it_went_in(value: str) -> None:
    # Liquid writes each line end as a line feed, which no reader notices.
    assert body("{{ x }}", x=value) == value.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Your code is 1234", " your  CODE\nis\t1234 "),
        ("Straße", "STRASSE"),
        ("Zo\u00eb", "Zoe\u0308"),
        ("\ufb01x \uff11", "fix 1"),
        ("a\u00a0b", "a b"),
    ],
)
def test_form_case_and_white_space_do_not_make_another_content(one: str, other: str) -> None:
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    "other", ["Your code is 1235", "Your code is 1234!", "Yourcode is 1234", "Your çode is 1234", ""]
)
def test_another_text_is_another_content(other: str) -> None:
    assert fingerprint("Your code is 1234") != fingerprint(other)


@given(st.text(st.characters(codec="utf-8")))
def test_a_fingerprint_is_short_and_the_same_each_time(text: str) -> None:
    assert fingerprint(text) == fingerprint(text + " ") == fingerprint(text)
    assert len(fingerprint(text)) == 16
