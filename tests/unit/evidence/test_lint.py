"""What lint finds in texts, plans and settings, and what it leaves alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from knocktwice_worker.config import Settings
from knocktwice_worker.content import templates
from knocktwice_worker.evidence.lint import Flaw, Rule, of_declarations, of_settings, of_template

LONG = "Your table is ready and we keep it for you until a quarter to eight, please ask for it at the door. "


def _template(sms: str, **fields: Any) -> dict[str, Any]:
    content = {"push": {"title": "t", "body": "b"}, "sms": sms}
    return {"default_locale": "en", "contents": {"en": content}, **fields}


def _found(made: dict[str, Any], **settings: Any) -> list[Flaw]:
    return list(of_template("t", templates.check("t", made), Settings(**settings)))


@pytest.mark.parametrize(
    ("character", "instead"),
    [
        ("\u2019", '"\'"'),
        ("\u2026", "'...'"),
        ("\u2013", "'-'"),
        ("\u00a0", "' '"),
        ("ł", ""),
        ("á", "'a'"),
        ("\U0001f600", ""),
    ],
)
def test_one_character_that_makes_an_sms_dearer_is_named_with_its_place_and_what_to_write(
    character: str, instead: str
) -> None:
    (flaw,) = _found(_template(f"Hi{character} {LONG}"))
    assert (flaw.rule, flaw.where) == (Rule.COSTLY_CHARACTER, "t.contents.en.sms")
    assert f"U+{ord(character):04X}" in flaw.problem
    assert "at character 3" in flaw.problem
    assert "2 parts, and 1 without" in flaw.problem
    assert instead in flaw.fix


@pytest.mark.parametrize(
    "text",
    [
        # Written in the alphabet, however long.
        LONG * 3 + "€ ü Ω",
        # One part either way.
        "It\u2019s ready",
        # Another script: no character alone is to blame.
        "您的餐桌已经准备好了" * 10,
    ],
)
def test_what_costs_nothing_or_cannot_be_helped_is_left_alone(text: str) -> None:
    assert _found(_template(text)) == []


def test_a_signature_and_each_steps_own_text_are_looked_at() -> None:
    fallback = [
        {"when": "not_clicked", "after": "5m", "text": {"en": f"It\u2019s ready. {LONG}"}},
        {"when": "not_clicked", "after": "5m", "text": LONG},
    ]
    (flaw,) = _found(_template(f"It\u2019s here. {LONG}", fallback=fallback))
    assert flaw.where == "t.fallback.0.text.en"
    (flaw,) = _found(_template(LONG, signature="Ada\u2019s"))
    assert flaw.where == "t.contents.en.sms"
    assert _found(_template(f"It\u2019s {LONG}", fallback="never")) == []


def test_markup_is_no_text_and_values_have_some_length() -> None:
    assert _found(_template("{% comment %}\u2019{% endcomment %}Hi {{ name }}")) == []
    # 65 letters and a name are more than one part of UCS-2 has.
    (flaw,) = _found(_template("It\u2019s " + "x" * 60 + " {{ name }}"))
    assert flaw.rule is Rule.COSTLY_CHARACTER


def test_marketing_says_how_to_opt_out_in_each_text_and_language() -> None:
    made = _template("Tea is cheap. Reply STOP to opt out.", category="marketing")
    assert _found(made) == []
    made["contents"]["de"] = {"push": {"title": "t", "body": "Tee ist billig"}}
    assert [(f.rule, f.where) for f in _found(made)] == [(Rule.NO_OPT_OUT, "t.contents.de.push.body")]
    assert _found(_template("Tea is ready", category="transactional")) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Tea is cheap. Reply stop to opt out", True),
        ("R\u00e9pondez ARR\u00caT au 36111", True),
        ("Antworte STOPP, und wir h\u00f6ren auf", True),
        ("Para darte de baja", True),
        ("\u0130PTAL yaz 3111e g\u00f6nder", True),
        ("\u8336\u5f88\u4fbf\u5b9c\uff0c\u9000\u8ba2\u56deT", True),
        ("\u8336\u5f88\u4fbf\u5b9c\uff0c\u56de\u590dTD", True),
        ("\ubb34\ub8cc\uc218\uc2e0\uac70\ubd80 0801234567", True),
        ("Tea is cheap. Text END to 12345", True),
        ("Tea is cheap until the end of May", False),
        ("Cancel your plans, tea is cheap", False),
        ("Unstoppable prices", False),
        ("\u8336\u5f88\u4fbf\u5b9c", False),
    ],
)
def test_a_way_out_is_known_in_any_script_and_ordinary_words_are_none(text: str, said: bool) -> None:
    assert (Rule.NO_OPT_OUT not in [f.rule for f in _found(_template(text, category="marketing"))]) is said


def test_a_recurring_blast_makes_a_marketing_message_of_its_template() -> None:
    blast = {"segment": "all", "template": "tea", "schedule": "0 9 * * 5", "category": "marketing"}
    declared = {"templates": {"tea": _template("Tea is cheap")}, "blasts": {"friday": blast}}
    assert [f.where for f in of_declarations(declared, Settings())] == ["blasts.friday.template.contents.en.sms"]
    # It may be of use for a shorter time than the night lasts, which for its template's own category is no matter.
    declared["templates"]["tea"] = _template("Tea is cheap. STOP ends it", valid_for="3h")
    assert [f.where for f in of_declarations(declared, Settings())] == ["blasts.friday.template"]
    # What is found at the template is not found again.
    declared["templates"]["tea"] = _template("Tea is cheap", category="marketing")
    assert [f.where for f in of_declarations(declared, Settings())] == ["templates.tea.contents.en.sms"]
    declared["blasts"]["friday"]["template"] = "elsewhere"
    declared["templates"]["tea"] = _template("Tea is cheap")
    assert list(of_declarations(declared, Settings())) == []


@pytest.mark.parametrize(
    ("hours", "useful", "flawed"),
    [
        ("21:00-08:00", timedelta(hours=10), True),
        ("21:00-08:00", timedelta(hours=11), False),
        ("08:00-21:00", timedelta(hours=12), True),
        ("", timedelta(minutes=1), False),
    ],
)
def test_marketing_that_no_night_leaves_in_time_is_found(hours: str, useful: timedelta, flawed: bool) -> None:
    settings = Settings(quiet_hours=hours, useless_after_marketing_s=useful.total_seconds())
    assert [f.rule for f in of_settings(settings)] == [Rule.QUIET_FOR_EVER] * flawed
    made = _template("Tea. STOP ends it", category="marketing", valid_for=f"{useful.total_seconds():.0f}s")
    assert [f.rule for f in _found(made, quiet_hours=hours)] == [Rule.QUIET_FOR_EVER] * flawed
