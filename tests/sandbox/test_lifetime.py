"""Starting, stopping, waiting, and the service account that outlives a sandbox."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import httpx
import pytest

from knocktwice_worker.sandbox import Sandbox
from support.provider_clients import post_push


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
