"""Tencent's accounts and tags at ``/tpns``: each operation of their reference, what it means here,
and what is refused.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import parse_audience
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.audience import people, profile
from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    from support.http_gateway import HttpGateway

ACCOUNTS, TAGS = "/tpns/v3/device/account/batchoperate", "/tpns/v3/device/tag"
ONE, TWO, THREE = "token-one", "token-two", "token-three"


@pytest.fixture
def gateway(shared_gateway: HttpGateway) -> HttpGateway:
    """The module's gateway, with nothing accepted."""
    shared_gateway.services.redis.flushdb()
    return shared_gateway


def ask(gateway: HttpGateway, path: str, body: dict[str, Any], *scopes: Scope) -> dict[str, Any]:
    _, id_, hidden = gateway.key(*(scopes or (Scope.AUDIENCE,))).split("_")
    headers = {"Authorization": "Basic " + base64.b64encode(f"{id_}:{hidden}".encode()).decode()}
    answer = gateway.stranger().post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def bind(gateway: HttpGateway, **accounts: str) -> dict[str, Any]:
    listed = [{"token": token.replace("_", "-"), "account_list": [{"account": a}]} for token, a in accounts.items()]
    return ask(gateway, ACCOUNTS, {"operator_type": 2, "platform": "android", "token_accounts": listed})


def work(gateway: HttpGateway) -> None:
    """Do what a worker does with the changes that were accepted."""
    services = gateway.services
    messages = [json.loads(one)["message"] for one in services.redis.hvals(INBOX_MESSAGES)]
    with services.engine.begin() as conn:
        for message in sorted(messages, key=lambda one: str(one["changes"][0]["at"])):
            people.apply(conn, parse_audience(message))
    services.redis.flushdb()


def known(gateway: HttpGateway, user: str) -> tuple[set[str], dict[str, Any]]:
    """Return a user's registrations and tags."""
    with gateway.services.engine.connect() as conn:
        found = profile.find(conn, user)
        return {one.registration for one in profile.devices(conn, user)}, dict(found.tags) if found else {}


def test_a_token_is_bound_to_its_account_and_a_later_one_takes_its_place(gateway: HttpGateway) -> None:
    told = bind(gateway, token_one="u-1", token_two="u-1", token_three="u-2")
    assert (told["ret_code"], told["err_msg"], told["result"]) == (0, "", ["0", "0", "0"])
    assert "push_id" not in told
    again = {"token": ONE, "account_list": [{"account": "u-0"}, {"account": "u-3"}]}
    told = ask(gateway, ACCOUNTS, {"operator_type": 1, "token_accounts": [again]})
    assert (told["ret_code"], told["result"]) == (0, ["0"])
    work(gateway)
    assert [known(gateway, user)[0] for user in ("u-0", "u-1", "u-2", "u-3")] == [set(), {TWO}, {THREE}, {ONE}]


def test_a_tag_finds_the_account_that_was_bound_a_moment_ago(gateway: HttpGateway) -> None:
    bind(gateway, token_one="u-1", token_two="u-2")
    told = ask(gateway, TAGS, {"operator_type": 7, "token_list": [ONE, TWO], "tag_list": ["vip"]})
    assert (told["ret_code"], told["result"]) == (0, ["0", "0"])
    work(gateway)
    assert [known(gateway, user)[1] for user in ("u-1", "u-2")] == [{"vip": True}, {"vip": True}]
    # Bound otherwise since then: that counts.
    moved = gateway.client().put(f"/v1/users/u-3/devices/{ONE}", json={"platform": "ios"})
    assert moved.status_code == 202
    work(gateway)
    assert ask(gateway, TAGS, {"operator_type": 1, "token_list": [ONE], "tag_list": ["tea"]})["ret_code"] == 0
    work(gateway)
    assert [known(gateway, user)[1] for user in ("u-1", "u-3")] == [{"vip": True}, {"tea": True}]


@pytest.mark.parametrize(
    ("operation", "fields", "left"),
    [
        (1, {"tag_list": ["new", "more"]}, {"level:1", "tea", "new"}),
        (2, {"tag_list": ["tea", "level:1"]}, {"level:1"}),
        (3, {"tag_list": ["new", "more"]}, {"level:1", "tea", "new", "more"}),
        (4, {"tag_list": ["tea", "level:1"]}, set()),
        (5, {}, set()),
        (6, {"tag_list": ["new"]}, {"new"}),
        (6, {"tag_list": ["level:2"]}, {"level:2", "tea"}),
        (8, {"tag_list": ["tea"]}, {"level:1"}),
        (9, {"tag_token_list": [{"tag": "a", "token": ONE}, {"tag": "b", "token": ONE}]}, {"level:1", "tea", "a", "b"}),
        (10, {"tag_token_list": [{"tag": "tea", "token": ONE}]}, {"level:1"}),
    ],
)
def test_each_operation_on_tags(gateway: HttpGateway, operation: int, fields: dict[str, Any], left: set[str]) -> None:
    bind(gateway, token_one=f"t-{operation}-{len(left)}")
    ask(gateway, TAGS, {"operator_type": 3, "token_list": [ONE], "tag_list": ["level:1", "tea"]})
    user = f"t-{operation}-{len(left)}"
    gateway.client().put(f"/v1/users/{user}/tags", json={"tags": {"city": "Berlin"}})
    work(gateway)
    lists = {} if operation > 8 else {"token_list": [ONE]}
    told = ask(gateway, TAGS, {"operator_type": operation, **lists, **fields})
    assert (told["ret_code"], set(told["result"])) == (0, {"0"})
    # The message names each field that the operation cannot carry out.
    assert (told["err_msg"] != "") == (operation in (1, 2))
    work(gateway)
    assert known(gateway, user)[1] == {"city": "Berlin", **dict.fromkeys(left, True)}


def test_as_many_tags_as_tencent_takes_are_given_at_once(gateway: HttpGateway) -> None:
    bind(gateway, token_one="many")
    wanted = [f"{n:02}" + "标" * 48 for n in range(100)]
    assert ask(gateway, TAGS, {"operator_type": 3, "token_list": [ONE], "tag_list": wanted})["ret_code"] == 0
    work(gateway)
    assert set(known(gateway, "many")[1]) == set(wanted)


def test_accounts_are_unbound(gateway: HttpGateway) -> None:
    bind(gateway, token_one="v-1", token_two="v-1", token_three="v-2")
    work(gateway)
    # The clock of the database is ahead of the gateway's, by which changes are dated.
    with gateway.services.engine.begin() as conn:
        conn.execute(sa.text("UPDATE hwids SET changed_at = changed_at + interval '1 hour'"))
    lists = [{"token": ONE, "account_list": [{"account": "v-1"}]}, {"token": THREE, "account_list": [{"account": "x"}]}]
    assert ask(gateway, ACCOUNTS, {"operator_type": 3, "token_accounts": lists})["result"] == ["0", "0"]
    work(gateway)
    assert (known(gateway, "v-1")[0], known(gateway, "v-2")[0]) == ({TWO}, {THREE})
    assert ask(gateway, TAGS, {"operator_type": 1, "token_list": [ONE], "tag_list": ["x"]})["result"] == ["10103"]
    assert ask(gateway, ACCOUNTS, {"operator_type": 4, "token_list": [THREE, "unknown-token"]})["ret_code"] == 0
    assert ask(gateway, ACCOUNTS, {"operator_type": 5, "account_list": [{"account": "v-1"}]})["ret_code"] == 0
    work(gateway)
    assert (known(gateway, "v-1")[0], known(gateway, "v-2")[0]) == (set(), set())
    told = ask(gateway, TAGS, {"operator_type": 7, "token_list": [TWO, THREE], "tag_list": ["x"]})
    assert (told["ret_code"], told["result"]) == (10103, ["10103", "10103"])


def test_one_item_that_cannot_be_done_stops_no_other(gateway: HttpGateway) -> None:
    types = [{"account": "w-1"}, {"account": "+1 650 555 0100", "account_type": 3}]
    listed = [{"token": ONE, "account_list": types}, {"token": TWO, "account_list": [{"account": "w-2"}]}]
    told = ask(gateway, ACCOUNTS, {"operator_type": 2, "token_accounts": listed})
    assert (told["ret_code"], told["result"]) == (0, ["10103", "0"])
    assert "token_accounts[0]: has accounts of several types" in told["err_msg"]
    told = ask(gateway, TAGS, {"operator_type": 7, "token_list": ["stranger", TWO], "tag_list": ["x"]})
    assert (told["ret_code"], told["result"]) == (0, ["10103", "0"])
    assert "token_list[0]: belongs to no account here" in told["err_msg"]


@pytest.mark.parametrize(
    ("path", "body", "code", "said"),
    [
        (ACCOUNTS, {}, 10102, "operator_type: is missing"),
        (ACCOUNTS, {"operator_type": 6}, 10103, "operator_type: must be a whole number from 1 to 5"),
        (ACCOUNTS, {"operator_type": 2}, 10102, "token_accounts: is missing"),
        (ACCOUNTS, {"operator_type": 4, "token_list": ["null"]}, 10103, "token_list[0]"),
        (ACCOUNTS, {"operator_type": 5, "account_list": ["u"]}, 10103, "account_list[0]: must be an object"),
        (ACCOUNTS, {"operator_type": 5, "account_list": [{"account": ""}]}, 10103, "account_list[0].account: is empty"),
        (TAGS, {"operator_type": 1, "token_list": [ONE]}, 10102, "tag_list: is missing"),
        (TAGS, {"operator_type": 9, "tag_token_list": [{"tag": "x" * 65, "token": ONE}]}, 10103, "tag_token_list[0].tag"),
        (TAGS, {"operator_type": 5, "token_list": [ONE] * 501}, 10103, "token_list: has 501 items"),
        (TAGS, {"operator_type": 5, "token_list": [ONE], "platform": "symbian"}, 10103, "platform: must be android or ios"),
        (TAGS, {"operator_type": 5, "token_list": [ONE], "colour": 1}, 10103, "colour: is not a field"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_done(
    gateway: HttpGateway, path: str, body: dict[str, Any], code: int, said: str
) -> None:
    told = ask(gateway, path, body)
    assert told["ret_code"] == code
    assert said in told["err_msg"]
    assert gateway.services.redis.hlen(INBOX_MESSAGES) == 0


def test_it_needs_the_scope_that_changes_people(gateway: HttpGateway) -> None:
    body = {"operator_type": 5, "token_list": [ONE]}
    assert ask(gateway, TAGS, body, Scope.NOTIFY)["ret_code"] == 10104
