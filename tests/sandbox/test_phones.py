"""Virtual phones: what they report, replace and tap."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_worker.sandbox import Answer, Phone, Rule, Sandbox
from support.provider_clients import App, post_push

if TYPE_CHECKING:
    import httpx


def test_a_phone_reports_delivered_then_clicked_off_the_loop(sandbox: Sandbox, google: httpx.Client, app: App) -> None:
    id_ = uuid.uuid4()
    sandbox.add_phone(Phone("phone-1", delivered_after=0, clicked_after=0.01))
    post_push(google, {"token": "phone-1", "data": {"knocktwice_id": str(id_)}})
    sandbox.wait_until(lambda: len(app.heard) == 2)
    assert [(e.kind, e.notification, e.registration) for e in app.heard] == [
        (Receipt.DELIVERED, id_, "phone-1"),
        (Receipt.CLICKED, id_, "phone-1"),
    ]
    (received,) = sandbox.pushes()
    assert [e.at for e in app.heard] == [received.delivered_at, received.clicked_at]
    assert app.threads == {"knocktwice-sandbox-report_0"}


def test_a_registration_says_by_its_name_what_its_phone_does(sandbox: Sandbox, google: httpx.Client, app: App) -> None:
    for registration in ("silent-1", "anything", "delivers-1", "clicks-1"):
        post_push(google, {"token": registration, "data": {"knocktwice_id": str(uuid.uuid4())}})
    sandbox.wait_until(lambda: len(app.heard) == 3)
    heard = [(e.registration, e.kind) for e in app.heard]
    assert sorted(heard) == [("clicks-1", "clicked"), ("clicks-1", "delivered"), ("delivers-1", "delivered")]
    assert [p.delivered_at for p in sandbox.pushes("silent-1") + sandbox.pushes("anything")] == [None, None]


def test_a_push_with_the_same_tag_replaces_the_shown_one_and_is_clicked_once(
    sandbox: Sandbox, google: httpx.Client, app: App
) -> None:
    sandbox.add_phone(Phone("phone-1", delivered_after=None))
    id_ = str(uuid.uuid4())
    for _ in range(2):
        post_push(google, {"fid": "phone-1", "data": {"knocktwice_id": id_}, "android": {"notification": {"tag": id_}}})
    assert sandbox.tap("phone-1")
    assert not sandbox.tap("phone-1")
    first, second = sandbox.pushes()
    assert (first.clicked_at, first.tag) == (None, id_)
    assert second.clicked_at is not None
    sandbox.wait_until(lambda: app.heard)
    assert len(app.heard) == 1


@pytest.mark.parametrize(
    "place",
    [{"apns": {"headers": {"apns-collapse-id": "same"}}}, {"webpush": {"notification": {"tag": "same"}}}],
    ids=["apns", "webpush"],
)
def test_a_collapse_id_is_a_tag_too(sandbox: Sandbox, google: httpx.Client, place: dict[str, Any]) -> None:
    post_push(google, {"token": "a"} | place)
    assert sandbox.pushes()[0].tag == "same"


def test_a_push_that_is_not_ours_reports_nothing(sandbox: Sandbox, google: httpx.Client, app: App) -> None:
    sandbox.add_phone(Phone("phone-1", delivered_after=0))
    post_push(google, {"token": "phone-1", "data": {"knocktwice_id": "no uuid"}})
    sandbox.wait_until(lambda: sandbox.pushes()[0].delivered_at)
    post_push(google, {"token": "phone-1", "data": {"knocktwice_id": str(uuid.uuid4())}})
    sandbox.wait_until(lambda: app.heard)
    assert len(app.heard) == 1


def test_a_report_that_fails_does_not_stop_the_next(google: httpx.Client, sandbox: Sandbox, app: App) -> None:
    def fail_once(event: ReceiptEvent) -> None:
        app.report(event)
        if len(app.heard) == 1:
            raise RuntimeError("the app is down")

    sandbox._apps._report = fail_once
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            post_push(google, {"token": "delivers", "data": {"knocktwice_id": str(uuid.uuid4())}})
        sandbox.wait_until(lambda: len(app.heard) == 2)
    assert [(line["event"], line["log_level"]) for line in logs] == [("a virtual phone could not report", "error")]


def test_what_was_cleared_reports_nothing_and_is_gone(sandbox: Sandbox, google: httpx.Client, app: App) -> None:
    sandbox.add_phone(Phone("phone-1", delivered_after=0.05))
    sandbox.rule(Rule("sms", answer=Answer(status=500)))
    post_push(google, {"token": "phone-1", "data": {"knocktwice_id": str(uuid.uuid4())}})
    sandbox.clear()
    assert (sandbox.pushes(), sandbox.texts(), sandbox.requests("push")) == ([], [], 0)
    later = uuid.uuid4()
    sandbox.add_phone(Phone("phone-2", delivered_after=0.1))
    post_push(google, {"token": "phone-2", "data": {"knocktwice_id": str(later)}})
    sandbox.wait_until(lambda: app.heard)
    assert [e.notification for e in app.heard] == [later]
