"""``knocktwice up``: everything on one machine, and nothing left of it afterwards."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import psutil
import pytest

from support.documents import README, blocks, commands
from support.stack import KNOCKTWICE, Stack
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    built = Stack(tmp_path / ".knocktwice")
    eventually(lambda: "Ctrl-C ends everything" in built.said(), why=built.said)
    yield built
    if built.process.poll() is None:
        built.process.kill()
    built.process.wait(60)


def test_everything_runs_and_nothing_is_left(stack: Stack) -> None:
    sent = stack.run(
        "notify", "--registration", "clicks-1", "--title", "Hello", "--body", "Knock", "--when", "not_clicked"
    )
    assert sent.returncode == 0, sent.stderr
    id_ = sent.stdout.strip()
    eventually(lambda: f"{id_} reached" in stack.run("status", id_).stdout, why=stack.said)
    # By the address in the push: the gateway has taken what the app reported.
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.sandbox}/sandbox/pushes", timeout=5) as answer:
        (pushed,) = json.load(answer)["pushes"]
    assert pushed["data"]["knocktwice_receipt"].startswith(f"http://127.0.0.1:{stack.gateway}/r/")
    assert {(report["kind"], report["answered"]) for report in pushed["reports"]} == {
        ("delivered", 204),
        ("clicked", 204),
    }
    eventually(lambda: _answers(f"http://127.0.0.1:{stack.flower}/healthcheck"), why=stack.said)
    eventually(lambda: _answers(f"http://127.0.0.1:{stack.gateway}/readyz"), why=stack.said)
    assert _answers(f"http://127.0.0.1:{stack.sandbox}/")

    (worker,) = stack.children("knocktwice_worker worker")
    worker.kill()
    eventually(lambda: stack.children("knocktwice_worker worker") not in ([], [worker]), why=stack.said)

    second = stack.start()
    assert second.wait(60) == 1
    assert "already run by process" in stack.said()
    assert "Traceback" not in stack.said()

    family = stack.children()
    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(90) == 0
    assert not psutil.wait_procs(family, timeout=30)[1]


def test_the_readmes_blocks_run_from_top_to_bottom(stack: Stack) -> None:
    (snippet,) = blocks(README, "python")
    (script,) = blocks(README, "sh")
    sessions = [typed for block in blocks(README, "console") for typed in commands(block)]
    # CI runs the demo by itself; the stack is what "make up" runs.
    assert [" ".join(words) for words, _ in sessions if words[0] == "make"] == ["make demo", "make up", "make check"]
    (hello, shown), (explain, _) = (typed for typed in sessions if typed[0][0] != "make")
    assert hello == [".venv/bin/python", "hello.py"]
    assert explain == [".venv/bin/knocktwice", "explain", shown]

    folder = stack.home.parent / "sub" / "folder"
    folder.mkdir(parents=True)
    (folder / "hello.py").write_text(snippet)
    environment = {k: v for k, v in stack.environment.items() if not k.startswith("KNOCKTWICE_")}
    done = subprocess.run(
        [sys.executable, "hello.py"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(stack.home) in done.stderr
    id_ = done.stdout.strip()
    eventually(lambda: _texts(stack) == ["Your order arrives at 19:30."], why=stack.said)
    eventually(lambda: "texted" in stack.run("explain", id_).stdout, why=stack.said)

    eventually(lambda: _answers(f"http://127.0.0.1:{stack.gateway}/readyz"), why=stack.said)
    script = script.replace(".venv/bin/knocktwice", shlex.join(KNOCKTWICE))
    asked = subprocess.run(
        ["/bin/sh", "-ec", script], env=stack.environment, capture_output=True, text=True, check=False
    )
    (accepted,) = json.loads(asked.stdout)["ids"]
    eventually(lambda: stack.run("status", accepted).returncode == 0, why=stack.said)


def test_another_terminal_is_given_what_it_needs(stack: Stack) -> None:
    exports = stack.run("env").stdout
    assert exports in stack.said()
    script = f'{exports}\ncurl -sf "$GATEWAY/v1/messages?limit=1" -H "Authorization: Bearer $KEY"'
    eventually(lambda: _answers(f"http://127.0.0.1:{stack.gateway}/readyz"), why=stack.said)
    asked = subprocess.run(["/bin/sh", "-ec", script], capture_output=True, text=True, check=False)
    assert json.loads(asked.stdout) == {"messages": [], "next": None}, asked.stderr

    stack.process.send_signal(signal.SIGTERM)
    assert stack.process.wait(90) == 0
    for command in ([*KNOCKTWICE, "env"], [sys.executable, "-c", "import knocktwice; knocktwice.Client()"]):
        refused = subprocess.run(command, env=stack.environment, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert "start" in refused.stderr
        assert "knocktwice up" in refused.stderr

    # With the addresses of the last run in its environment it is the same stack, and its key is the same.
    words = [word.split("=", 1) for word in shlex.split(exports) if "=" in word]
    stack.environment |= {name: value for name, value in words if name.startswith("KNOCKTWICE_")}
    stack.process = stack.start()
    eventually(lambda: stack.said().count(exports) == 2, why=stack.said)


def test_nothing_outlives_a_kill(stack: Stack) -> None:
    eventually(lambda: len(stack.children("knocktwice_worker")) == 4, why=stack.said)
    family = stack.children()
    stack.process.kill()
    stack.process.wait(60)
    assert not psutil.wait_procs(family, timeout=60)[1]


def _texts(stack: Stack) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.sandbox}/sandbox/texts", timeout=5) as answer:
        return [text["body"] for text in json.load(answer)["texts"]]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own, on this machine
            return bool(answer.status == 200)
    except OSError:
        return False
