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
    from collections.abc import Iterator
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
