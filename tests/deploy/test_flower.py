"""Flower with our configuration: closed unless a password is set, and without personal data in pages,
API and search.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from uuid import uuid4

import psutil
import pytest
from celery import Celery
from flower import command
from flower.events import EventsState
from flower.inspector import Inspector

from knocktwice import Client, Push, Recipient
from knocktwice_shared.names import Queue
from knocktwice_worker.runtime import flower_guard
from support.ports import free_port
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

PHONE = "+16505550199"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must be refused
OURS = f"('{uuid4()} 1 notifications',)"


def _start(broker_url: str, home: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    environment = {"KNOCKTWICE_HOME": str(home), "KNOCKTWICE_BROKER_URL": broker_url, **environment}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLOWER_")}
    return subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "knocktwice_worker", "flower", *options],
        cwd=home,
        env={**kept, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _get(url: str, *, authorized: bool = True) -> str:
    request = urllib.request.Request(url)  # noqa: S310 - our own server
    if authorized:
        request.add_header("Authorization", "Basic " + base64.b64encode(b"ada:lovelace").decode())
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - our own server
        return str(answer.read().decode())


def _answers(url: str) -> bool:
    try:
        return _get(f"{url}/healthcheck") == "OK"
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture
def flower(valkey_url: str, tmp_path: Path) -> Iterator[str]:
    """Flower's address."""
    port = free_port()
    process = _start(valkey_url, tmp_path, f"--port={port}", FLOWER_BASIC_AUTH="ada:lovelace")
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: _answers(url))
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_flower_shows_our_summaries_and_hides_what_others_tell_of_a_task(flower: str, valkey_url: str) -> None:
    ours, foreign = str(uuid4()), str(uuid4())

    def tell() -> bool:
        # Events that are sent before Flower listens are lost, so they are told until they are seen.
        with Celery(broker=valkey_url) as app, app.events.default_dispatcher(hostname="worker@test") as events:
            for id_, args in ((ours, OURS), (foreign, f"['{PHONE}']")):
                events.send(
                    "task-received", uuid=id_, name="knocktwice.send_push", args=args, kwargs=f"{{'to': '{PHONE}'}}"
                )
                events.send("task-succeeded", uuid=id_, result=f"'{PHONE}'", runtime=0.1)
        shown = json.loads(_get(f"{flower}/api/tasks?state=SUCCESS"))
        # Flower may have begun to listen between the two.
        return all(shown.get(id_, {}).get("args") for id_ in (ours, foreign))

    eventually(tell)
    tasks = json.loads(_get(f"{flower}/api/tasks"))
    assert tasks[ours]["args"] == OURS
    assert tasks[foreign]["args"] == tasks[foreign]["kwargs"] == tasks[foreign]["result"] == "(hidden)"
    seen = [
        _get(f"{flower}/api/tasks"),
        _get(f"{flower}/api/task/info/{foreign}"),
        _get(f"{flower}/task/{foreign}"),
        _get(f"{flower}/tasks"),
        _get(f"{flower}/metrics"),
    ]
    assert not any(PHONE in page for page in seen)
    assert json.loads(_get(f"{flower}/api/tasks?search={PHONE.removeprefix('+')}")) == {}


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower as our application changes it, for this test only."""
    for place, name in ((EventsState, "event"), (Inspector, "_on_update"), (command, "extract_settings")):
        monkeypatch.setattr(place, name, getattr(place, name))
    monkeypatch.setattr(EventsState, "__init__", EventsState.__init__)
    monkeypatch.setattr(command, "_guarded", False, raising=False)
    flower_guard.install()


@pytest.mark.usefixtures("guarded")
def test_flower_hides_the_arguments_that_a_worker_tells_of_its_tasks() -> None:
    inspector = Inspector(io_loop=None, capp=None, timeout=1)
    task = {"id": "1", "name": "knocktwice.send_push", "args": [{"phone": PHONE}], "kwargs": {}}
    inspector._on_update("worker@test", "active", [task])
    inspector._on_update("worker@test", "reserved", [task | {"args": OURS}])
    inspector._on_update("worker@test", "scheduled", [{"eta": None, "request": task}])
    told = inspector.workers["worker@test"]
    assert told["reserved"][0]["args"] == OURS
    assert told["active"][0]["args"] == told["scheduled"][0]["request"]["args"] == "(hidden)"
    assert PHONE not in str(told)


def test_flower_shows_what_we_say_of_every_kind_of_message(valkey_url: str, valkey: redis.Redis) -> None:
    id_ = uuid4()
    with Client(valkey_url) as client:
        client.notify_many([Recipient(user="u-1"), Recipient(user="u-2")], push=Push("Hello", "Knock knock"))
        client.record_clicked(id_)
        client.cancel(id_, key="order-1")
        client.bind_phone("u-1", PHONE)
    published = [json.loads(entry) for queue in Queue for entry in valkey.lrange(queue.value, 0, -1)]
    assert len(published) == 4
    for message in published:
        summary = message["headers"]["argsrepr"]
        assert flower_guard.visible(summary) == summary
    for summary in (f"(2 notifications: {id_}, …,)", f"(1 notifications: {id_},)", f"({id_} again,)"):
        assert flower_guard.visible(summary) == summary
    # Not imported: knocktwice_worker.tasks would add its tasks to every Celery application of the test run.
    failure = """TaskFailed("OperationalError; see the worker's log")"""
    assert flower_guard.visible(failure) == failure
    assert flower_guard.visible(f"({{'user': 'u-1', 'id': '{id_}'}},)") == "(hidden)"


def test_tasks_of_a_killed_worker_are_lost_and_not_active_for_ever(flower: str, valkey_url: str) -> None:
    killed, alive, done = (str(uuid4()) for _ in range(3))

    def tell(hostname: str, **tasks: str) -> None:
        with Celery(broker=valkey_url) as app, app.events.default_dispatcher(hostname=hostname) as events:
            for id_, state in tasks.items():
                events.send("task-received", uuid=id_, name="knocktwice.send_push", args=OURS, kwargs="{}")
                events.send(f"task-{state}", uuid=id_)
            # Last: who saw a task sees this too. Without it Flower takes a worker to be alive for two minutes, not
            # seconds.
            events.send("worker-heartbeat", freq=2, active=1, processed=1)

    def shown(*ids: str) -> list[str | None]:
        tasks = json.loads(_get(f"{flower}/api/tasks"))
        return [tasks.get(id_, {}).get("state") for id_ in ids]

    def both_work() -> bool:
        # Events that are sent before Flower listens are lost, so they are told until they are seen.
        tell("killed@test", **{killed: "started", done: "succeeded"})
        tell("alive@test", **{alive: "started"})
        return shown(killed, alive, done) == ["STARTED", "STARTED", "SUCCESS"]

    def one_fell_silent() -> bool:
        tell("alive@test")
        return shown(killed)[0] == "LOST"

    eventually(both_work)
    eventually(one_fell_silent)
    assert shown(alive, done) == ["STARTED", "SUCCESS"]


def test_flower_asks_who_is_there_and_lets_nobody_act(flower: str) -> None:
    for path in ("/", "/tasks", "/api/tasks", "/api/workers"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            _get(flower + path, authorized=False)
        assert refused.value.code == 401
        refused.value.close()
    send = urllib.request.Request(f"{flower}/api/task/send-task/knocktwice.send_push", data=b"{}", method="POST")  # noqa: S310
    send.add_header("Authorization", "Basic " + base64.b64encode(b"ada:lovelace").decode())
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(send, timeout=5)  # noqa: S310 - our own server
    assert refused.value.code == 403
    refused.value.close()


@pytest.mark.parametrize(
    ("options", "environment"),
    [([f"--address={EVERYWHERE}"], {}), ([], {"FLOWER_ADDRESS": EVERYWHERE}), (["--address="], {})],
)
def test_flower_does_not_open_to_the_network_without_a_password(
    options: list[str], environment: dict[str, str], valkey_url: str, tmp_path: Path
) -> None:
    process = _start(valkey_url, tmp_path, f"--port={free_port()}", *options, **environment)
    try:
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "FLOWER_BASIC_AUTH" in told


def test_flower_listens_to_this_machine_only_unless_told_otherwise(valkey_url: str, tmp_path: Path) -> None:
    port = free_port()
    process = _start(valkey_url, tmp_path, f"--port={port}")
    try:
        eventually(lambda: _answers(f"http://127.0.0.1:{port}"))
        open_to = {
            open_.laddr.ip for open_ in psutil.Process(process.pid).net_connections("tcp") if open_.status == "LISTEN"
        }
        assert open_to == {"127.0.0.1"}
    finally:
        process.terminate()
        process.communicate(timeout=30)
