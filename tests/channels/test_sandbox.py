"""The sandbox against the providers' own libraries, and against people who mean it harm."""

from __future__ import annotations

import asyncio
import json
import stat
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import firebase_admin
import httpx
import pytest
import structlog
from firebase_admin import credentials, messaging
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request as TokenRequest
from google.oauth2.service_account import Credentials
from twilio.base.exceptions import TwilioRestException  # type: ignore[import-untyped, unused-ignore]
from twilio.http.http_client import TwilioHttpClient  # type: ignore[import-untyped, unused-ignore]
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped, unused-ignore]
from twilio.rest import Client  # type: ignore[import-untyped, unused-ignore]

from knocktwice_shared.messages import Receipt, ReceiptEvent
from knocktwice_worker.sandbox import Answer, Phone, Rule, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER = "+4915112345678"


@dataclass
class App:
    """An application that hears its phones' receipts."""

    heard: list[ReceiptEvent] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def report(self, event: ReceiptEvent) -> None:
        self.heard.append(event)
        self.threads.add(threading.current_thread().name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keeps the service account, so that its key is made once."""
    return tmp_path_factory.mktemp("account")


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def sandbox(app: App) -> Iterator[Sandbox]:
    with Sandbox(report=app.report) as running:
        yield running


@pytest.fixture
def environment(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    return sandbox.environment(folder)


@pytest.fixture
def fcm(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[firebase_admin.App]:
    """firebase-admin, pointed at the sandbox."""
    address = environment["KNOCKTWICE_FCM_URL"] + "/v1/projects/{0}/messages:send"
    monkeypatch.setattr(messaging._MessagingService, "FCM_URL", address)
    # Google's library would look up the account's regions at Google, in the background.
    monkeypatch.setattr(Credentials, "_is_regional_access_boundary_lookup_required", lambda _: False)
    certificate = credentials.Certificate(environment["GOOGLE_APPLICATION_CREDENTIALS"])
    built = firebase_admin.initialize_app(certificate, name="sandbox")
    yield built
    messaging._get_messaging_service(built)._client.close()
    firebase_admin.delete_app(built)


@pytest.fixture
def twilio(environment: dict[str, str]) -> Iterator[Client]:
    """Twilio's SDK, pointed at the sandbox."""
    http = TwilioHttpClient(timeout=5)
    client = Client(environment["TWILIO_ACCOUNT_SID"], environment["TWILIO_AUTH_TOKEN"], http_client=http)
    client.api.base_url = environment["KNOCKTWICE_TWILIO_URL"]
    yield client
    if http.session is not None:
        http.session.close()


@pytest.fixture
def web(sandbox: Sandbox) -> Iterator[httpx.Client]:
    """Anybody with HTTP."""
    with httpx.Client(base_url=sandbox.url, timeout=5, trust_env=False) as client:
        yield client


@pytest.fixture
def google(web: httpx.Client, environment: dict[str, str]) -> httpx.Client:
    """HTTP with an access token, got as Google's library gets it."""
    account = Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        environment["GOOGLE_APPLICATION_CREDENTIALS"],
        scopes=["https://www.googleapis.com/auth/firebase.messaging"],
    )
    session = TokenRequest()
    account.refresh(session)
    session.session.close()
    web.headers["authorization"] = f"Bearer {account.token}"
    return web


def push(registration: str, **fields: Any) -> messaging.Message:
    return messaging.Message(fid=registration, notification=messaging.Notification("Hello", "World"), **fields)


def post_push(client: httpx.Client, message: object) -> httpx.Response:
    return client.post("/v1/projects/any/messages:send", json={"message": message})


def send_text(twilio: Client, to: str = NUMBER, **fields: Any) -> str:
    message = twilio.messages.create(**({"to": to, "from_": "+15005550006", "body": "Hello"} | fields))
    return str(message.sid)


def code_of(twilio: Client, **fields: Any) -> tuple[int, int]:
    with pytest.raises(TwilioRestException) as caught:
        twilio.messages.create(**fields)
    return caught.value.status, caught.value.code


# FCM


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


# Phones


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


# Rules


def test_rules_answer_in_their_order_until_they_are_used_up(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", match="a", times=2, answer=Answer(status=503, retry_after=7)))
    sandbox.rule(Rule("push", times=1, answer=Answer(status=429)))
    answers = [post_push(google, {"token": token}) for token in ("a", "b", "a", "b", "a")]
    assert [a.status_code for a in answers] == [503, 429, 503, 200, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].json()["error"]["details"][0]["errorCode"] == "UNAVAILABLE"
    assert answers[1].json()["error"]["details"][0]["errorCode"] == "QUOTA_EXCEEDED"
    assert [p.registration for p in sandbox.pushes()] == ["b", "a"]


def test_a_rule_without_times_holds_until_rules_are_cleared(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", answer=Answer(status=500)))
    assert [post_push(google, {"token": "a"}).status_code for _ in range(3)] == [500] * 3
    sandbox.clear_rules()
    assert post_push(google, {"token": "a"}).status_code == 200


def test_a_message_may_be_accepted_and_answered_500(sandbox: Sandbox, twilio: Client) -> None:
    sandbox.rule(Rule("sms", match=NUMBER, times=1, answer=Answer(status=500, accept=True)))
    with pytest.raises(TwilioRestException) as caught:
        send_text(twilio)
    assert caught.value.status == 500
    assert [t.to for t in sandbox.texts(NUMBER)] == [NUMBER]


@pytest.mark.parametrize("accept", [True, False])
def test_a_connection_may_be_dropped_with_or_without_the_message(
    sandbox: Sandbox, google: httpx.Client, accept: bool
) -> None:
    sandbox.rule(Rule("push", times=1, answer=Answer(drop=True, accept=accept)))
    with pytest.raises(httpx.RemoteProtocolError):
        post_push(google, {"token": "a"})
    assert len(sandbox.pushes()) == accept
    assert sandbox.requests("push") == 1


def test_silence_ends_when_the_client_gives_up(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", times=1, answer=Answer(hang=True, accept=True)))
    google.timeout = httpx.Timeout(0.2)
    before = len(asyncio.all_tasks(sandbox._loop))
    with pytest.raises(httpx.ReadTimeout):
        post_push(google, {"token": "a"})
    sandbox.wait_until(lambda: len(asyncio.all_tasks(sandbox._loop)) <= before)
    google.timeout = httpx.Timeout(5)
    assert post_push(google, {"token": "a"}).status_code == 200
    assert len(sandbox.pushes()) == 2


def test_silence_ends_when_the_sandbox_stops(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", answer=Answer(hang=True)))
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            post_push(google, {"token": "a"})
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    sandbox.wait_until(lambda: sandbox.requests("push"))
    sandbox.stop()
    assert ended.wait(5)


def test_a_late_answer_is_late(sandbox: Sandbox, google: httpx.Client) -> None:
    sandbox.rule(Rule("push", answer=Answer(latency=0.2)))
    before = time.monotonic()
    assert post_push(google, {"token": "a"}).status_code == 200
    assert time.monotonic() - before >= 0.2
    assert post_push(google, {"token": "gone"}).status_code == 404


def test_the_token_endpoint_can_fail(sandbox: Sandbox, web: httpx.Client) -> None:
    sandbox.rule(Rule("token", times=1, answer=Answer(status=503)))
    assert web.post("/token", data={}).status_code == 503


@pytest.mark.parametrize(
    ("kind", "answer"), [("push", Answer(error_code="NO_SUCH")), ("sms", Answer(error_code="21610"))]
)
def test_a_rule_with_an_error_code_of_the_wrong_provider_is_refused(kind: Any, answer: Answer) -> None:
    with pytest.raises(ValueError, match=r"answer\.error_code"):
        Rule(kind, answer=answer)


# Twilio


def test_twilios_sdk_creates_and_fetches_a_message(sandbox: Sandbox, twilio: Client) -> None:
    created = twilio.messages.create(to="+49 (151) 1234-5678", from_="+15005550006", body="Grüße €")
    assert (created.status, created.to, created.num_segments) == ("queued", NUMBER, "1")
    assert created.date_created is not None
    assert created.date_created.tzinfo is not None
    sandbox.wait_until(lambda: sandbox.texts()[0].status == "delivered")
    assert created.sid is not None
    fetched = twilio.messages(created.sid).fetch()
    assert (fetched.status, fetched.body, fetched.from_) == ("delivered", "Grüße €", "+15005550006")
    assert fetched.date_sent is not None
    with pytest.raises(TwilioRestException) as caught:
        twilio.messages("SM" + "0" * 32).fetch()
    assert (caught.value.status, caught.value.code) == (404, 20404)


def test_through_a_messaging_service_a_message_has_no_sender_yet(sandbox: Sandbox, twilio: Client) -> None:
    service = "MG" + "a" * 32
    created = twilio.messages.create(to=NUMBER, messaging_service_sid=service, body="x")
    assert (created.status, created.from_, created.num_segments) == ("accepted", None, "0")
    assert sandbox.texts()[0].messaging_service == service


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": "", "from_": "+15005550006", "body": "x"}, 21604),
        ({"to": "0151 123", "from_": "+15005550006", "body": "x"}, 21211),
        ({"to": NUMBER, "body": "x"}, 21603),
        ({"to": NUMBER, "from_": "+15005550006"}, 21602),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x" * 1601}, 21617),
        ({"to": NUMBER, "from_": "+", "body": "x"}, 21212),
        ({"to": NUMBER, "messaging_service_sid": "MG1", "body": "x"}, 21705),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "gopher"}, 21609),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "http://localhost/ X: y"}, 21609),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "http://my_app/x"}, 21609),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "http://localhost:99999/"}, 21609),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "http://a/" + "x" * 3992}, 21609),
        ({"to": "+15005550001", "from_": "+15005550006", "body": "x"}, 21211),
        ({"to": "+15005550004", "from_": "+15005550006", "body": "x"}, 21610),
        ({"to": "+15005550010", "from_": "+15005550006", "body": "x"}, 21610),
        ({"to": NUMBER, "from_": "+15005550008", "body": "x"}, 21611),
    ],
)
def test_what_twilio_would_not_take_has_twilios_code(
    sandbox: Sandbox, twilio: Client, fields: dict[str, Any], code: int
) -> None:
    assert code_of(twilio, **fields) == (400, code)
    assert sandbox.texts() == []


def test_a_rate_limit_is_a_429(sandbox: Sandbox, twilio: Client) -> None:
    sandbox.rule(Rule("sms", times=1, answer=Answer(error_code=20429)))
    assert code_of(twilio, to=NUMBER, from_="+15005550006", body="x") == (429, 20429)


def test_a_body_of_just_1600_characters_is_taken_in_eleven_segments(twilio: Client) -> None:
    assert twilio.messages.create(to=NUMBER, from_="+15005550006", body="x" * 1600).num_segments == "11"


@pytest.mark.parametrize("auth", [None, ("AC" + "0" * 32, "wrong"), "right account, wrong token"])
def test_twilio_wants_the_account_and_its_token(web: httpx.Client, environment: dict[str, str], auth: Any) -> None:
    account = environment["TWILIO_ACCOUNT_SID"]
    auth = (account, "wrong") if isinstance(auth, str) else auth
    for answer in (
        web.post(f"/2010-04-01/Accounts/{account}/Messages.json", data={}, auth=auth),
        web.get(f"/2010-04-01/Accounts/{account}/Messages.json", auth=auth),
        web.get(f"/2010-04-01/Accounts/{account}/Messages/SM1.json", auth=auth),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, 20003)


def test_another_account_is_not_found(web: httpx.Client, environment: dict[str, str]) -> None:
    auth = (environment["TWILIO_ACCOUNT_SID"], environment["TWILIO_AUTH_TOKEN"])
    assert web.get(f"/2010-04-01/Accounts/AC{'0' * 32}/Messages.json", auth=auth).status_code == 404


def test_the_list_is_newest_first_and_pages_do_not_shift(sandbox: Sandbox, twilio: Client) -> None:
    sids = [send_text(twilio, body=str(n)) for n in range(7)]
    send_text(twilio, to="+4915100000000")
    assert [m.sid for m in twilio.messages.list(to=NUMBER)] == sids[::-1]
    assert [m.sid for m in twilio.messages.list(to=NUMBER, page_size=3)] == sids[::-1]
    assert [m.sid for m in twilio.messages.list(to=NUMBER, limit=2)] == sids[:-3:-1]
    page = twilio.messages.page(to=NUMBER, page_size=3)
    first = [m.sid for m in page]
    send_text(twilio, body="in between")
    second = page.next_page()
    assert second is not None
    assert first + [m.sid for m in second] == sids[:0:-1]
    assert len(twilio.messages.list()) == 9
    assert sandbox.requests("sms") == 9


def test_the_list_is_filtered_by_the_date_of_sending(sandbox: Sandbox, twilio: Client) -> None:
    sid = send_text(twilio)
    sandbox.wait_until(lambda: sandbox.texts()[0].status == "delivered")
    sent = sandbox.texts()[0].sent_at
    assert sent is not None
    sandbox.rule(Rule("sms", answer=Answer(statuses=())))
    send_text(twilio)  # is never sent

    def listed(**dates: Any) -> list[str | None]:
        return [m.sid for m in twilio.messages.list(**dates)]

    hour = timedelta(hours=1)
    assert listed(date_sent_after=sent - hour) == [sid]
    assert listed(date_sent_after=sent + hour) == []
    assert listed(date_sent_before=sent + hour) == [sid]
    assert listed(date_sent_before=sent - hour) == []
    assert listed(date_sent=sent) == [sid]
    assert listed(date_sent=sent - hour) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [("DateSent>={today}", 1), ("DateSent<={today}", 1), ("DateSent={today}", 1), ("DateSent>=2999-01-01", 0)],
)
def test_the_list_takes_dates_as_twilios_documents_write_them(
    sandbox: Sandbox, twilio: Client, web: httpx.Client, query: str, found: int
) -> None:
    send_text(twilio)
    sandbox.wait_until(lambda: sandbox.texts()[0].sent_at)
    path = f"/2010-04-01/Accounts/{twilio.account_sid}/Messages.json"
    sent = sandbox.texts()[0].sent_at
    assert sent is not None
    day = date(sent.year, sent.month, sent.day)
    answer = web.get(f"{path}?{query.format(today=day)}", auth=(str(twilio.username), str(twilio.password)))
    assert len(answer.json()["messages"]) == found


@pytest.mark.parametrize("query", ["DateSent=yesterday", "DateSent!=2026-01-01", "PageSize=many", "Page=x"])
def test_a_list_that_nobody_can_make_is_refused(twilio: Client, web: httpx.Client, query: str) -> None:
    send_text(twilio, to="+15005550032")
    path = f"/2010-04-01/Accounts/{twilio.account_sid}/Messages.json"
    answer = web.get(f"{path}?{query}", auth=(str(twilio.username), str(twilio.password)))
    assert (answer.status_code, answer.json()["code"]) == (400, 400)


def test_the_list_may_lag_behind_the_messages(sandbox: Sandbox, twilio: Client) -> None:
    send_text(twilio)
    sandbox.rule(Rule("list", match=NUMBER, times=1, answer=Answer(empty=True)))
    assert twilio.messages.list(to=NUMBER) == []
    assert len(twilio.messages.list(to=NUMBER)) == 1


# Status callbacks


@dataclass
class Gateway:
    """Receives status callbacks; answers with the statuses in ``answers`` first, then 200."""

    got: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    built = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
            built.got.append((f"{built.url}{self.path}", form, self.headers["X-Twilio-Signature"]))
            self.send_response(built.answers.pop(0) if built.answers else 200)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    built.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield built
    server.shutdown()
    thread.join()
    server.server_close()


def test_callbacks_come_in_order_and_twilios_validator_agrees(
    sandbox: Sandbox, twilio: Client, gateway: Gateway, environment: dict[str, str]
) -> None:
    url = f"{gateway.url}/callbacks/twilio?intent=a%2Fb+c&sig=%C3%BC~"
    sid = send_text(twilio, status_callback=url)
    sandbox.wait_until(lambda: len(gateway.got) == 2)
    assert [form["MessageStatus"] for _, form, _ in gateway.got] == ["sent", "delivered"]
    validator = RequestValidator(environment["TWILIO_AUTH_TOKEN"])
    for seen, form, signature in gateway.got:
        assert seen == url
        assert validator.validate(seen, form, signature)
        assert not validator.validate(seen, form | {"MessageStatus": "failed"}, signature)
        assert (form["MessageSid"], form["To"], form["From"]) == (sid, NUMBER, "+15005550006")
        assert form["AccountSid"] == environment["TWILIO_ACCOUNT_SID"]
        assert "ErrorCode" not in form


def test_a_text_may_fail_after_it_was_taken(sandbox: Sandbox, twilio: Client, gateway: Gateway) -> None:
    sid = send_text(twilio, to="+15005550030", status_callback=gateway.url)
    sandbox.wait_until(lambda: len(gateway.got) == 2)
    sent, undelivered = (form for _, form, _ in gateway.got)
    assert (sent["MessageStatus"], sent.get("ErrorCode")) == ("sent", None)
    assert (undelivered["MessageStatus"], undelivered["ErrorCode"]) == ("undelivered", "30003")
    fetched = twilio.messages(sid).fetch()
    assert (fetched.status, fetched.error_code) == ("undelivered", 30003)


def test_callbacks_may_come_twice_and_backwards_while_the_end_stays(
    sandbox: Sandbox, twilio: Client, gateway: Gateway
) -> None:
    statuses = ("delivered", "sent", "delivered", "failed")
    sandbox.rule(Rule("sms", answer=Answer(statuses=("delivered", "sent", "delivered", "failed"))))
    send_text(twilio, status_callback=gateway.url)
    sandbox.wait_until(lambda: len(gateway.got) == 4)
    assert [form["MessageStatus"] for _, form, _ in gateway.got] == list(statuses)
    assert (sandbox.texts()[0].status, sandbox.texts()[0].statuses) == ("delivered", statuses)


def test_a_callback_that_fails_is_repeated_once(sandbox: Sandbox, twilio: Client, gateway: Gateway) -> None:
    gateway.answers = [500, 503]
    sandbox.rule(Rule("sms", answer=Answer(statuses=("sent",))))
    send_text(twilio, status_callback=gateway.url)
    sandbox.wait_until(sandbox.callbacks)
    assert len(gateway.got) == 2
    assert sandbox.callbacks()[0].answered == 503


def test_a_callback_follows_no_redirect(sandbox: Sandbox, twilio: Client, gateway: Gateway) -> None:
    gateway.answers = [302]
    sandbox.rule(Rule("sms", answer=Answer(statuses=("sent",))))
    send_text(twilio, status_callback=gateway.url)
    sandbox.wait_until(sandbox.callbacks)
    assert [seen for seen, _, _ in gateway.got] == [f"{gateway.url}/"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/x",
        "http://127.0.0.1@192.0.2.1/",
        "http://127.0.0.1.example.com/",
        "http://192.0.2.1#@localhost/",
    ],
)
def test_a_callback_to_another_machine_is_noted_and_not_sent(sandbox: Sandbox, twilio: Client, url: str) -> None:
    send_text(twilio, status_callback=url)
    sandbox.wait_until(lambda: len(sandbox.callbacks()) == 2)
    assert [(c.url, c.sent, c.answered) for c in sandbox.callbacks()] == [(url, False, None)] * 2
    assert sandbox.texts()[0].status_callback == url


def test_a_callback_that_nobody_answers_is_noted(sandbox: Sandbox, twilio: Client, gateway: Gateway) -> None:
    send_text(twilio, status_callback="http://127.0.0.1:1/")
    sandbox.wait_until(lambda: len(sandbox.callbacks()) == 2)
    assert [(c.sent, c.answered) for c in sandbox.callbacks()] == [(True, None)] * 2
    assert gateway.got == []


# Over HTTP


def test_another_process_can_do_all_of_it(web: httpx.Client, google: httpx.Client, twilio: Client) -> None:
    put = web.put("/sandbox/phones/a%2Fb", json={"delivered_after": None, "number": NUMBER})
    assert put.json()["registration"] == "a/b"
    assert web.get("/sandbox/phones").json()["phones"] == [put.json()]
    assert web.post("/sandbox/phones/a%2Fb/tap").status_code == 404
    assert web.post("/sandbox/rules", json={"kind": "push", "times": 1, "answer": {"status": 429}}).status_code == 201
    message = {"token": "a/b", "notification": {"title": "T"}, "data": {"knocktwice_id": str(uuid.uuid4())}}
    assert [post_push(google, message).status_code for _ in range(2)] == [429, 200]
    assert web.post("/sandbox/phones/a%2Fb/tap").status_code == 204
    (pushed,) = web.get("/sandbox/pushes", params={"registration": "a/b"}).json()["pushes"]
    assert (pushed["title"], pushed["message"]) == ("T", message)
    assert datetime.fromisoformat(pushed["clicked_at"]).tzinfo is not None
    send_text(twilio)
    assert [t["to"] for t in web.get("/sandbox/texts", params={"to": NUMBER}).json()["texts"]] == [NUMBER]
    assert web.get("/sandbox/texts", params={"to": "+1"}).json() == {"texts": []}
    assert web.get("/sandbox/callbacks").json() == {"callbacks": []}
    rule = {"kind": "sms", "answer": {"statuses": ["sent"], "error_code": 30003}}
    assert web.post("/sandbox/rules", json=rule).json()["answer"]["statuses"] == ["sent"]
    assert web.delete("/sandbox/rules").status_code == 204
    assert web.delete("/sandbox").status_code == 204
    assert web.get("/sandbox/pushes").json() == {"pushes": []}


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("PUT", "/sandbox/phones/x", {"delivered_after": -1}, "delivered_after"),
        ("PUT", "/sandbox/phones/x", {"clicked_after": "soon"}, "clicked_after"),
        ("PUT", "/sandbox/phones/x", {"colour": "red"}, "colour"),
        ("PUT", "/sandbox/phones/x", {"registration": "y"}, "registration"),
        ("PUT", "/sandbox/phones/x", [], "body"),
        ("POST", "/sandbox/rules", {}, "kind"),
        ("POST", "/sandbox/rules", {"kind": "pigeon"}, "kind"),
        ("POST", "/sandbox/rules", {"kind": "push", "times": 0}, "times"),
        ("POST", "/sandbox/rules", {"kind": "push", "answer": {"status": 200}}, "answer.status"),
        ("POST", "/sandbox/rules", {"kind": "push", "answer": {"error_code": "X"}}, "answer.error_code"),
        ("POST", "/sandbox/rules", {"kind": "sms", "answer": {"statuses": ["lost"]}}, "answer.statuses.0"),
        ("GET", "/sandbox/pushes?registraton=x", None, "registraton"),
        ("DELETE", "/sandbox/rules?kind=push", None, "kind"),
    ],
)
def test_wrong_input_is_answered_with_the_name_of_the_field(
    web: httpx.Client, method: str, path: str, body: object, named: str
) -> None:
    answer = web.request(method, path, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{named}: ")


def test_a_body_that_is_no_json_is_named(web: httpx.Client) -> None:
    assert web.post("/sandbox/rules", content="{").json() == {"error": "body: must be JSON"}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil.example", ""]
)
@pytest.mark.parametrize("path", ["/", "/sandbox/texts", "/token"])
def test_a_name_bound_to_this_machine_gets_nothing(web: httpx.Client, host: str, path: str) -> None:
    assert web.get(path, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://evil.example:8025"])
def test_a_web_page_elsewhere_can_tap_nothing(web: httpx.Client, origin: str) -> None:
    assert web.post("/sandbox/phones/clicks/tap", headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "LOCALHOST:80"])
def test_this_machine_is_served(web: httpx.Client, host: str) -> None:
    assert web.get("/", headers={"Host": host}).status_code == 200


def test_the_page_shows_messages_as_text_and_can_tap(
    sandbox: Sandbox, web: httpx.Client, google: httpx.Client, twilio: Client
) -> None:
    assert "No push" in web.get("/").text
    evil = "<script>alert(1)</script>"
    sandbox.add_phone(Phone(f'"{evil}', number=NUMBER))
    post_push(google, {"token": f'"{evil}', "notification": {"title": evil, "body": f"'{evil}"}})
    send_text(twilio, body=f"sms {evil}")
    send_text(twilio, to="+4915100000000", body="to a number without a phone")
    page = web.get("/")
    assert "<script" not in page.text
    assert page.text.count("&lt;script&gt;") == 4
    assert "to a number without a phone" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    action = page.text.partition('action="')[2].partition('"')[0]
    answer = web.post(action, headers={"Origin": sandbox.url, "content-type": "application/x-www-form-urlencoded"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert sandbox.pushes()[0].clicked_at is not None
    assert "<form" not in web.get("/").text


# Life


def test_the_service_account_is_for_its_owner_only_and_keeps_its_key(tmp_path: Path) -> None:
    with Sandbox() as one:
        path = Path(one.environment(tmp_path / "new")["GOOGLE_APPLICATION_CREDENTIALS"])
        first = json.loads(path.read_text())
    with Sandbox() as other:
        other.environment(tmp_path / "new")
        second = json.loads(path.read_text())
        assert second["token_uri"] == f"{other.url}/token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first["private_key"] == second["private_key"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_damaged_service_account_is_made_anew(tmp_path: Path) -> None:
    path = Path(Sandbox().environment(tmp_path)["GOOGLE_APPLICATION_CREDENTIALS"])
    path.write_text('{"private_key": "nonsense"}')
    Sandbox().environment(tmp_path)
    assert json.loads(path.read_text())["private_key"].startswith("-----BEGIN PRIVATE KEY-----")


def test_a_sandbox_that_stops_and_starts_keeps_port_and_books(sandbox: Sandbox, google: httpx.Client) -> None:
    post_push(google, {"token": "a"})
    url = sandbox.url
    sandbox.stop()
    sandbox.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)
    sandbox.start()
    sandbox.start()
    assert sandbox.url == url
    assert len(sandbox.pushes()) == 1
    with httpx.Client(base_url=url, headers=google.headers, trust_env=False) as again:
        assert post_push(again, {"token": "b"}).status_code == 200


def test_a_taken_port_is_said_at_once(sandbox: Sandbox) -> None:
    taken = Sandbox(port=int(sandbox.url.rpartition(":")[2]))
    with pytest.raises(OSError, match="address already in use"):
        taken.start()
    taken.stop()


def test_waiting_for_what_never_happens_ends(sandbox: Sandbox) -> None:
    with pytest.raises(TimeoutError):
        sandbox.wait_until(sandbox.texts, timeout=0.05)
