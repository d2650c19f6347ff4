"""What an app or a page may do with its user token, and what it may not: everything else."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from knocktwice import user_token
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, parse_audience, parse_batch, parse_receipts
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_shared.user_tokens import read, sign
from knocktwice_worker.audience import people
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.http.origins import OPEN
from knocktwice_worker.gateway.routes import PUBLIC, ROUTERS
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from sqlalchemy import Row

GONATIVE = "/gonative/"
#: Every route that a key of an application opens.
BEHIND_A_KEY = sorted(
    (method, str(getattr(route, "path", "")))
    for router in ROUTERS
    for route in router.routes
    for method in getattr(route, "methods", ())
    if not str(getattr(route, "path", "")).startswith((*PUBLIC, OPEN, GONATIVE))
)
ME = sorted(
    (method, str(getattr(route, "path", "")))
    for router in ROUTERS
    for route in router.routes
    for method in getattr(route, "methods", ())
    if str(getattr(route, "path", "")).startswith((OPEN, GONATIVE))
)


@pytest.fixture(autouse=True)
def _nobody(shared_gateway: HttpGateway) -> Iterator[None]:
    yield
    with shared_gateway.services.engine.begin() as conn:
        conn.exec_driver_sql("TRUNCATE users, devices, phones, erasures, notifications, deliveries, batches CASCADE")
    shared_gateway.services.redis.flushdb()


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _app(gateway: HttpGateway, user: str = "u-17", **options: Any) -> httpx.Client:
    client = gateway.stranger()
    client.headers.update(_bearer(user_token(user, secret="test", **options)))
    return client


def _settle(here: Services) -> None:
    """Do what a worker does with the accepted changes."""
    found = [c for raw in here.redis.hvals(INBOX_MESSAGES) for c in parse_audience(json.loads(raw)["message"])]
    with here.engine.begin() as conn:
        for change in sorted(found, key=lambda c: c.at):
            people.apply(conn, [change])
    here.redis.flushdb()


def _rows(here: Services, query: str) -> list[Row[Any]]:
    _settle(here)
    with here.engine.connect() as conn:
        return list(conn.exec_driver_sql(query).all())


@pytest.mark.parametrize(("method", "path"), BEHIND_A_KEY, ids=lambda part: part)
def test_a_user_token_opens_nothing_that_a_key_opens(shared_gateway: HttpGateway, method: str, path: str) -> None:
    own = path.replace("{user}", "u-17").replace("{id}", "01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a11")
    answer = _app(shared_gateway).request(method, own, json={})
    assert answer.status_code in (401, 403), answer.text


@pytest.mark.parametrize(("method", "path"), ME, ids=lambda part: part)
def test_a_route_of_a_person_opens_to_a_token_with_its_scope_only(
    shared_gateway: HttpGateway, method: str, path: str
) -> None:
    stranger = shared_gateway.stranger()
    wrong = [None, shared_gateway.key(), sign("u-17", "another"), "a.b.c"]
    for given in wrong:
        answer = stranger.request(method, path, json={}, headers=_bearer(given) if given else {})
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    refused = [
        answer
        for scope in ("devices", "tags", "phone")
        if (answer := _app(shared_gateway, scopes=[scope]).request(method, path, json={})).status_code == 403
    ]
    assert len(refused) == 2
    assert all("lacks the scope" in answer.json()["detail"] for answer in refused)


def test_an_app_registers_its_device_and_says_that_notifications_are_on(shared_gateway: HttpGateway) -> None:
    app, here = _app(shared_gateway), shared_gateway.services
    body = {"platform": "ios", "notifications_enabled": True, "locale": "de-AT"}
    assert app.put("/v1/me/devices/phone-of-u-17", json=body).json() == {"status": "accepted"}
    found = _rows(here, "SELECT user_id, platform, notifications_enabled, locale FROM devices")
    assert [tuple(row) for row in found] == [("u-17", "ios", True, "de-AT")]
    assert _rows(here, "SELECT tags FROM users")[0].tags == {"subscribed_to_push": True}
    assert app.delete("/v1/me/devices/phone-of-u-17").status_code == 202
    assert _rows(here, "SELECT user_id FROM devices")[0].user_id is None


def test_a_page_without_a_device_reports_that_notifications_are_off(shared_gateway: HttpGateway) -> None:
    app, here = _app(shared_gateway), shared_gateway.services
    assert app.put("/v1/me/permission", json={"notifications_enabled": False}).status_code == 202
    assert _rows(here, "SELECT tags FROM users")[0].tags == {"subscribed_to_push": False}
    assert _rows(here, "SELECT registration FROM devices") == []


def test_a_device_that_says_nothing_of_notifications_sets_no_tag(shared_gateway: HttpGateway) -> None:
    app, here = _app(shared_gateway), shared_gateway.services
    assert app.put("/v1/me/devices/phone-of-u-17", json={}).status_code == 202
    assert _rows(here, "SELECT tags FROM users")[0].tags == {}


def test_nobody_is_touched_but_the_tokens_person(shared_gateway: HttpGateway) -> None:
    mine, other, here = _app(shared_gateway), _app(shared_gateway, "u-18"), shared_gateway.services
    assert other.put("/v1/me/devices/phone-of-u-18", json={"notifications_enabled": True}).status_code == 202
    _settle(here)
    assert mine.delete("/v1/me/devices/phone-of-u-18").status_code == 202
    assert _rows(here, "SELECT user_id FROM devices")[0].user_id == "u-18"
    for path, body in (
        ("/v1/me/devices/x1", {"user": "u-18"}),
        ("/v1/me/permission", {"notifications_enabled": False, "user": "u-18"}),
        ("/v1/me/tags", {"tags": {}, "user": "u-18"}),
    ):
        answer = mine.put(path, json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "user")


def test_only_allowed_tags_are_set(shared_gateway: HttpGateway) -> None:
    here = shared_gateway.services
    refused = _app(shared_gateway).put("/v1/me/tags", json={"tags": {"plan": "gold", "subscribed_to_push": True}})
    assert (refused.status_code, refused.json()["field"]) == (422, "tags.plan")
    allowing = Services(here.settings.model_copy(update={"user_tags": frozenset({"interests"})}))
    with HttpGateway(allowing) as gateway:
        app = _app(gateway)
        assert app.put("/v1/me/tags", json={"tags": {"interests": ["tea"]}}).status_code == 202
        assert app.put("/v1/me/tags", json={"tags": {"plan": None}}).status_code == 422
    allowing.close()
    assert _rows(here, "SELECT tags FROM users")[0].tags == {"interests": ["tea"]}


def test_a_wrong_field_is_named_as_the_request_has_it(shared_gateway: HttpGateway) -> None:
    answer = _app(shared_gateway).put("/v1/me/permission", json={"notifications_enabled": True, "platform": "web"})
    assert (answer.status_code, answer.json()["field"]) == (422, "platform")
    body = {"notifications_enabled": True, "platform": "palm", "registration": "phone-of-u-17"}
    assert _app(shared_gateway).put("/v1/me/permission", json=body).json()["field"] == "platform"
    missing = _app(shared_gateway).put("/v1/me/permission", json={})
    assert (missing.status_code, missing.json()["field"]) == (422, "notifications_enabled")
    misspelt = _app(shared_gateway).put("/v1/me/permission?platfrom=ios", json={"notifications_enabled": True})
    assert (misspelt.status_code, misspelt.json()["field"]) == (422, "platfrom")


def test_a_key_for_the_audience_makes_tokens(shared_gateway: HttpGateway) -> None:
    client = shared_gateway.client(Scope.AUDIENCE)
    made = client.post("/v1/users/u-17/tokens", json={"lifetime_s": 60, "scopes": ["devices"]})
    assert (made.status_code, made.headers["Cache-Control"], made.json()["scopes"]) == (201, "no-store", ["devices"])
    ends = datetime.fromisoformat(made.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(0) < ends <= timedelta(seconds=60)
    page = shared_gateway.stranger()
    put = page.put("/v1/me/permission", json={"notifications_enabled": True}, headers=_bearer(made.json()["token"]))
    assert put.status_code == 202
    assert client.post("/v1/users/u-17/tokens").json()["scopes"] == ["devices", "phone", "tags"]
    wrong = client.post("/v1/users/u-17/tokens", json={"lifetime_s": 10**9, "scopes": ["admin"]}).json()
    assert [one["field"] for one in wrong["errors"]] == ["lifetime_s", "scopes"]
    assert shared_gateway.client(Scope.NOTIFY, Scope.READ).post("/v1/users/u-17/tokens").status_code == 403


def test_a_token_from_before_the_erasure_does_not_bring_the_person_back(shared_gateway: HttpGateway) -> None:
    here = shared_gateway.services
    now = datetime.now(UTC)
    before, after = sign("u-17", "test", now=now - timedelta(minutes=5)), sign("u-17", "test", now=now)
    with here.engine.begin() as conn:
        here.erased.note(conn, "u-17", now - timedelta(minutes=1), timedelta())
    # A gateway learns of an erasure within seconds; this one has no time for that.
    here.erased._next_look = 0.0
    client = shared_gateway.stranger()
    body = {"notifications_enabled": True}
    assert client.put("/v1/me/permission", json=body, headers=_bearer(before)).status_code == 401
    assert client.put("/v1/me/permission", json=body, headers=_bearer(after)).status_code == 202


def test_the_secret_is_rotated_without_refusing_anybody(shared_gateway: HttpGateway) -> None:
    here = shared_gateway.services
    old = sign("u-17", "old")
    rotated = Services(here.settings.model_copy(update={"user_token_secret": SecretStr("new,old")}))
    with HttpGateway(rotated) as gateway:
        body = {"notifications_enabled": True}
        for token, status in ((old, 202), (sign("u-17", "new"), 202), (sign("u-17", "test"), 401)):
            answer = gateway.stranger().put("/v1/me/permission", json=body, headers=_bearer(token))
            assert answer.status_code == status
        token = gateway.client().post("/v1/users/u-17/tokens").json()["token"]
        assert read(token, ["new"]).user == "u-17"
    rotated.close()


def test_one_persons_apps_cannot_flood_the_broker(shared_gateway: HttpGateway) -> None:
    slow = Services(shared_gateway.services.settings.model_copy(update={"user_token_per_s": 1.0}))
    with HttpGateway(slow) as gateway:
        body = {"notifications_enabled": True}
        answers = [_app(gateway).put("/v1/me/permission", json=body) for _ in range(12)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert "one person's apps" in refused[0].json()["detail"]
        assert _app(gateway, "u-18").put("/v1/me/permission", json=body).status_code == 202
    slow.close()


def test_pages_may_call_only_from_allowed_origins_and_only_what_is_for_them(shared_gateway: HttpGateway) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "PUT"}
    closed = shared_gateway.stranger().options("/v1/me/permission", headers=asked)
    assert "Access-Control-Allow-Origin" not in closed.headers
    here = shared_gateway.services
    opened = Services(here.settings.model_copy(update={"gateway_origins": frozenset({"https://shop.example"})}))
    with HttpGateway(opened) as gateway:
        stranger = gateway.stranger()
        preflight = stranger.options("/v1/me/permission", headers=asked)
        assert preflight.status_code == 204
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
        for answer in (
            _app(gateway).put("/v1/me/permission", json={"notifications_enabled": True}, headers=asked),
            stranger.put("/v1/me/permission", json={}, headers=asked),
        ):
            assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
            assert answer.headers["Vary"] == "Origin"
            assert "Access-Control-Allow-Credentials" not in answer.headers
        for origin in ("https://evil.example", "null", "https://shop.example.evil.example", "http://shop.example"):
            refused = stranger.options("/v1/me/permission", headers={**asked, "Origin": origin})
            assert "Access-Control-Allow-Origin" not in refused.headers
        for path in ("/v1/notifications", "/v1/users/u-17/tokens"):
            elsewhere = stranger.options(path, headers=asked)
            assert "Access-Control-Allow-Origin" not in elsewhere.headers
    opened.close()


def test_a_token_registers_a_few_devices_and_no_more(shared_gateway: HttpGateway) -> None:
    few = Services(shared_gateway.services.settings.model_copy(update={"user_devices": 3}))
    with HttpGateway(few) as gateway:
        app = _app(gateway)

        def registered(name: str) -> int:
            return app.put(f"/v1/me/devices/phone-{name}", json={}).status_code

        assert [registered(name) for name in ("a", "b")] == [202, 202]
        # From here on two of them are known from the table alone.
        _settle(few)
        assert [registered(name) for name in ("c", "d", "a", "c")] == [202, 403, 202, 202]
        refused = app.put("/v1/me/permission", json={"notifications_enabled": True, "registration": "phone-d"})
        assert (refused.status_code, "has 3 devices already" in refused.json()["detail"]) == (403, True)
        assert app.post("/gonative/registration", json={"oneSignalPushToken": "phone-d"}).status_code == 403
        assert _app(gateway, "u-18").put("/v1/me/devices/phone-d", json={}).status_code == 202
        assert app.delete("/v1/me/devices/phone-c").status_code == 202
        assert registered("d") == 202
        assert not any(b"u-17" in key for key in few.redis.keys("*own-devices*"))
    few.close()


def test_one_says_what_one_has_seen_and_nobody_else_does(shared_gateway: HttpGateway) -> None:
    here, mine, others = shared_gateway.services, str(uuid7()), str(uuid7())
    for user, id_ in (("u-17", mine), ("u-18", others)):
        recipients = [{"id": id_, "user": user}]
        wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": "t", "body": "b"}}, "recipients": recipients}
        here.pushes.send(parse_batch(wire))
    answer = _app(shared_gateway).post("/v1/me/seen", json={"notifications": [others, mine, str(uuid7())]})
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    assert [one["index"] for one in answer.json()["refused"]] == [0, 2]
    assert _seen(here) == [mine]
    # The application's backend may say it of anybody, and before the rows are written.
    new = str(uuid7())
    told = shared_gateway.client().post("/v1/seen", json={"notifications": [others, new, new]})
    assert told.json() == {"accepted": 3, "refused": []}
    assert sorted(_seen(here)) == sorted([others, new])
    assert _app(shared_gateway).post("/v1/me/seen", json={"notifications": []}).status_code == 422


def _seen(here: Services) -> list[str]:
    """Return the notifications of the receipts that wait, and take these out."""
    found = [e for raw in here.redis.hvals(INBOX_MESSAGES) for e in parse_receipts(json.loads(raw)["message"])]
    here.redis.flushdb()
    assert {event.kind for event in found} == {Receipt.SEEN}
    return [str(event.notification) for event in found]
