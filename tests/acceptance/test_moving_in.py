"""Customers of other products move in by changing an address: their documented steps, each a request to the gateway."""

from __future__ import annotations

import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.auth.keys import Scope
from support.system import System, eventually
from support.tencent_sample import FIRST, SAMPLE, SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.clock import Clock


@pytest.fixture(scope="module")
def key(installation: System) -> str:
    """A key for everything."""
    with installation.engine.begin() as conn:
        return keys.create(conn, "mover", [Scope.ADMIN], secret=installation.environment["KNOCKTWICE_SECRET"])


@pytest.fixture(scope="module")
def ours(gateway: str, key: str) -> Iterator[httpx.Client]:
    """Our own interface."""
    with httpx.Client(base_url=gateway, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        yield client


def test_tencents_four_steps_end_with_an_sms_to_whom_the_push_did_not_reach(
    installation: System, gateway: str, ours: httpx.Client, key: str, clock: Clock, tmp_path: Path
) -> None:
    # 1. Bind mobile numbers. The second phone reports its push as delivered.
    for user, token, number in (("ana", FIRST, "+16505550140"), ("ben", SECOND, "+16505550141")):
        assert ours.put(f"/v1/users/{user}/devices/{token}", json={}).status_code == 202
        assert ours.put(f"/v1/users/{user}/phone", json={"phone": number}).status_code == 202
    # 2. Authorize access: AccessId and SecretKey are those of a key.
    _, access_id, secret_key = key.split("_")
    # 3. Signature and body template.
    content = {"push": {"title": "Order", "body": "On its way"}, "sms": "Your order {1} arrives at {2}."}
    template = {"default_locale": "en", "contents": {"en": content}}
    assert ours.put("/v1/templates/123", json=template).status_code == 200
    # 4. The sample push, byte for byte, by curl.
    (tmp_path / "payload.json").write_bytes(SAMPLE.encode())
    address = f"{gateway}/tpns/v3/push/app"
    curl = ["curl", "-sf", "-u", f"{access_id}:{secret_key}", address, "-H", "Content-Type: application/json"]
    done = subprocess.run([*curl, "--data-binary", f"@{tmp_path / 'payload.json'}"], capture_output=True, check=True)
    told: dict[str, Any] = httpx.Response(200, content=done.stdout).json()
    assert (told["ret_code"], told["err_msg"], told["result"]) == (0, "", "[0,0]")
    ana, ben = told["knocktwice"]["ids"]
    sandbox = installation.sandbox
    pushes = eventually(lambda: two if len(two := sandbox.pushes()) == 2 else [], why=installation.logs)
    assert {(push.title, push.body) for push in pushes} == {(" test loop", "test loop")}
    (shown,) = [push for push in pushes if push.registration == SECOND]
    assert httpx.post(f"{shown.data['knocktwice_receipt']}/delivered").status_code == 204
    eventually(lambda: ours.get(f"/v1/notifications/{ben}").json()["state"] == "reached", why=installation.logs)
    assert sandbox.texts() == []
    clock.advance(timedelta(hours=1))
    eventually(lambda: ours.get(f"/v1/notifications/{ana}").json()["state"] == "texted", why=installation.logs)
    (text,) = sandbox.texts()
    assert (text.to, text.body) == ("+16505550140", "[signe_name] Your order param1 arrives at param2.")


def test_pushwooshs_six_steps_end_with_an_sms_and_its_statistics(
    installation: System, gateway: str, ours: httpx.Client, key: str, clock: Clock
) -> None:
    sandbox = installation.sandbox

    def call(method: str, **inside: object) -> Any:
        body = {"request": {"application": "AAAAA-BBBBB", "auth": key, **inside}}
        told = httpx.post(f"{gateway}/pushwoosh/json/1.3/{method}", json=body, timeout=30).json()
        assert told["status_message"] == "OK", told
        return told["response"]

    def send(**message: object) -> tuple[str, str]:
        response = call("createMessage", notifications=[{"send_date": "now", **message}])
        ((id_,),) = [one["ids"] for one in response["knocktwice"]]
        return response["Messages"][0], id_

    def told(id_: str) -> dict[str, Any]:
        found: dict[str, Any] = ours.get(f"/v1/notifications/{id_}").json()
        return found

    # 1. Associate the customer's number with a user, and the phone that takes pushes.
    call("registerDevice", hwid="+16505550150", device_type=18, userId="cleo")
    call("registerDevice", hwid="phone-of-cleo", push_token="silent-cleo", device_type=3, userId="cleo", language="de")
    # 2. A preset that is used for pushes and SMS, with dynamic content.
    contents = {
        "en": {"push": {"title": "Order", "body": "Hi {{ name }}, your order is on its way."}},
        "de": {"push": {"title": "Bestellung", "body": "Hallo {{ name }}, deine Bestellung kommt."}},
    }
    template = {"default_locale": "en", "contents": contents}
    assert ours.put("/v1/templates/AAAAA-11111", json=template).status_code == 200
    # 3. An SMS to her number, whose text is 4. the preset's, filled in.
    preset = {"preset": "AAAAA-11111", "dynamic_content_placeholders": {"name": "Cleo"}}
    _, alone = send(content="", devices=["+16505550150"], platforms=[18], **preset)
    eventually(lambda: told(alone).get("state") == "texted", why=installation.logs)
    (text,) = sandbox.texts("+16505550150")
    assert text.body == "Hallo Cleo, deine Bestellung kommt."
    # 5. Split by whether it is delivered, and the waiting time: a push first, the SMS if nothing is reported in an
    # hour.
    split = {"sms": {"when": "not_delivered", "after_s": 3600, "text": "Your order is on its way."}}
    code, id_ = send(content="On its way", devices=["phone-of-cleo"], knocktwice=split)
    eventually(lambda: sandbox.pushes("silent-cleo"), why=installation.logs)
    eventually(lambda: len(told(id_).get("steps", ())) == 2, why=installation.logs)
    assert len(sandbox.texts("+16505550150")) == 1
    clock.advance(timedelta(hours=1))
    eventually(lambda: told(id_).get("state") == "texted", why=installation.logs)
    assert [one.body for one in sandbox.texts("+16505550150")][1:] == ["Your order is on its way."]
    # 6. Across her devices, by her user id; and the message history.
    _, everywhere = send(content="Thank you", users=["cleo"])
    eventually(lambda: told(everywhere).get("state") == "pushed", why=installation.logs)
    results = eventually(
        lambda: seen if (seen := _results(call, code))["channels"].get("sms", {}).get("delivery") else {},
        why=installation.logs,
    )
    assert results["channels"] == {"push": {"send": 1}, "sms": {"send": 1, "delivery": 1}}
    assert {(row["action"], row["count"]) for row in results["rows"]} >= {("delivery", 1)}
    assert call("getMessageDetails", message=code)["message"]["status"] == "done"


def _results(call: Callable[..., Any], code: str) -> dict[str, Any]:
    request_id = call("getMsgStats", message=code)["request_id"]
    found = call("getResults", request_id=request_id)
    assert found["formatter"] == "hourly"
    return {"rows": found["rows"], **found["knocktwice"]}
