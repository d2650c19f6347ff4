"""The examples in the documents run: each page's blocks one after the other, as a reader would try them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import yaml
from standardwebhooks import Webhook

from knocktwice import Client, Push, Sms
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.audience import segment_filter
from knocktwice_worker.declarations import files as declarations
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.services import process
from support.documents import PAGES, ROOT, blocks, commands, name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput
    from support.http_gateway import HttpGateway


def _page(path: str) -> Path:
    return ROOT / "docs" / path


def _with(language: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, language)]


#: What an example works with that its page does not make.
_SECRET = "whsec_" + "c2VjcmV0" * 4
_BODY = '{"type": "knocktwice.test"}'
_NOW = datetime.now(UTC)


def _surroundings(page: Path) -> dict[str, object]:
    signature = Webhook(_SECRET).sign("msg_1", _NOW, _BODY)
    headers = {"webhook-id": "msg_1", "webhook-timestamp": f"{_NOW:%s}", "webhook-signature": signature}
    payload = [json.loads(block) for block in blocks(page, "json")[:1]]
    return {"secret": _SECRET, "body": _BODY, "headers": headers, "payload": payload[0] if payload else None}


@pytest.mark.parametrize("page", _with("python"), ids=name)
def test_python(page: Path, valkey_url: str, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", valkey_url)
    with Client() as client:
        names = {"client": client, "Push": Push, "Sms": Sms, "timedelta": timedelta, **_surroundings(page)}
        for block in blocks(page, "python"):
            exec(block, names)  # noqa: S102 - our own documents
    if "client." in "".join(blocks(page, "python")):
        assert valkey.hlen(INBOX_MESSAGES) > 0


def test_the_producers_guide_sends_what_it_says(
    valkey_url: str, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", valkey_url)
    names: dict[str, object] = {}
    for block in blocks(_page("producer.md"), "python"):
        exec(block, names)  # noqa: S102 - our own document
    accepted = [str(entry) for entry in valkey.hvals(INBOX_MESSAGES)]
    for task in (Task.UPDATE_AUDIENCE, Task.SEND_PUSH, Task.RECORD_EVENTS, Task.CANCEL):
        assert any(f'"task":"{task}"' in entry for entry in accepted), f"no {task} was accepted"
    assert any(str(names["notification"]) in entry for entry in accepted)
    assert sum("u-99" in entry for entry in accepted) == 1


@pytest.mark.parametrize("page", _with("sh"), ids=name)
def test_http(page: Path, gateway: HttpGateway, valkey: redis.Redis) -> None:
    key = gateway.key(Scope.NOTIFY, Scope.AUDIENCE, Scope.READ)
    environment = {**os.environ, "GATEWAY": gateway.url, "KEY": key}
    for script in blocks(page, "sh"):
        done = subprocess.run(["/bin/sh", "-ec", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert valkey.hlen(INBOX_MESSAGES) > 0


@pytest.mark.parametrize("page", _with("yaml"), ids=name)
def test_yaml(page: Path) -> None:
    for block in blocks(page, "yaml"):
        declared = yaml.safe_load(block)
        known = {kind.key: kind for kind in declarations.KINDS}
        for kind in declared.keys() & known.keys():
            for called, definition in declared[kind].items():
                known[kind].check(called, definition)


@pytest.mark.parametrize("page", _with("json"), ids=name)
def test_json(page: Path) -> None:
    for block in blocks(page, "json"):
        read = json.loads(block)
        if read.keys() & {"and", "or", "not", "op"}:
            segment_filter.parse(read)


@pytest.mark.parametrize(
    "page", [_page("recipes/order-ready.md"), _page("recipes/opted-out-segment.md"), _page("templates.md")], ids=name
)
def test_a_session_can_be_typed(
    page: Path, run: Callable[..., CommandOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    declared, *_ = blocks(page, "yaml")
    for session in blocks(page, "console"):
        _type(session, run, declared, monkeypatch)


def test_the_guide_to_blasts_can_be_followed(
    run: Callable[..., CommandOutput], working: Services, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noon, because at night nobody is texted.
    clock.set(datetime(2026, 11, 20, 12, tzinfo=UTC))
    monkeypatch.chdir(tmp_path)
    (declared,) = blocks(_page("blasts.md"), "yaml")
    with working.engine.begin() as conn:
        for statement in _TEA_DRINKERS:
            conn.execute(sa.text(statement))
    with _worker(working):
        _type(blocks(_page("blasts.md"), "console")[0], run, declared, monkeypatch)
    with working.engine.begin() as conn:
        pushed = "SELECT count(*) FROM deliveries WHERE step = 0 AND state = 'sent'"
        assert conn.execute(sa.text(pushed)).scalar_one() == 2


_TEA_DRINKERS = (
    "INSERT INTO users (id, tags) SELECT unnest(ARRAY['ada', 'ben', 'cleo', 'dan']), '{\"interests\": [\"tea\"]}'",
    "INSERT INTO users (id) VALUES ('eve')",
    "INSERT INTO devices (registration, user_id) VALUES ('silent-ada', 'ada'), ('silent-ben', 'ben'), ('silent-eve', 'eve')",
    """
    INSERT INTO phones (user_id, number, region, consented_at) VALUES ('ada', '+4366012345678', 'AT', now()),
      ('cleo', '+4366012345679', 'AT', now()), ('dan', '+4366012345670', 'AT', NULL)
    """,
)


@contextmanager
def _worker(here: Services) -> Iterator[None]:
    """Run blasts until the block ends, as a worker does."""
    ended = threading.Event()

    def publish(task: Task, ids: Sequence[str]) -> None:
        work = {Task.EXPAND_BLAST: here.expansion.step, Task.SEND_PAGE: here.expansion.send_page}[task]
        for id_ in ids:
            work(id_, publish)

    def work() -> None:
        while not ended.wait(0.05):
            here.expansion.ring(publish)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _type(session: str, run: Callable[..., CommandOutput], declared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type a session, and compare what it answers with what the document shows."""
    for words, answer in commands(session):
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("=", 1))
            process._services.clear()
            continue
        if words[1] == "apply":
            Path(words[2]).write_text(declared)
        said = run(*words[1:])
        assert said.code == 0, said.err
        assert not answer or said.out.rstrip() == answer


def test_what_is_written_from_the_code_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
