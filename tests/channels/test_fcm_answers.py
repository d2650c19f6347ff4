"""What an answer of FCM is about: one device, the whole project, or our own set-up."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_worker.channels.fcm import FcmChannel
from knocktwice_worker.channels.fcm.answers import LONGEST_PAUSE
from knocktwice_worker.channels.http import Response
from knocktwice_worker.channels.messages import PushMessage
from knocktwice_worker.channels.outbound.transport import Transport
from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, patience
from knocktwice_worker.channels.provider import deliver
from knocktwice_worker.config import Settings
from knocktwice_worker.sandbox.rules import Answer, Rule

if TYPE_CHECKING:
    from pathlib import Path

    from knocktwice_worker.sandbox import Sandbox

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
DEVICE_LIMIT = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": "QUOTA_EXCEEDED"}
PROJECT_LIMIT = {
    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
    "reason": "RATE_LIMIT_EXCEEDED",
    "metadata": {"quota_limit": "MessagesPerMinutePerProject"},
}


def read(status: int, body: Any, **headers: str) -> Outcome:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    channel = FcmChannel(url="http://127.0.0.1:1", credentials_file=None, project="p")
    return channel.outcome(
        Response(status, encoded, {name.replace("_", "-"): value for name, value in headers.items()})
    )


def limited(*details: Any) -> dict[str, Any]:
    return {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": list(details)}}


@pytest.mark.parametrize(
    ("details", "of_project"),
    [
        ([DEVICE_LIMIT], False),
        ([], False),
        ([{**PROJECT_LIMIT, "metadata": {"service": "fcm.googleapis.com"}}], False),
        ([PROJECT_LIMIT], True),
        ([DEVICE_LIMIT, PROJECT_LIMIT], True),
    ],
)
def test_only_a_limit_that_names_the_projects_quota_is_the_projects(details: list[Any], of_project: bool) -> None:
    outcome = read(429, limited(*details), retry_after="30")
    assert isinstance(outcome, Retry)
    assert (outcome.too_fast, outcome.after) == (of_project, timedelta(seconds=30))


def test_a_pause_of_the_whole_project_is_bounded_and_that_of_a_device_is_not() -> None:
    outcomes = [read(429, limited(*details), retry_after="3600") for details in ([PROJECT_LIMIT], [DEVICE_LIMIT])]
    assert [o.after for o in outcomes if isinstance(o, Retry)] == [LONGEST_PAUSE, HOUR]
    assert MINUTE >= LONGEST_PAUSE
    assert patience(outcomes) is outcomes[0]
    assert patience(outcomes[1:]) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": {"code": 404, "status": "NOT_FOUND", "message": "Project not found"}}),
        (404, b"<html>Not Found</html>"),
        (404, {"error": {"code": 404, "status": "UNREGISTERED"}}),
        (405, b""),
        (302, b"<html>"),
    ],
)
def test_a_refusal_in_which_fcm_names_no_error_of_its_own_says_nothing_of_the_device(status: int, body: Any) -> None:
    outcome = read(status, body)
    assert isinstance(outcome, Retry)
    assert not outcome.too_fast
    assert "KNOCKTWICE_FCM_PROJECT" in outcome.reason


def test_a_device_is_gone_only_where_fcm_says_so() -> None:
    gone = {"@type": DEVICE_LIMIT["@type"], "errorCode": "UNREGISTERED"}
    outcome = read(404, {"error": {"code": 404, "status": "NOT_FOUND", "details": [gone]}})
    assert isinstance(outcome, Rejected)
    assert outcome.address_dead


def test_the_sandbox_gives_each_kind_of_answer(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sandbox.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    channel = FcmChannel(url=settings.fcm_url, credentials_file=settings.google_application_credentials, project="p")
    answers = [
        Answer(error_code="QUOTA_EXCEEDED", retry_after=12),
        Answer(error_code="QUOTA_EXCEEDED", retry_after=12, of_project=True),
        Answer(status=404),
        Answer(status=404, foreign=True),
    ]
    for answer in answers:
        sandbox.rule(Rule("push", times=1, answer=answer))
    transport = Transport(timeout=5, in_flight=1)
    push = PushMessage("01939e2b-6b43-7e5a-9f6e-000000000001", "silent-1", "t", "b", HOUR)
    outcomes = [deliver(transport, channel, [push])[0] for _ in answers]
    transport.close()
    assert [isinstance(o, Retry) and (o.too_fast, o.after) for o in outcomes] == [
        (False, timedelta(seconds=12)),
        (True, timedelta(seconds=12)),
        (False, None),
        (False, None),
    ]
