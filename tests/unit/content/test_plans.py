"""Plans on the wire and in the application's words: what is taken, and what is refused with the name of the field."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from knocktwice import InvalidMessage, Push, Sms, WhatsApp
from knocktwice.testing import RecordingClient
from knocktwice_shared.messages import Step, When, parse_batch
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.content import plans

SID = "HX" + "0a" * 16
PUSH = Push("Your table", "It is ready.")
WIRE: dict[str, Any] = {
    "v": 1,
    "id": "019a9d3c-5a00-7000-8000-000000000001",
    "content": {"push": {"title": "Your table", "body": "It is ready."}},
    "plan": [
        {"channel": "whatsapp", "when": 2, "after_s": 60, "content_sid": SID, "variables": {"1": "{{ time }}"}},
        {"channel": "sms", "when": "not_clicked", "after_s": 7200, "text": "Until {{ time }}", "sender": "CAFE"},
    ],
    "recipients": [{"id": "019a9d3c-5a00-7000-8000-000000000002", "user": "u-17", "params": {"time": "19:45"}}],
}


def _wire(place: int | None = None, change: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    wire = copy.deepcopy(WIRE) | more
    if place is not None:
        wire["plan"][place] |= change or {}
        wire["plan"][place] = {k: v for k, v in wire["plan"][place].items() if v is not None}
    return wire


def _alone(*steps: dict[str, Any]) -> dict[str, Any]:
    return _wire(content={}, plan=list(steps))


def test_each_step_is_read() -> None:
    minute, hours = timedelta(minutes=1), timedelta(hours=2)
    assert parse_batch(WIRE).plan == (
        Step("whatsapp", When.NOT_CLICKED, minute, content={"content_sid": SID, "variables": {"1": "{{ time }}"}}),
        Step("sms", When.NOT_CLICKED, hours, text="Until {{ time }}", sender="CAFE"),
    )


def test_a_plan_without_a_push_begins_at_once() -> None:
    batch = parse_batch(_alone({"channel": "sms", "text": "Hello"}))
    assert (batch.push, batch.plan) == (None, (Step("sms", None, timedelta(), text="Hello"),))


@pytest.mark.parametrize(
    ("wire", "field", "problem"),
    [
        (_wire(0, {"content_sid": None}), "plan[0].content_sid", "is missing"),
        (_wire(0, {"content_sid": "HX12"}), "plan[0].content_sid", "HX and 32 hex digits"),
        (_wire(0, {"text": "Hello"}), "plan[0].text", "is for SMS; WhatsApp takes templates"),
        (_wire(0, {"variables": {"1": 7}}), "plan[0].variables.1", "must be text, not int"),
        (_wire(0, {"variables": ["a"]}), "plan[0].variables", "must be an object, not list"),
        (_wire(0, {"sender": "x" * 65}), "plan[0].sender", "64 at most"),
        (_wire(1, {"content_sid": SID}), "plan[1].content_sid", "is for WhatsApp; an SMS has text"),
        (_wire(1, {"text": "x" * 1601}), "plan[1].text", "1600 at most"),
        (_wire(1, {"text": "{{ tme }}"}), "recipients[0].params.tme", "plan[1].text uses {{ tme }}"),
        (_wire(0, {"variables": {"1": "{{ tme }}"}}), "recipients[0].params.tme", "plan[0].variables.1 uses"),
        (_wire(1, {"when": "notifications_disabled"}), "plan[1].when", "only the step right after it"),
        (_wire(1, {"when": None}), "plan[1].when", "must be one of"),
        (_wire(1, {"channel": "fax"}), "plan[1].channel", "must be one of sms, whatsapp"),
        (_alone(), "content.push", "is missing; give what to say"),
        (_alone({"channel": "sms", "text": "a", "after_s": 60}), "content.push", "a step that goes at once"),
        (_alone({"channel": "sms"}), "plan[0].text", "there is no push whose body it could say"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_step_is_refused(wire: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse_batch(wire)
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_the_application_writes_steps_in_its_own_words() -> None:
    client = RecordingClient()
    steps: list[Sms | WhatsApp] = [
        WhatsApp(SID, {"1": "{{ time }}"}, when=2, after=timedelta(minutes=1)),
        Sms("Until {{ time }}", when="not_clicked", after=timedelta(hours=2), sender="CAFE"),
    ]
    client.notify(user="u-17", push=PUSH, steps=steps, params={"time": "19:45"})
    assert client.assert_notified("u-17").batch.plan == parse_batch(WIRE).plan


def test_a_first_step_without_a_push_has_no_condition() -> None:
    client = RecordingClient()
    client.notify(user="u-17", sms=Sms("Your code is 4711."))
    (step,) = client.assert_notified("u-17").batch.plan or ()
    assert (step.when, step.after) == (None, timedelta())


@pytest.mark.parametrize(
    ("field", "problem", "arguments"),
    [
        ("steps", "stands beside sms; give one or the other", {"sms": Sms(), "steps": [Sms()]}),
        ("steps", "must be a list of Sms and WhatsApp", {"steps": "sms"}),
        ("steps", "must be a list of Sms and WhatsApp", {"steps": Sms()}),
        ("steps[1]", "must be a Sms or a WhatsApp, not str", {"steps": [Sms(), "sms"]}),
        ("steps", "has 11 items; 0 to 10", {"steps": [Sms()] * 11}),
        ("steps[1].content_sid", "HX and 32 hex digits", {"steps": [Sms(), WhatsApp("order")]}),
        ("steps[1].after", "(30 days)", {"steps": [Sms(), Sms(after=timedelta(days=31))]}),
        ("steps[0].when", "must be one of", {"steps": [Sms(when="never")]}),
        ("params.time", "steps[0].text uses {{ time }}", {"steps": [Sms("Until {{ time }}")]}),
        ("sms.text", "there is no push whose body it could say", {"push": None, "sms": Sms()}),
        ("sms.sender", "64 at most", {"sms": Sms(sender="x" * 65)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_is_named_in_the_callers_words(field: str, problem: str, arguments: dict[str, Any]) -> None:
    client = RecordingClient()
    usual: dict[str, Any] = {"user": "u-17", "push": PUSH}
    with pytest.raises(InvalidMessage) as caught:
        client.notify(**usual | arguments)
    assert caught.value.field == field
    assert problem in caught.value.problem
    client.assert_nobody_notified()


def test_what_does_not_fit_when_filled_in_is_named() -> None:
    plan = (Step("whatsapp", None, timedelta(), content={"content_sid": SID, "variables": {"1": "{{ long }}"}}),)
    found = plans.problems(plan, None, None, None, {"long": "x" * 1_600}, wording_of=wording_of)
    assert str(found[0]).startswith("plan[0].variables: are over 1600 characters")


def test_one_plain_sms_needs_no_plan_in_its_batch() -> None:
    plain = Step("sms", When.NOT_CLICKED, timedelta(minutes=5))
    assert plans.stored_plan([]) is None
    assert plans.stored_plan([plain]) is None
    assert plans.stored_plan([plain, plain])
