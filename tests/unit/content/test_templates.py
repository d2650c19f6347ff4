"""A definition is right as a whole or refused by the name of the field; a locale finds its contents."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any

import pytest

from knocktwice_shared.messages import TENCENT_CONDITIONS, Push, Step, When
from knocktwice_worker.content.locales import canonical, negotiate
from knocktwice_worker.content.templates import InvalidDefinition, check

EN: dict[str, Any] = {
    "push": {"title": "Hello {{ name }}", "body": "{{ courier }} is here", "link": "https://x.example"}
}
FULL: dict[str, Any] = {
    "default_locale": "en",
    "category": "marketing",
    "fallback": {"when": "not_clicked", "after": "5m"},
    "signature": "Shop:",
    "contents": {"en": EN, "de_at": {"push": {"title": "Servus", "body": "{1}, {2}"}, "sms": "{{ code }}"}},
}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the definition with something else at the path; ``None`` leaves it out."""
    definition: Any = copy.deepcopy(FULL)
    *outer, last = path.split(".")
    inside = definition
    for step in outer:
        inside = inside[step]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    return definition  # type: ignore[no-any-return]


def test_a_definition_comes_out_as_it_went_in() -> None:
    definition = check("order", FULL)
    assert definition.as_json() == json.loads(json.dumps(FULL).replace("de_at", "de-AT"))
    assert check("order", definition.as_json()) == definition
    assert definition.parameters == ["1", "2", "code", "courier", "name"]
    assert definition.plan == (Step("sms", When.NOT_CLICKED, timedelta(minutes=5)),)


def test_the_smallest_definition_says_nothing_but_the_push() -> None:
    definition = check("a", {"default_locale": "en", "contents": {"en": {"push": {"title": "t", "body": "b"}}}})
    assert (definition.plan, definition.category, definition.signature) == ((), "transactional", None)
    assert definition.content("en") == (Push("t", "b"), None)


@pytest.mark.parametrize(
    ("text", "liquid"),
    [
        ("{1} and {12}", '{{ ["1"] }} and {{ ["12"] }}'),
        ("{{ a }}{2}{% if a %}{3}{% endif %}", '{{ a }}{{ ["2"] }}{% if a %}{{ ["3"] }}{% endif %}'),
        ("{0} {100} {x} { 1 } {}", "{0} {100} {x} { 1 } {}"),
        ("{{ '{1}' }} {% raw %}{1}{% endraw %}", "{{ '{1}' }} {% raw %}{1}{% endraw %}"),
    ],
)
def test_a_number_in_braces_is_a_parameter_unless_it_stands_in_markup(text: str, liquid: str) -> None:
    definition = check("a", {"default_locale": "en", "contents": {"en": {"push": {"title": "t", "body": text}}}})
    push, _ = definition.content("en")
    assert push is not None
    assert push.body == liquid


@pytest.mark.parametrize("sender", ["+16505550100", "12345", "Shop", "MGM Grand", "A-1 & co_", "MG" + "0a" * 16])
def test_a_number_a_name_or_a_service_may_send(sender: str) -> None:
    assert check("order", {**FULL, "sender": sender}).as_json()["sender"] == sender


def test_the_signature_stands_before_every_sms() -> None:
    definition = check("order", FULL)
    assert definition.content("en")[1] == "Shop: {{ courier }} is here"
    assert definition.content("de-AT")[1] == "Shop: {{ code }}"


@pytest.mark.parametrize(
    ("after", "seconds", "written"),
    [("5m", 300, "5m"), ("90 s", 90, "90s"), (3600, 3_600, "1h"), ("1.5h", 5_400, "90m"), ("30d", 2_592_000, "30d"), (0, 0, "0s"), (0.5, 0.5, "0.5s")],
)  # fmt: skip
def test_a_delay_is_written_as_people_say_it(after: object, seconds: float, written: str) -> None:
    definition = check("order", changed("fallback.after", after))
    assert definition.plan[0].after == timedelta(seconds=seconds)
    assert definition.as_json()["fallback"]["after"] == written


@pytest.mark.parametrize(("number", "when"), list(enumerate(TENCENT_CONDITIONS)))
def test_tencents_numbers_name_the_conditions(number: int, when: When) -> None:
    assert check("order", changed("fallback.when", number)).plan[0].when is when


@pytest.mark.parametrize(
    ("path", "value", "field", "problem"),
    [
        ("default_locale", None, "default_locale", "is missing"),
        ("default_locale", "fr", "default_locale", "has no contents (fr); there are en, de-AT"),
        ("default_locale", "klingon", "default_locale", "is not a locale such as de or de-AT"),
        ("category", "spam", "category", "'transactional', 'marketing' or 'critical'"),
        ("fallback", "sometimes", "fallback", "must be never, or have when and after"),
        ("fallback", 5, "fallback", "must be never, or have when and after"),
        (
            "fallback.when",
            "not_read",
            "fallback.when",
            "'notifications_disabled', 'not_delivered', 'not_clicked', 'not_answered', 'delivered' or 'clicked'",
        ),
        ("fallback.when", 3, "fallback.when", "'not_clicked'"),
        ("fallback.when", None, "fallback.when", "is missing"),
        ("fallback.after", "soon", "fallback.after", 'must be seconds or a time like "90s", "5m", "2h" or "1d"'),
        ("fallback.after", True, "fallback.after", "must be seconds"),
        ("fallback.after", "31d", "fallback.after", "between 0 and 30 days"),
        ("fallback.after", -1, "fallback.after", "between 0 and 30 days"),
        ("fallback.afer", "5m", "fallback.afer", "is not a field of a template"),
        ("signature", "{{ name }}", "signature", "must be plain text"),
        ("signature", "x" * 51, "signature", "at most 50"),
        ("sendr", "+16505550100", "sendr", "is not a field of a template"),
        *(
            ("sender", wrong, "sender", problem)
            for wrong, problem in (
                ("", "is no sender: write a number in E.164"),
                (" ", "is no sender: write a number in E.164"),
                ("123456789", "is a number without its country code"),
                ("Twelve Chars", "is a name of 12 characters, and networks take 11"),
                ("MG" + "a" * 31, "networks take 11"),
                ("Café", "is a name with the character 'é'"),
                ("a\nb", "is a name with the character"),
                ("{{ x }}", "is a name with the character '{'"),
            )
        ),
        ("sender", 12345, "sender", "must be text; put it in quotes"),
        ("contents", {}, "contents", "at least 1"),
        ("contents", ["en"], "contents", "valid dictionary"),
        ("contents", {"en": EN, "xx-yy-zz": EN}, "contents.xx-yy-zz", "is not a locale"),
        ("contents", {"en": EN, "de-AT": EN, "de_AT": EN}, "contents.de_AT", "is there twice"),
        ("contents.en.push.title", None, "contents.en.push.title", "is missing"),
        ("contents.en.push.title", 7, "contents.en.push.title", "must be text; put it in quotes"),
        ("contents.en.push.title", " ", "contents.en.push.title", "is empty"),
        ("contents.en.push.boddy", "x", "contents.en.push.boddy", "is not a field of a template"),
        ("contents.en.push.body", "x" * 3_900, "contents.en.push", "3900 at most"),
        ("contents.en.push.body", "{{ name", "contents.en.push.body", "'{{' is never closed by '}}'"),
        ("contents.en.push.body", "{{ name | shout }}", "contents.en.push.body", "unknown filter 'shout'"),
        ("contents.en.push.body", "{% if %}", "contents.en.push.body", "missing expression"),
        ("contents.en.push.data", {"from": "x"}, "contents.en.push.data.from", "choose another"),
        ("contents.en.push.link", "shop.example", "contents.en.push.link", "must be an address"),
        ("contents.en.sms", "x" * 1_601, "contents.en.sms", "1600 at most"),
        ("contents.en.sms", "x" * 1_600, "contents.en.sms", "1606 characters with its signature"),
        ("contents.en.sms", "{% bogus %}", "contents.en.sms", "unexpected tag 'bogus'"),
        ("contents.en.sms", {"text": "x"}, "contents.en.sms", "must be text"),
    ],
)
def test_a_wrong_definition_is_refused_with_the_name_of_the_field(
    path: str, value: object, field: str, problem: str
) -> None:
    with pytest.raises(InvalidDefinition) as caught:
        check("order", changed(path, value))
    assert caught.value.field == f"order.{field}"
    assert problem in caught.value.problem


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "x" * 101, "ä", "a/b", 7, None])
def test_a_name_can_be_typed(name: object) -> None:
    with pytest.raises(InvalidDefinition, match="a name has letters, digits"):
        check(name, FULL)


def test_without_a_default_nobody_of_another_language_is_served() -> None:
    definition = check("order", {**FULL, "default_locale": None})
    assert definition.as_json()["default_locale"] is None
    assert (definition.choose("en-GB"), definition.choose("fr"), definition.choose(None)) == ("en", None, None)
    assert check("order", FULL).choose("fr") == "en"


@pytest.mark.parametrize(
    ("tag", "locale"), [("de", "de"), ("de_at", "de-AT"), ("DE-at", "de-AT"), ("zh-TW", "zh-Hant-TW"), ("pt_BR", "pt-BR")]
)  # fmt: skip
def test_a_locale_has_one_spelling(tag: str, locale: str) -> None:
    assert canonical(tag) == canonical(locale) == locale


@pytest.mark.parametrize("tag", ["", "x", "german", "de-", "12", "../de", "de\0", "no such"])
def test_what_cldr_does_not_know_is_no_locale(tag: str) -> None:
    with pytest.raises(ValueError, match="is not a locale"):
        canonical(tag)


@pytest.mark.parametrize(
    ("wanted", "available", "best"),
    [
        ("de-AT", {"de", "de-AT", "en"}, "de-AT"),
        ("de-CH", {"de", "de-AT"}, "de"),
        ("de", {"de-AT"}, "de-AT"),
        ("de_AT", {"de"}, "de"),
        ("es-MX", {"es", "es-419"}, "es-419"),
        ("en-AU", {"en", "en-001"}, "en-001"),
        ("zh-TW", {"zh-Hans", "zh"}, "zh"),
        ("zh-TW", {"zh-Hans", "en"}, "zh-Hans"),
        ("zh-CN", {"zh"}, "zh"),
        ("zh-HK", {"zh-Hant", "zh"}, "zh-Hant"),
        ("nb-NO", {"no", "en"}, "no"),
        ("fr", {"de", "en"}, None),
        ("klingon", {"de", "en"}, None),
        ("", {"en"}, None),
    ],
)
def test_the_nearest_language_is_taken_and_never_another(wanted: str, available: set[str], best: str | None) -> None:
    assert negotiate(wanted, frozenset(available)) == best


HX = "HX0123456789abcdef0123456789abcdef"


def _made(contents: object, fallback: object = None) -> Any:
    given = {} if fallback is None else {"fallback": fallback}
    return check("a", {"default_locale": "en", "contents": {"en": contents}, **given})


def test_one_text_is_for_all_channels_that_have_none_of_their_own() -> None:
    push, sms = _made({"text": "Ready", "push": {"title": "t"}}).content("en")
    assert (push.body, sms) == ("Ready", None)
    push, sms = _made({"text": "Ready", "push": {"title": "t", "body": "b"}}).content("en")
    assert (push.body, sms) == ("b", "Ready")
    push, sms = _made({"text": "Ready", "push": {"title": "t"}, "sms": "s"}).content("en")
    assert (push.body, sms) == ("Ready", "s")
    assert _made({"text": "Ready"}).content("en") == (None, "Ready")


def test_a_template_may_begin_with_any_channel() -> None:
    (step,) = _made({"text": "Ready"}).plan
    assert (step.channel, step.when, step.after) == ("sms", None, timedelta())
    first, second = _made(
        {"text": "Ready"}, [{"channel": "whatsapp", "content_sid": HX}, {"when": "not_clicked", "after": "2h"}]
    ).plan
    assert (first.channel, first.when, second.channel, second.when) == ("whatsapp", None, "sms", When.NOT_CLICKED)
    assert _made({}, [{"channel": "whatsapp", "content_sid": HX}]).content("en") == (None, None)


@pytest.mark.parametrize(
    ("contents", "fallback", "problem"),
    [
        ({}, None, "a.contents.en.text: is missing; there is nothing else that an SMS could say"),
        ({"text": "x"}, "never", "a.fallback: is never, and there is no push: nothing would be sent"),
        ({"text": "x"}, {"when": "not_clicked"}, "a.fallback.when: must be left out"),
        ({"text": "x"}, [{"after": "5m"}], "a.fallback.0.after: must be left out"),
        ({"text": "x"}, [{}, {"after": "5m"}], "a.fallback.1.when: is missing"),
        ({"push": {"title": "t"}}, None, "a.contents.en.push.body: is missing"),
        ({"push": {"title": "t"}, "text": " "}, None, "a.contents.en.text: is empty"),
        ({"text": "{{ a "}, None, "a.contents.en.text: "),
        ({"push": {"title": "t", "body": "b"}}, {"after": "5m"}, "a.fallback.when: is missing"),
        ({"push": {"title": "t", "body": "b"}}, {"when": "not_clicked"}, "a.fallback.after: is missing"),
    ],
)
def test_what_nobody_could_be_sent_is_refused(contents: object, fallback: object, problem: str) -> None:
    with pytest.raises(InvalidDefinition) as raised:
        _made(contents, fallback)
    assert str(raised.value).startswith(problem)


def test_either_all_languages_have_a_push_or_none() -> None:
    contents = {"en": {"push": {"title": "t", "body": "b"}}, "de": {"text": "b"}}
    with pytest.raises(InvalidDefinition, match="other languages have one"):
        check("a", {"default_locale": "en", "contents": contents})


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ({"defalt_locale": "en"}, ["a.default_locale", "a.contents", "a.defalt_locale"]),
        (
            {"default_locale": "xx", "valid_for": "0s", "sender": "?", "contents": {"en": {"sms": 5}}},
            ["a.default_locale", "a.valid_for", "a.sender", "a.contents.en.sms"],
        ),
        (
            {
                "default_locale": "en",
                "contents": {
                    "en": {"push": {"title": "{{ a", "body": "{% if %}"}, "sms": "{{ x | nope }}"},
                    "de": {"push": {"title": " ", "body": "b", "link": "javascript:x"}},
                },
            },
            [
                "a.contents.en.push.title",
                "a.contents.en.push.body",
                "a.contents.en.sms",
                "a.contents.de.push.title",
                "a.contents.de.push.link",
            ],
        ),
        (
            {"default_locale": "en", "contents": {"en": EN, "cn": EN, "english": EN}},
            ["a.contents.cn", "a.contents.english"],
        ),
    ],
)
def test_all_that_is_wrong_with_a_definition_is_named(value: object, fields: list[str]) -> None:
    with pytest.raises(InvalidDefinition) as raised:
        check("a", value)
    assert [one.field for one in raised.value.problems] == fields
