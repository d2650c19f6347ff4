"""Templates whose fallback is a list of steps."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from knocktwice_shared.messages import When
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.channels.twilio.whatsapp import template_of
from knocktwice_worker.content import plans
from knocktwice_worker.content.templates import InvalidDefinition, check

SID = "HX" + "a" * 32
STEPS: list[dict[str, Any]] = [
    {
        "channel": "whatsapp",
        "when": "not_delivered",
        "after": "5m",
        "content_sid": {"en": SID, "de": SID.upper()},
        "variables": {"1": "{{ name }}", "2": "{1}"},
    },
    {"when": "not_clicked", "after": "2h", "text": {"en": "Ready, {{ name }}.", "de": "Fertig, {{ name }}."}},
    {"when": 2, "after": 60, "sender": "+16505550199"},
]


def _definition(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    words = {"push": {"title": "Your table", "body": "It is ready."}}
    return {"default_locale": "en", "contents": {"en": words, "de": words}, "fallback": list(steps), **more}


def test_each_step_has_its_own_channel_words_and_sender() -> None:
    definition = check("table", _definition(*STEPS))
    first, second, third = definition.plan
    assert (first.channel, first.when, first.after) == ("whatsapp", When.NOT_DELIVERED, timedelta(minutes=5))
    assert (second.channel, second.after, third.sender) == ("sms", timedelta(hours=2), "+16505550199")
    assert definition.parameters == ["1", "name"]
    assert check("table", definition.as_json()) == definition


def test_each_person_is_told_in_their_own_language() -> None:
    definition = check("table", _definition(*STEPS, signature="[Cafe]"))
    push, sms = definition.content("de")
    params = {"name": "Ana", "1": "7"}
    written = plans.stored_plan(definition.plan)
    assert written
    whatsapp, text, usual = (
        plans.words(step, push, sms, "de", params, wording=wording_of(step["channel"])) for step in json.loads(written)
    )
    assert template_of(whatsapp.text) == (SID.upper(), {"1": "Ana", "2": "7"})
    assert text.text == "[Cafe] Fertig, Ana."
    assert usual == ("[Cafe] It is ready.", "+16505550199")


def test_one_sms_that_says_what_the_content_says_is_no_plan_of_its_own() -> None:
    assert plans.stored_plan(check("table", _definition({"when": "not_clicked", "after": "5m"})).plan) is None


@pytest.mark.parametrize(
    ("place", "change", "field", "problem"),
    [
        (0, {"content_sid": "order"}, "fallback.0.content_sid", "must be a content template"),
        (0, {"content_sid": {"en": SID}}, "fallback.0.content_sid", "has nothing for de"),
        (0, {"text": "Hello"}, "fallback.0.text", "is for SMS"),
        (0, {"variables": {"1": "{{ name"}}, "fallback.0.variables.1", ""),
        (0, {"channel": "pigeon"}, "fallback.0.channel", "must be one of sms, whatsapp"),
        (1, {"text": {"en": "Ready."}}, "fallback.1.text", "has nothing for de"),
        (1, {"text": "x" * 1595}, "fallback.1.text", "too long with its signature"),
        (1, {"content_sid": SID}, "fallback.1.content_sid", "is for WhatsApp"),
        (1, {"when": "notifications_disabled"}, "fallback.1.when", "only the step right after it"),
        (1, {"after": "soon"}, "fallback.1.after", "must be seconds or a time"),
    ],
)
def test_a_wrong_step_is_refused_with_the_name_of_the_field(
    place: int, change: dict[str, Any], field: str, problem: str
) -> None:
    steps = [step | change if n == place else step for n, step in enumerate(STEPS)]
    with pytest.raises(InvalidDefinition) as caught:
        check("table", _definition(*steps, signature="[Cafe]"))
    assert caught.value.field == f"table.{field}"
    assert problem in caught.value.problem
