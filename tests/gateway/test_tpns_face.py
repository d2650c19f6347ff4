"""Tencent's push API at ``/tpns``: their payloads and their two ways to name a key, their answers,
and our keys and limits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import Batch, When, parse_batch
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.gateway.auth.signing import signing_secret
from knocktwice_worker.gateway.faces import message_codes
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway
from support.tencent_sample import FIRST, SAMPLE, SECOND

if TYPE_CHECKING:
    import redis

TEMPLATE = {
    "default_locale": "en",
    "category": "transactional",
    "contents": {"en": {"push": {"title": "Order", "body": "It comes."}, "sms": "Your order {1} arrives at {2}."}},
}


@pytest.fixture
def gateway(shared_gateway: HttpGateway) -> HttpGateway:
    """The module's gateway, with nothing accepted and no template."""
    shared_gateway.services.redis.flushdb()
    shared_gateway.client().delete("/v1/templates/123")
    return shared_gateway


@pytest.fixture
def valkey(gateway: HttpGateway) -> redis.Redis:
    """What the gateway has accepted."""
    return gateway.services.redis


PUSH = {"message_type": "notify", "message": {"title": "t", "content": "c"}}


def accepted(valkey: redis.Redis) -> list[Batch]:
    return [parse_batch(json.loads(entry)["message"]) for entry in valkey.hvals(INBOX_MESSAGES)]


def basic(gateway: HttpGateway, *scopes: Scope) -> dict[str, str]:
    _, id_, hidden = gateway.key(*scopes).split("_")
    return {"Authorization": "Basic " + base64.b64encode(f"{id_}:{hidden}".encode()).decode()}


def post(
    gateway: HttpGateway, body: object, headers: dict[str, str] | None = None, repeat: str | None = None
) -> dict[str, Any]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or basic(gateway))}
    if repeat is not None:
        headers["Idempotency-Key"] = repeat
    answer = gateway.stranger().post("/tpns/v3/push/app", content=raw, headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def with_template(gateway: HttpGateway, **changes: object) -> None:
    definition = {name: value for name, value in (TEMPLATE | changes).items() if value is not None}
    assert gateway.client().put("/v1/templates/123", json=definition).status_code == 200


def test_the_documents_sample_is_taken_byte_for_byte(gateway: HttpGateway, valkey: redis.Redis) -> None:
    with_template(gateway)
    told = post(gateway, SAMPLE.encode())
    (batch,) = accepted(valkey)
    ids = [str(one.id) for one in batch.recipients]
    assert told == {
        "seq": 0,
        "environment": "product",
        "push_id": f"{batch.id}-2",
        "ret_code": 0,
        "err_msg": "",
        "result": "[0,0]",
        "knocktwice": {"ids": ids, "ignored": [], "sms_problems": [], "duplicate": False, "differs": False},
    }
    assert [str(id_) for id_ in message_codes.notifications_of(told["push_id"])] == ids
    assert [one.registrations for one in batch.recipients] == [(FIRST,), (SECOND,)]
    assert batch.sms_text == "[signe_name] Your order param1 arrives at param2."
    (step,) = batch.plan or ()
    assert (step.when, step.after) == (When.NOT_DELIVERED, timedelta(hours=1))


def signed(gateway: HttpGateway, body: bytes, moment: int | None = None, key: str | None = None) -> dict[str, str]:
    """What Tencent's reference says to do, step by step."""
    key = key or gateway.key(Scope.NOTIFY)
    id_ = keys.id_of(key) or ""
    root = secret(gateway.services.settings)
    secret_key = signing_secret(keys.digest(key, root), root)
    timestamp = str(int(time.time()) if moment is None else moment)
    sign = hmac.new(secret_key.encode(), timestamp.encode() + id_.encode() + body, hashlib.sha256).hexdigest()
    return {"AccessId": id_, "TimeStamp": timestamp, "Sign": base64.b64encode(sign.encode()).decode()}


def test_a_request_may_be_signed_instead(gateway: HttpGateway, valkey: redis.Redis) -> None:
    body = json.dumps(PUSH | {"audience_type": "account", "account_list": ["u-1"], "seq": 7}).encode()
    told = post(gateway, body, signed(gateway, body))
    assert (told["ret_code"], told["seq"]) == (0, 7)
    (batch,) = accepted(valkey)
    assert [one.user for one in batch.recipients] == ["u-1"]
    assert told["push_id"] == str(batch.recipients[0].id)


def test_the_secret_that_signs_serves_as_the_password(gateway: HttpGateway, valkey: redis.Redis) -> None:
    key = gateway.key(Scope.NOTIFY)
    root = secret(gateway.services.settings)
    pair = f"{keys.id_of(key)}:{signing_secret(keys.digest(key, root), root)}"
    body = PUSH | {"audience_type": "account", "account_list": ["u-1"]}
    told = post(gateway, body, {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"})
    assert (told["ret_code"], len(accepted(valkey))) == (0, 1)


@pytest.mark.parametrize("wrong", ["nothing", "bearer", "password", "body", "old", "no time", "nobodys", "forged"])
def test_whoever_has_no_key_is_refused_in_tencents_words(gateway: HttpGateway, valkey: redis.Redis, wrong: str) -> None:
    body = json.dumps(PUSH | {"audience_type": "account", "account_list": ["u-1"]}).encode()
    key = gateway.key(Scope.NOTIFY)
    fine = signed(gateway, body, key=key)
    id_ = fine["AccessId"]
    headers: dict[str, dict[str, str]] = {
        "nothing": {"X": "y"},
        "bearer": {"Authorization": f"Bearer {key}"},
        "password": {"Authorization": "Basic " + base64.b64encode(f"{id_}:{'a' * 32}".encode()).decode()},
        "body": signed(gateway, body + b" ", key=key),
        "old": signed(gateway, body, int(time.time()) - 700, key),
        "no time": {name: value for name, value in fine.items() if name != "TimeStamp"},
        "nobodys": {**fine, "AccessId": "a" * 12},
        "forged": {**fine, "Sign": base64.b64encode(b"0" * 64).decode()},
    }
    told = post(gateway, body, headers[wrong])
    assert (told["ret_code"], told["push_id"]) == (10104, "0")
    assert told["err_msg"]
    assert accepted(valkey) == []


def test_a_key_does_what_it_was_made_for_and_ends_when_it_is_revoked(gateway: HttpGateway, valkey: redis.Redis) -> None:
    one = PUSH | {"audience_type": "account", "account_list": ["u-1"]}
    everybody = PUSH | {"audience_type": "all"}
    assert post(gateway, one, basic(gateway, Scope.READ))["ret_code"] == 10104
    assert "lacks the scope blasts" in post(gateway, everybody, basic(gateway, Scope.NOTIFY))["err_msg"]
    assert post(gateway, everybody, basic(gateway, Scope.BLASTS))["ret_code"] == 0
    body = json.dumps(one).encode()
    key = gateway.key(Scope.NOTIFY)
    with gateway.services.engine.begin() as conn:
        assert keys.revoke(conn, keys.id_of(key) or "")
    assert post(gateway, body, signed(gateway, body, key=key))["ret_code"] == 10104
    assert accepted(valkey) == []


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (b"{", 10107, ""),
        (b"[]", 10103, "body"),
        (PUSH, 10102, "audience_type"),
        (PUSH | {"audience_type": "token_list", "token_list": []}, 10103, "token_list"),
        (PUSH | {"audience_type": "token_list", "token_list": ["x"] * 1001}, 10103, "token_list"),
        (PUSH | {"audience_type": "all", "loop_times": 3}, 10103, "loop_times"),
        (
            PUSH | {"audience_type": "account", "account_list": ["u"], "send_time": "2040-01-01 00:00:00"},
            10103,
            "send_time",
        ),
        (
            PUSH | {"audience_type": "account", "account_list": ["u"], "knocktwice": {"category": "x"}},
            10103,
            "category",
        ),
        (PUSH | {"audience_type": "token_list", "token_list": ["\ud800"]}, 10103, "token_list[0]"),
        ({**PUSH, "message_type": "message", "audience_type": "all"}, 10103, "message_type"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_sent(
    gateway: HttpGateway, valkey: redis.Redis, body: object, code: int, field: str
) -> None:
    told = post(gateway, body)
    assert (told["ret_code"], told["push_id"]) == (code, "0")
    assert field in told["err_msg"]
    assert accepted(valkey) == []


def test_other_paths_of_tencents_are_named_as_not_served(gateway: HttpGateway) -> None:
    answer = gateway.stranger().post("/tpns/v3/push/plan/add_plan_push", json={})
    assert (answer.status_code, answer.json()["ret_code"]) == (200, 10103)
    assert "/v3/push/plan/add_plan_push is not served" in answer.json()["err_msg"]


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "no SMS template"),
        ({"fallback": "never"}, "forbids an SMS"),
        ({"fallback": {"when": 1, "after": "5m", "media": "https://shop.example/a.png"}}, "whose SMS has media"),
        ({"contents": {"en": {"push": {"title": "t", "body": "{{ name }}"}}}}, "names its values"),
        ({"contents": {"en": {"push": {"title": "t", "body": "{1} {2} {3}"}}}}, "3 placeholders"),
    ],
)
def test_a_template_that_does_not_fit_leaves_the_push_and_is_named_unless_it_is_strict(
    gateway: HttpGateway, valkey: redis.Redis, template: dict[str, Any] | None, said: str
) -> None:
    if template is not None:
        with_template(gateway, **template)
    told = post(gateway, SAMPLE.encode())
    assert (told["ret_code"], told["result"]) == (0, "[0,0]")
    assert said in told["err_msg"]
    assert said in told["knocktwice"]["sms_problems"][0]["detail"]
    (batch,) = accepted(valkey)
    assert (batch.sms_text, batch.plan) == (None, ())
    strict = post(gateway, json.loads(SAMPLE) | {"knocktwice": {"strict": True}})
    assert (strict["ret_code"], len(accepted(valkey))) == (10103, 1)


def test_a_saved_template_brings_its_sender_its_category_and_its_signature(
    gateway: HttpGateway, valkey: redis.Redis
) -> None:
    with_template(gateway, signature="Shop:", sender="+16505550199", category="marketing")
    payload = json.loads(SAMPLE)
    del payload["sms_info"]["sms_sign_name"]
    assert post(gateway, payload)["err_msg"] == ""
    (batch,) = accepted(valkey)
    assert (batch.sms_text, batch.category) == ("Shop: Your order param1 arrives at param2.", "marketing")
    assert [step.sender for step in batch.plan or ()] == ["+16505550199"]


def test_a_template_id_that_no_template_can_have_is_not_looked_up(gateway: HttpGateway) -> None:
    payload = json.loads(SAMPLE)
    payload["sms_info"]["sms_template_id"] = "\0"
    told = post(gateway, payload)
    assert (told["ret_code"], "no SMS template" in told["err_msg"]) == (0, True)


def test_a_wish_that_cannot_be_met_is_named_beside_the_push(gateway: HttpGateway, valkey: redis.Redis) -> None:
    message = {"title": "t", "content": "c", "android": {"vibrate": 0, "n_ch_id": "orders", "ring": 0}}
    payload = {**PUSH, "message": message, "audience_type": "account", "account_list": ["u"], "collapse_id": 4}
    told = post(gateway, payload)
    assert [one["field"] for one in told["knocktwice"]["ignored"]] == ["collapse_id", "message.android.vibrate"]
    assert "message.android.vibrate: is ignored" in told["err_msg"]
    (batch,) = accepted(valkey)
    assert batch.push is not None
    assert (batch.push.channel_id, batch.push.sound) == ("orders", "none")


def test_tags_and_all_become_blasts_that_a_key_starts_once(gateway: HttpGateway) -> None:
    payload = PUSH | {"audience_type": "tag", "tag_list": {"tags": ["vip"], "op": "OR"}}
    first, again = (post(gateway, payload, repeat="tea-47") for _ in range(2))
    other = post(gateway, payload)
    assert first["push_id"] == again["push_id"] != other["push_id"]
    assert [one["knocktwice"]["duplicate"] for one in (first, again, other)] == [False, True, False]
    changed = post(gateway, payload | {"message": {"title": "t", "content": "else"}}, repeat="tea-47")
    assert changed["knocktwice"]["differs"]
    with gateway.services.engine.connect() as conn:
        query = sa.text("SELECT filter FROM blasts WHERE id IN (:first, :other)")
        found = conn.execute(query, {"first": first["push_id"], "other": other["push_id"]}).scalars().all()
    assert found == [{"field": "tags.vip", "op": "=", "value": True}] * 2
    assert gateway.client().get("/v1/blasts/tea-47").json()["id"] == first["push_id"]


def test_a_repeat_with_an_idempotency_key_is_the_same_request(gateway: HttpGateway, valkey: redis.Redis) -> None:
    payload = PUSH | {"audience_type": "token_list", "token_list": [f"token-{n}" for n in range(600)]}
    headers = basic(gateway)
    first, again = (post(gateway, payload, headers, repeat="k") for _ in range(2))
    assert first == again
    assert len(first["knocktwice"]["ids"]) == 600
    assert [len(batch.recipients) for batch in accepted(valkey)] == [500, 100]
    assert [str(one) for one in message_codes.notifications_of(first["push_id"])] == first["knocktwice"]["ids"]
    other = post(gateway, payload | {"seq": 4}, headers, repeat="k")
    assert other["ret_code"] == 10103
    assert "another body" in other["err_msg"]


def test_a_caller_that_should_try_again_is_told_by_the_status_too(here: Services) -> None:
    settings = here.settings.model_copy(update={"gateway_per_s": 1})
    with closing(Services(settings)) as slow, HttpGateway(slow) as gateway:
        headers, body = basic(gateway), json.dumps(PUSH | {"audience_type": "account", "account_list": ["u"]})
        answers = [gateway.stranger().post("/tpns/v3/push/app", content=body, headers=headers) for _ in range(20)]
    refused = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
    assert refused[0].json()["ret_code"] == 10100
    assert "Retry-After" in refused[0].headers
