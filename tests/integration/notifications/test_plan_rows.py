"""A batch with a plan of its own is accepted: what is written, what is refused, and what each step says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, PhoneBound, parse_batch
from knocktwice_worker.audience import people
from knocktwice_worker.content import template_store, templates

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services

NUMBER = "+16505550100"
SID = "HX" + "0" * 32
AT = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def here(working: Services) -> Services:
    """A worker's services; Ada has a device and a number."""
    with working.engine.begin() as conn:
        people.apply(conn, [DeviceRegistered("ada", "silent-1", AT), PhoneBound("ada", NUMBER, AT)])
    return working


def _send(here: Services, **batch: Any) -> str:
    recipient = {"id": str(uuid7()), "user": "ada", "params": {"time": "19:45"}}
    here.pushes.send(parse_batch({"v": 1, "id": str(uuid7()), "recipients": [recipient], **batch}))
    return str(recipient["id"])


def _take(here: Services, id_: str) -> None:
    """Take the step that is due."""
    assert here.later_steps.send(here.fallback.check([id_])) == [id_]


def _rows(here: Services, query: str) -> list[tuple[Any, ...]]:
    with here.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query))]


def test_without_a_push_no_device_hears_of_it(here: Services, sandbox: Sandbox) -> None:
    id_ = _send(here, content={}, plan=[{"channel": "sms", "text": "Until {{ time }}."}])
    assert _rows(here, "SELECT step, channel FROM deliveries") == [(1, "sms")]
    _take(here, id_)
    assert [text.body for text in sandbox.texts(NUMBER)] == ["Until 19:45."]
    assert sandbox.requests("push") == 0


def test_a_shortest_delay_is_not_for_a_step_that_waits_for_nothing(here: Services) -> None:
    strict = type(here)(here.settings.model_copy(update={"min_after_s": 60.0}))
    _send(strict, content={"sms": {"text": "Hello"}}, plan=[{"channel": "sms"}])
    assert _rows(here, "SELECT state FROM notifications") == [("active",)]
    strict.close()


def test_a_delay_that_the_operators_forbid_is_named_by_its_step(here: Services) -> None:
    strict = type(here)(here.settings.model_copy(update={"min_after_s": 60.0}))
    later = {"channel": "sms", "when": "not_clicked", "after_s": 30}
    _send(strict, content={"sms": {"text": "Hello"}}, plan=[{"channel": "sms"}, later])
    ((state, reason),) = _rows(here, "SELECT state, reason FROM notifications")
    assert state == "failed"
    assert reason.startswith("plan[1].after_s: must be between")
    strict.close()


def test_a_step_that_cannot_be_filled_in_is_named_before_anything_is_sent(here: Services) -> None:
    step = {"channel": "whatsapp", "content_sid": SID, "variables": {"1": "{{ time | no_such_filter }}"}}
    _send(here, content={}, plan=[step])
    ((state, reason),) = _rows(here, "SELECT state, reason FROM notifications")
    assert state == "failed"
    assert reason.startswith("plan[0].variables.1: ")


def test_each_step_has_its_own_sender(here: Services, sandbox: Sandbox) -> None:
    steps: list[dict[str, Any]] = [
        {"channel": "whatsapp", "content_sid": SID, "sender": "+16505550198"},
        {"channel": "sms", "when": "not_clicked", "after_s": 0, "text": "Hello", "sender": "CAFE"},
    ]
    id_ = _send(here, content={}, plan=steps)
    _take(here, id_)
    _take(here, id_)
    assert [(text.to, text.sender) for text in sandbox.texts()] == [
        (f"whatsapp:{NUMBER}", "whatsapp:+16505550198"),
        (NUMBER, "CAFE"),
    ]


def test_without_a_sender_whatsapp_is_passed_over(here: Services) -> None:
    bare = type(here)(here.settings.model_copy(update={"whatsapp_from": None}))
    later = {"channel": "sms", "when": "not_clicked", "after_s": 3600, "text": "Hello"}
    id_ = _send(bare, content={}, plan=[{"channel": "whatsapp", "content_sid": SID}, later])
    assert bare.fallback.check([id_]) == []
    _take(bare, id_)
    query = "SELECT state, reason FROM deliveries ORDER BY step"
    assert _rows(here, query) == [("skipped", "no_sender"), ("sent", None)]
    bare.close()


def test_a_templates_steps_speak_the_language_of_the_person(here: Services, sandbox: Sandbox) -> None:
    words = {"push": {"title": "Table", "body": "Until {{ time }}"}}
    steps = [
        {
            "channel": "whatsapp",
            "when": "not_clicked",
            "after": 0,
            "content_sid": {"en": SID, "de": SID.replace("0", "1")},
        },
        {"when": "not_clicked", "after": 0, "text": {"en": "Come at {{ time }}", "de": "Komm um {{ time }}"}},
    ]
    definition = {"default_locale": "en", "contents": {"en": words, "de": words}, "fallback": steps}
    with here.engine.begin() as conn:
        template_store.put(conn, "table", templates.check("table", definition))
        conn.execute(sa.text("UPDATE users SET locale = 'de-AT'"))
    id_ = _send(here, content={"template": "table"})
    _take(here, id_)
    _take(here, id_)
    assert [text.body for text in sandbox.texts()] == [SID.replace("0", "1"), "Komm um 19:45"]
