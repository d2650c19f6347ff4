"""A person proves a number by a code: whom the SMS reaches, who may guess how often, and what is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from knocktwice import user_token
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.config import Settings
from knocktwice_worker.gateway.auth.phone_codes import TRIES, VALID, PhoneCodes
from knocktwice_worker.gateway.problems import Problem
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    import redis

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services

NUMBER = "+16505550177"


@pytest.fixture
def gateway(working: Services) -> Iterator[HttpGateway]:
    with HttpGateway(working) as running:
        yield running


def _app(gateway: HttpGateway, user: str = "u-17") -> httpx.Client:
    client = gateway.stranger()
    client.headers["Authorization"] = f"Bearer {user_token(user, secret='test')}"
    return client


def _work(here: Services) -> None:
    """Do what workers do, from what was accepted to the SMS."""
    accepted = [json.loads(raw) for raw in here.redis.hvals(INBOX_MESSAGES)]
    here.redis.delete(INBOX_MESSAGES)
    for one in accepted:
        here.accepted[Task(one["task"])]([one["message"]])
        ids = [recipient["id"] for recipient in one["message"].get("recipients", ())]
        here.later_steps.send(here.fallback.check(ids))


def _number(here: Services) -> str | None:
    _work(here)
    with here.engine.connect() as conn:
        found: str | None = conn.exec_driver_sql("SELECT number FROM phones WHERE user_id = 'u-17'").scalar()
        return found


def _ask(app: httpx.Client, here: Services, sandbox: Sandbox) -> str:
    """Have a code sent, and return what the SMS says."""
    assert app.post("/v1/me/phone", json={"phone": "+1 650 555 0177"}).status_code == 202
    _work(here)
    body = sandbox.texts(NUMBER)[-1].body
    assert body.endswith(" is your code. It works for ten minutes.")
    return body[:6]


def test_a_number_is_bound_by_the_code_that_came_to_it(
    gateway: HttpGateway, working: Services, sandbox: Sandbox
) -> None:
    app = _app(gateway)
    code = _ask(app, working, sandbox)
    assert _number(working) is None
    told = json.dumps([str(working.redis.hgetall(key)) for key in working.redis.keys("knocktwice:phone-code:code:*")])
    assert code not in told
    assert NUMBER not in told
    given = {"phone": "(650) 555-0177", "code": code}
    assert app.post("/v1/me/phone/verify", json={**given, "phone": NUMBER}).json() == {"status": "accepted"}
    assert _number(working) == NUMBER
    # It works once.
    assert app.post("/v1/me/phone/verify", json={**given, "phone": NUMBER}).status_code == 422


def test_a_code_proves_nothing_for_another_number_or_another_person(
    gateway: HttpGateway, working: Services, sandbox: Sandbox
) -> None:
    app = _app(gateway)
    code = _ask(app, working, sandbox)
    other = app.post("/v1/me/phone/verify", json={"phone": "+16505550178", "code": code})
    assert (other.status_code, other.json()["field"]) == (422, "code")
    somebody = _app(gateway, "u-18").post("/v1/me/phone/verify", json={"phone": NUMBER, "code": code})
    assert somebody.status_code == 422
    assert app.post("/v1/me/phone/verify", json={"phone": NUMBER, "code": code}).status_code == 202


def test_a_number_that_has_opted_out_gets_no_code(gateway: HttpGateway, working: Services, sandbox: Sandbox) -> None:
    assert gateway.client().put(f"/v1/opt-outs/{NUMBER}", json={}).status_code in (200, 201, 202)
    assert _app(gateway).post("/v1/me/phone", json={"phone": NUMBER}).status_code == 202
    _work(working)
    assert sandbox.texts(NUMBER) == []


def test_a_number_that_cannot_be_texted_is_named(gateway: HttpGateway) -> None:
    for body, field in (({"phone": "12"}, "phone"), ({}, "phone"), ({"phone": NUMBER, "user": "u-18"}, "user")):
        answer = _app(gateway).post("/v1/me/phone", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_codes_can_be_switched_off(here: Services) -> None:
    closed = type(here)(here.settings.model_copy(update={"phone_codes_per_h": 0}))
    with HttpGateway(closed) as gateway:
        assert _app(gateway).post("/v1/me/phone", json={"phone": NUMBER}).status_code == 403
    closed.close()


def test_an_sms_that_was_not_accepted_counts_for_nobody(here: Services) -> None:
    strict = type(here)(here.settings.model_copy(update={"phone_codes_per_h": 1}))
    with HttpGateway(strict) as gateway:
        assert _app(gateway).post("/v1/me/phone", json={"phone": NUMBER}).status_code == 202
        body = {"phone": "+16505550178"}
        _limit(strict, 1)
        assert _app(gateway, "u-18").post("/v1/me/phone", json=body).status_code == 503
        _limit(strict, 1_000)
        assert _app(gateway, "u-18").post("/v1/me/phone", json=body).status_code == 202
        refused = _app(gateway, "u-18").post("/v1/me/phone", json=body)
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 3_600
    strict.close()


def _limit(here: Services, messages: int) -> None:
    """Let so many messages wait, as a worker says when it sweeps."""
    replace(here.inbox, grace_s=3_600, most_messages=messages).sweep(lambda *_: None)


@pytest.mark.parametrize("text", ["Hello", "{{ code }} for {{ name }}", "{{ code | nonsense }}", "{{ code"])
def test_a_text_without_the_code_stops_the_process(text: str) -> None:
    with pytest.raises(ValidationError, match="phone_code_text"):
        Settings(phone_code_text=text)


def _codes(valkey: redis.Redis, per_hour: int = 3) -> PhoneCodes:
    return PhoneCodes(valkey, "test", per_hour)


def test_wrong_codes_use_up_the_tries(valkey: redis.Redis) -> None:
    codes = _codes(valkey)
    code = codes.make("u-17", NUMBER, "192.0.2.1")
    wrong = "000000" if code != "000000" else "000001"
    assert not any(codes.fits("u-17", NUMBER, wrong) for _ in range(TRIES - 1))
    assert codes.fits("u-17", NUMBER, code)
    assert not codes.fits("u-17", NUMBER, code)


def test_a_code_ends(valkey: redis.Redis) -> None:
    codes = _codes(valkey)
    codes.make("u-17", NUMBER, "192.0.2.1")
    (key,) = valkey.keys("knocktwice:phone-code:code:*")
    assert 0 < valkey.ttl(key) <= VALID.total_seconds()
    assert all(valkey.ttl(key) > 0 for key in valkey.keys("knocktwice:phone-code:*"))


def test_a_newer_code_replaces_the_older_one(valkey: redis.Redis) -> None:
    codes = _codes(valkey)
    old = codes.make("u-17", NUMBER, "192.0.2.1")
    new = codes.make("u-17", NUMBER, "192.0.2.1")
    assert old == new or not codes.fits("u-17", NUMBER, old)
    assert codes.fits("u-17", NUMBER, new)


@pytest.mark.parametrize("shared", ["user", "number", "address"])
def test_codes_are_limited_per_person_number_and_address(valkey: redis.Redis, shared: str) -> None:
    codes = _codes(valkey)

    def ask(place: int) -> None:
        given: dict[str, Any] = {"user": f"u-{place}", "number": f"+1650555{place:04}", "address": f"192.0.2.{place}"}
        given |= {shared: "the same"}
        codes.make(**given)

    most = 3 * 10 if shared == "address" else 3
    for place in range(most):
        ask(place)
    with pytest.raises(Problem) as refused:
        ask(most)
    assert refused.value.status == 429
    # Who was refused is not counted anywhere else.
    used = {"user": f"u-{most}", "number": f"+1650555{most:04}", "address": f"192.0.2.{most}"} | {shared: "another"}
    for _ in range(3):
        codes.make(**used)
