"""The README's examples run, its commands exist, and what it says about the code is what the code says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice.testing import RecordingClient
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker import services
from knocktwice_worker.celery import app as celery_app
from knocktwice_worker.cli import main
from knocktwice_worker.config import Settings
from knocktwice_worker.gateway.auth.keys import Scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput
    from support.http_gateway import HttpGateway

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    path for folder in ("", ".github", "deploy", "docs", "shared") for path in sorted((ROOT / folder).glob("*.md"))
]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_example_of_an_application_sends_what_it_says(
    valkey_url: str, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", valkey_url)
    names: dict[str, object] = {}
    for block in _blocks("python")[:2]:
        exec(block, names)  # noqa: S102 - our own README
    accepted = [str(entry) for entry in valkey.hvals(INBOX_MESSAGES)]
    for task in (Task.UPDATE_AUDIENCE, Task.SEND_PUSH, Task.RECORD_EVENTS, Task.CANCEL):
        assert any(f'"task":"{task}"' in entry for entry in accepted), f"no {task} was accepted"
    assert any(str(names["notification"]) in entry for entry in accepted)


def test_the_example_of_a_template_can_be_applied_previewed_and_sent(
    run: Callable[..., CommandOutput], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("templates.yaml").write_text(_blocks("yaml")[0])
    _type(run, "knocktwice apply templates.yaml", monkeypatch)


def test_the_example_of_a_blast_can_be_followed(
    run: Callable[..., CommandOutput], working: Services, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noon, because at night nobody is texted.
    clock.set(datetime(2026, 11, 20, 12, tzinfo=UTC))
    monkeypatch.chdir(tmp_path)
    (declared,) = (block for block in _blocks("yaml") if "blasts:" in block)
    Path("tea.yaml").write_text(declared)
    with working.engine.begin() as conn:
        for statement in _TEA_DRINKERS:
            conn.execute(sa.text(statement))
    with _worker(working):
        _type(run, "knocktwice apply tea.yaml", monkeypatch)
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

    def run() -> None:
        while not ended.wait(0.05):
            here.expansion.ring(publish)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _type(run: Callable[..., CommandOutput], first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type the session in which a command stands, and compare what it answers."""
    (session,) = (block for block in _blocks("console") if first in block)
    for exchange in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, answer = exchange.partition("\n")
        words = shlex.split(command)
        if words[0] == "export":
            monkeypatch.setenv(*words[1].split("=", 1))
            services._services.clear()
            continue
        said = run(*words[1:])
        assert (said.code, said.out.rstrip()) == (0, answer.rstrip())


def test_the_examples_for_other_languages_send_what_they_say(gateway: HttpGateway, valkey: redis.Redis) -> None:
    (script,) = _blocks("sh")
    environment = {**os.environ, "GATEWAY": gateway.url, "KEY": gateway.key(Scope.NOTIFY, Scope.AUDIENCE, Scope.READ)}
    done = subprocess.run(["/bin/sh", "-ec", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    accepted = [str(entry) for entry in valkey.hvals(INBOX_MESSAGES)]
    assert len(accepted) == 2
    assert any("Ana" in entry for entry in accepted)
    assert '"messages":[]' in done.stdout


@pytest.mark.usefixtures("knocktwice_broker")
def test_the_examples_of_a_test_of_asyncio_and_of_later_times_pass() -> None:
    for block in _blocks("python")[2:]:
        exec(block, {"client": RecordingClient()})  # noqa: S102 - our own README


def test_what_is_written_from_the_code_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_repeats_the_default_limits() -> None:
    settings = Settings()
    assert f"only once in {settings.sms_same_content_s:.0f} seconds" in README
    assert f"at most {settings.sms_per_day} SMS per calendar day ({settings.sms_day_zone}" in README
    assert settings.sms_unknown_grace_s == 120
    assert "still not there after two minutes" in README


def test_every_command_in_the_documents_exists() -> None:
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    ours = {name.partition(" ")[0] for name, _ in main.commands()}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^\$ |`|bin/)knocktwice ([a-z-]+)", text, re.MULTILINE)) <= ours
    assert set(re.findall(r"(?:^\$ |`)make ([a-z]+)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"celery -A (\w+)", text)) == {"knocktwice_worker"}
    assert celery_app.main == "knocktwice"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
