"""The sandbox as FCM: firebase-admin sends to it, and what FCM refuses it refuses."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import firebase_admin
import pytest
from firebase_admin import messaging
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request as TokenRequest
from google.oauth2.service_account import Credentials

from knocktwice_worker.sandbox import Answer, Phone, Rule, Sandbox
from support.provider_clients import post_push, push

if TYPE_CHECKING:
    import httpx


def test_firebase_admin_sends_a_push_and_the_books_show_it(sandbox: Sandbox, fcm: firebase_admin.App) -> None:
    id_ = str(uuid.uuid4())
    name = messaging.send(push("phone-1", data={"knocktwice_id": id_, "page": "7"}), app=fcm)
    (received,) = sandbox.pushes("phone-1")
    assert received.name == name
    assert name.startswith("projects/knocktwice-sandbox/messages/")
    assert (received.title, received.body, received.notification_id) == ("Hello", "World", id_)
    assert received.data["page"] == "7"
    assert received.message["fid"] == "phone-1"
    assert datetime.now(UTC) - received.at < timedelta(minutes=1)
    assert (sandbox.requests("token"), sandbox.requests("push")) == (1, 1)
    assert sandbox.pushes("phone-2") == []


def test_firebase_admin_understands_the_errors(sandbox: Sandbox, fcm: firebase_admin.App) -> None:
    with pytest.raises(messaging.UnregisteredError):
        messaging.send(push("gone-1"), app=fcm)
    sandbox.add_phone(Phone("phone-1", registered=False))
    with pytest.raises(messaging.UnregisteredError):
        messaging.send(push("phone-1"), app=fcm)
    for code, error in (
        ("SENDER_ID_MISMATCH", messaging.SenderIdMismatchError),
        ("QUOTA_EXCEEDED", messaging.QuotaExceededError),
        ("THIRD_PARTY_AUTH_ERROR", messaging.ThirdPartyAuthError),
    ):
        sandbox.rule(Rule("push", answer=Answer(error_code=code)))
        with pytest.raises(error):
            messaging.send(push("phone-2"), app=fcm)
        sandbox.clear_rules()
    assert sandbox.pushes() == []


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer made-up"}, {"authorization": "Basic eDp5"}])
def test_only_an_issued_token_sends_a_push(web: httpx.Client, sandbox: Sandbox, header: dict[str, str]) -> None:
    answer = web.post("/v1/projects/p/messages:send", json={"message": {"token": "x"}}, headers=header)
    assert answer.status_code == 401
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
    assert sandbox.pushes() == []


def test_a_token_is_a_bearer_token(google: httpx.Client) -> None:
    google.headers["authorization"] = google.headers["authorization"].replace("Bearer", "Basic")
    assert post_push(google, {"token": "x"}).status_code == 401


def test_a_revoked_token_sends_nothing_more(google: httpx.Client, sandbox: Sandbox) -> None:
    assert post_push(google, {"token": "x"}).status_code == 200
    sandbox.revoke_tokens()
    assert post_push(google, {"token": "x"}).status_code == 401


def test_a_token_ends_after_its_hour(google: httpx.Client, sandbox: Sandbox) -> None:
    later = time.monotonic() + 3600
    sandbox._accounts._now = lambda: later
    assert post_push(google, {"token": "x"}).status_code == 401


def test_an_assertion_signed_with_a_foreign_key_gets_no_token(
    sandbox: Sandbox, environment: dict[str, str], tmp_path: Path
) -> None:
    foreign = json.loads(Path(Sandbox().environment(tmp_path)["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    ours = json.loads(Path(environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    account = Credentials.from_service_account_info(  # type: ignore[no-untyped-call]
        ours | {"private_key": foreign["private_key"]}, scopes=["x"]
    )
    session = TokenRequest()
    with pytest.raises(RefreshError, match="invalid_grant"):
        account.refresh(session)
    session.session.close()
    assert sandbox.requests("token") == 1


def test_other_grants_and_unreadable_assertions_get_no_token(web: httpx.Client) -> None:
    assert web.post("/token", data={"grant_type": "password"}).json()["error"] == "unsupported_grant_type"
    bearer = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "a.b.c"}
    assert web.post("/token", data=bearer).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"token": "a", "fid": "b"},
        {"token": ""},
        {"token": 7},
        {"topic": "news"},
        {"token": "a", "surprise": 1},
        {"token": "a", "data": {"n": 1}},
        {"token": "a", "data": {"google.x": "1"}},
        {"token": "a", "notification": {"title": ["x"]}},
        {"token": "a", "android": {"ttl": "5"}},
        {"token": "a", "android": {"priority": "urgent"}},
        {"token": "a", "apns": {"headers": {"apns-priority": 10}}},
        {"token": "a", "data": {"x": "y" * 4096}},
        {"token": "a", "notification": {"body": "€" * 1400}},
        {"token": "a", "data": {"x": "\ud800"}},
        [],
        None,
    ],
    ids=str,
)
def test_what_fcm_would_not_take_is_an_invalid_argument(
    google: httpx.Client, sandbox: Sandbox, message: object
) -> None:
    body = json.dumps({"message": message})
    answer = google.post("/v1/projects/p/messages:send", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["status"] == "INVALID_ARGUMENT"
    (detail,) = error["details"]
    assert detail["@type"] == "type.googleapis.com/google.firebase.fcm.v1.FcmError"
    assert detail["errorCode"] == "INVALID_ARGUMENT"
    assert sandbox.pushes() == []


@pytest.mark.parametrize("body", ["", "{", "[]", '{"mesage": {}}', "[" * 100_000], ids=lambda b: b[:9] or "nothing")
def test_a_body_that_is_no_push_is_an_invalid_argument(google: httpx.Client, body: str) -> None:
    answer = google.post("/v1/projects/p/messages:send", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_a_push_of_just_4096_bytes_is_taken(google: httpx.Client) -> None:
    assert post_push(google, {"token": "a", "data": {"x": "y" * 4095}}).status_code == 200
