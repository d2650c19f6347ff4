"""A test key makes tests and sees tests: nothing that is real is reached or changed, and every answer has the mark."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice import Client, Push, Sms
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    import httpx

    from knocktwice_worker.services import Services
    from support.http_gateway import HttpGateway

PUSH = {"title": "Hello", "body": "Are you there?"}
#: Nobody has such a device or number, and nothing is pushed by FCM in these tests.
ONE = {"registrations": ["silent-1"], "phone": "+16505550100", "push": PUSH}
EVERYBODY = {"key": "k", "segment": {"everyone": True}, "push": PUSH}
LATER = (datetime.now(UTC) + timedelta(days=20)).isoformat()


@pytest.fixture
def here(shared_gateway: HttpGateway) -> Services:
    shared_gateway.services.redis.flushdb()
    return shared_gateway.services


def accepted(here: Services, task: Task = Task.SEND_PUSH) -> list[Any]:
    entries = [json.loads(entry) for entry in here.redis.hvals(INBOX_MESSAGES)]
    return [entry["message"] for entry in entries if entry["task"] == task]


def carry_out(here: Services) -> None:
    """Do a worker's part of everything that was accepted."""
    waiting: Any = here.redis.hgetall(INBOX_MESSAGES)
    for id_, entry in waiting.items():
        told = json.loads(entry)
        here.inbox.carry_out(Task(told["task"]), id_.decode(), told["message"], here.accepted[Task(told["task"])])


def sent(client: httpx.Client, **body: Any) -> str:
    answer = client.post("/v1/notifications", json=ONE | body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["ids"][0])


@pytest.mark.parametrize("project", [None, "shop"])
def test_what_it_sends_is_marked_from_the_answer_to_the_history(
    shared_gateway: HttpGateway, here: Services, project: str | None
) -> None:
    client, operator = shared_gateway.client(project=project, test=True), shared_gateway.client()
    told = client.post("/v1/notifications", json=ONE | {"key": f"order-{project}"}).json()
    real = sent(operator, key="order-1", send_at=LATER)
    assert "test" not in operator.post("/v1/notifications", json=ONE | {"send_at": LATER}).json()
    carry_out(here)
    (id_,) = told["ids"]
    assert told["test"] is True
    for reader in (client, operator):
        story = reader.get(f"/v1/notifications/{id_}").json()
        assert (story["test"], story["project"], story["state"]) == (True, project, "pushed")
        assert [one["content"] for one in story["would_have_sent"]] == [PUSH]
    assert client.get(f"/v1/notifications/{real}").status_code == 404
    assert [one["test"] for one in client.get("/v1/messages").json()["messages"]] == [True]
    marks = {one["id"]: one["test"] for one in operator.get("/v1/messages").json()["messages"]}
    assert (marks[id_], marks[real]) == (True, False)
    assert operator.get(f"/v1/notifications/{real}").json()["would_have_sent"] == []
    # Its own name for its project, or none.
    assert sent(client, project=project, send_at=LATER)
    assert client.post("/v1/notifications", json=ONE | {"project": "bank"}).status_code == 422
    assert operator.post("/v1/notifications", json=ONE | {"project": "shop~test"}).status_code == 422


def test_it_stops_tests_and_nothing_real(shared_gateway: HttpGateway, here: Services) -> None:
    client, operator = shared_gateway.client(test=True), shared_gateway.client()
    ids = [sent(who, key="order-2", send_at=LATER) for who in (client, operator)]
    carry_out(here)
    client.post("/v1/cancellations", json={"ids": ids, "keys": ["order-2"]}).raise_for_status()
    carry_out(here)
    states = [operator.get(f"/v1/notifications/{id_}").json()["state"] for id_ in ids]
    assert states == ["cancelled", "active"]


def test_it_changes_nothing_of_people(shared_gateway: HttpGateway, here: Services) -> None:
    client = shared_gateway.client(test=True)
    refused = [
        client.put("/v1/users/ada/devices/d-1", json={"platform": "web"}),
        client.put("/v1/users/ada/phone", json={"phone": "+16505550100"}),
        client.put("/v1/users/ada/tags", json={"tags": {"a": 1}}),
        client.post("/v1/opt-outs", json={"opt_outs": [{"number": "+16505550100"}]}),
        client.delete("/v1/users/ada"),
        client.post("/v1/users/ada/tokens"),
        client.put("/v1/templates/hello", json={}),
        client.post("/v1/pauses", params={"channel": "sms", "reason": "x"}),
        client.post("/onesignal/apps/a/users", json={"identity": {"external_id": "ada"}}),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)
    assert all("this is a test key" in answer.text for answer in refused)
    assert client.get("/v1/brakes").status_code == 403
    # Tags beside a user would change a real person, so a test checks them and keeps nothing.
    sent(client, user="ada", tags={"likes": "tea"})
    (message,) = accepted(here)
    assert accepted(here, Task.UPDATE_AUDIENCE) == []
    assert {"user", "tags"}.isdisjoint(message["recipients"][0])
    wrong = client.post("/v1/notifications", json=ONE | {"user": "ada", "tags": {"likes": {"no": "object"}}})
    assert wrong.status_code == 422
    own = secret(here.settings)
    with here.engine.begin() as conn, pytest.raises(InvalidMessage, match="admin, audience is not for a test key"):
        keys.create(conn, "x", {Scope.AUDIENCE, Scope.ADMIN, Scope.READ}, secret=own, test=True)


@pytest.mark.usefixtures("here")
def test_a_blast_of_its_own_is_a_test(shared_gateway: HttpGateway) -> None:
    client, operator = shared_gateway.client(test=True), shared_gateway.client()
    started = [who.post("/v1/blasts", json=EVERYBODY).json() for who in (client, operator)]
    assert [(one["test"], one["duplicate"]) for one in started] == [(True, False), (False, False)]
    assert [one["test"] for one in client.get("/v1/blasts").json()["blasts"]] == [True]
    assert client.post(f"/v1/blasts/{started[1]['id']}/abort").status_code == 404


def test_onesignals_clients_test(shared_gateway: HttpGateway, here: Services) -> None:
    client, operator = shared_gateway.client(test=True), shared_gateway.client()
    body = {"app_id": "a", "include_phone_numbers": ["+16505550100"], "contents": {"en": "B"}, "send_after": LATER}
    told, real = (who.post("/onesignal/notifications", json=body).json() for who in (client, operator))
    assert (told["test"], "test" in real) == (True, False)
    assert client.get(f"/onesignal/notifications/{told['id']}").json()["test"] is True
    for _ in range(2):
        # First while they wait, then when they are written.
        assert client.get(f"/onesignal/notifications/{real['id']}").status_code == 404
        assert client.delete(f"/onesignal/notifications/{real['id']}").status_code == 404
        carry_out(here)
    assert client.get(f"/onesignal/notifications/{told['id']}").json()["test"] is True
    listed = client.get("/onesignal/notifications").json()
    assert all(one["test"] for one in listed["notifications"])
    assert real["id"] in {one["id"] for one in operator.get("/onesignal/notifications").json()["notifications"]}
    assert client.delete(f"/onesignal/notifications/{told['id']}").json() == {"success": True}
    everybody = {"app_id": "a", "included_segments": ["All"], "contents": {"en": "B"}, "headings": {"en": "H"}}
    assert client.post("/onesignal/notifications", json=everybody).json()["test"] is True


def test_pushwooshs_clients_test(shared_gateway: HttpGateway, here: Services) -> None:
    def call(method: str, key: str, **inside: object) -> dict[str, Any]:
        body = {"request": {"application": "A", "auth": key, **inside}}
        told: dict[str, Any] = shared_gateway.stranger().post(f"/pushwoosh/json/1.3/{method}", json=body).json()
        return told

    key, operators = shared_gateway.key(test=True), shared_gateway.key()
    message = {"send_date": LATER[:16].replace("T", " "), "content": "Hello!", "devices": ["+16505550100"]}
    told, real = (call("createMessage", k, notifications=[message])["response"] for k in (key, operators))
    assert (told["knocktwice"][0]["test"], "test" in real["knocktwice"][0]) == (True, False)
    carry_out(here)
    (code,), (reals,) = told["Messages"], real["Messages"]
    assert call("getMessageDetails", key, message=code)["response"]["message"]["knocktwice"]["test"] is True
    assert "active" not in str(call("getMessageDetails", key, message=reals)["response"])
    for one in (code, reals):
        call("deleteMessage", key, message=one)
    carry_out(here)
    states = [
        shared_gateway.client().get(f"/v1/notifications/{one['knocktwice'][0]['ids'][0]}").json()["state"]
        for one in (told, real)
    ]
    assert states == ["cancelled", "active"]
    group = {"send_date": "now", "content": "Hello!"}
    assert call("createMessage", key, notifications=[group])["response"]["knocktwice"][0]["test"] is True


def test_tencents_clients_test(shared_gateway: HttpGateway, here: Services) -> None:
    _, id_, hidden = shared_gateway.key(test=True).split("_")
    headers = {"Authorization": "Basic " + base64.b64encode(f"{id_}:{hidden}".encode()).decode()}
    body = {"message_type": "notify", "message": {"title": "t", "content": "c"}}
    for audience in ({"audience_type": "token", "token_list": ["silent-1"]}, {"audience_type": "all"}):
        told = shared_gateway.stranger().post("/tpns/v3/push/app", json=body | audience, headers=headers).json()
        assert (told["ret_code"], told["knocktwice"]["test"]) == (0, True)
    assert [one["project"] for one in accepted(here)] == ["~test"]
    with here.engine.connect() as conn:
        assert conn.exec_driver_sql("SELECT DISTINCT project FROM blasts WHERE key LIKE 'tpns-%%'").scalars().all() == [
            "~test"
        ]


def test_the_library_has_a_test_client(here: Services) -> None:
    with Client(here.settings.broker_url, project="shop", test=True) as client:
        client.notify(user="ada", phone="+16505550100", push=Push("a", "b"), sms=Sms("c"))
        with pytest.raises(InvalidMessage, match="a test client changes no people"):
            client.register_device("ada", "d-1")
        with pytest.raises(InvalidMessage, match="a test client changes no people"):
            client.set_marketing_consent("ada", granted=True, source="x")
    (message,) = accepted(here)
    assert (message["project"], message["recipients"][0].get("user")) == ("shop~test", None)
    assert accepted(here, Task.UPDATE_AUDIENCE) == []
