"""The command line as a person and a script use it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.system import eventually

if TYPE_CHECKING:
    from support.system import System

NUMBER = "+16505550900"
SAY = ["--title", "Hello", "--body", "Is anybody there?"]


class Commands:
    """Runs ``knocktwice`` with an installation's environment."""

    def __init__(self, system: System) -> None:
        self._environment = {**system.environment, "NO_COLOR": "1"}

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "knocktwice_worker.cli", *arguments]
        return subprocess.run(
            command,
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def run(system: System) -> Commands:
    return Commands(system)


def test_a_notification_from_sending_it_to_its_story(run: Commands, system: System) -> None:
    sent = run(
        "notify", *SAY, "--registration", "silent-1", "--phone", "+1 (650) 555-0900", "--after", "0", "--key", "k-1"
    )
    assert sent.returncode == 0, sent.stderr
    id_ = sent.stdout.strip()
    eventually(lambda: run("status", id_).stdout.startswith(f"{id_} texted"), why=system.logs)
    assert run.json("status", "k-1")["state"] == "texted"
    assert "twilio" in run("status", id_).stdout
    told = run("explain", id_).stdout
    assert "No device had reported the push as delivered" in told
    assert "twilio took the SMS as SM" in told
    assert "+1650•••00" in told
    assert NUMBER not in told
    assert "anybody" not in told
    assert run.json("explain", "k-1")["moments"][0]["kind"] == "accepted"
    assert run.json("notify", *SAY, "--registration", "silent-1", "--key", "k-1") == {"id": id_}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["notify", *SAY, "--phone", "12345"], "phone: has no country code; write + and the country code before it"),
        (["notify", *SAY, "--phone", NUMBER, "--when", "sometimes"], "sms.when: must be one of"),
        (
            ["notify", *SAY, "--phone", NUMBER, "--after", "99999999"],
            "sms.after: must be between 0 and 30 days",
        ),
        (["notify", *SAY], "recipient: names nobody"),
        (["notify", *SAY, "--phone", NUMBER, "--category", "spam"], "category: must be one of"),
        (["notify", "--title", "t", "--body", "{{ x", "--phone", NUMBER, "--sms", "x" * 5000], "sms"),
        (["notify", "--template", "t", "--sms", "x", "--user", "u"], "template: stands beside sms"),
        (["cancel"], "ids: is empty and so is key"),
        (["status", "no-such-key"], "no notification no-such-key"),
        (["explain", "01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a11"], "no notification 01939e2b"),
    ],
)
def test_an_error_is_one_line_that_names_the_field(run: Commands, arguments: list[str], message: str) -> None:
    done = run(*arguments, COLUMNS="400")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["notify", *SAY, "--user", "u"], ["status", "x"], ["migrate"]])
def test_servers_that_are_away_are_named_and_what_to_do(run: Commands, arguments: list[str]) -> None:
    away = {
        "KNOCKTWICE_DATABASE_URL": "postgresql://x:hush@127.0.0.1:1/x",
        "KNOCKTWICE_BROKER_URL": "redis://:hush@127.0.0.1:1/0",
    }
    done = run(*arguments, **away)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
    assert "hush" not in done.stderr


def test_a_wrong_setting_is_named(run: Commands) -> None:
    done = run("doctor", KNOCKTWICE_SMS_PER_DAY="many")
    assert done.returncode == 1
    assert done.stderr.startswith("error: KNOCKTWICE_SMS_PER_DAY: ")


def test_the_doctor_finds_nothing_wrong_and_then_what_is(run: Commands, system: System) -> None:
    def checked() -> dict[str, Any]:
        return {check["name"]: check for check in json.loads(run("doctor", "--json").stdout)}

    # A worker announces itself when it has begun to work.
    eventually(lambda: checked()["workers"]["level"] == "ok", why=system.logs)
    checks = checked()
    assert {name for name, check in checks.items() if check["level"] == "error"} == set()
    assert checks["workers"]["finding"].startswith("1 worker")
    broken = run("doctor", KNOCKTWICE_DATABASE_URL="postgresql://127.0.0.1:1/x", COLUMNS="400")
    assert broken.returncode == 1
    assert "error    postgres" in broken.stdout


def test_migrating_is_safe_at_any_time_and_twice_at_once(run: Commands, system: System) -> None:
    command = [sys.executable, "-m", "knocktwice_worker.cli", "migrate"]
    both = [subprocess.Popen(command, env=system.environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.wait(60) for p in both] == [0, 0]
    for process in both:
        assert process.stdout
        process.stdout.close()
    assert "up to date" in run("migrate").stdout


@pytest.mark.parametrize(
    "command",
    [[], ["notify"], ["cancel"], ["status"], ["explain"], ["doctor"], ["migrate"], ["up"], ["demo"], ["sandbox"]],
)
def test_every_command_explains_itself(run: Commands, command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0
    assert len(done.stdout.split()) > 15


def test_wrong_use_is_told_apart_from_failure(run: Commands) -> None:
    assert run("notify").returncode == 2
    for wrong, hint in (
        (["--title", "t"], "go together"),
        ([*SAY, "--no-push"], "leaves nothing to do"),
        ([*SAY, "--send-at", "tomorrow"], "must be a time like"),
        ([*SAY, "--send-at", "2027-01-15T09:00"], "has no time zone"),
        ([*SAY, "--send-at", "2027-01-15T09:00Z", "--local"], "has a time zone"),
        ([*SAY, "--local"], "says whose time"),
        ([*SAY, "--param", "x"], "must be NAME=VALUE"),
    ):
        done = run("notify", "--user", "u", *wrong, COLUMNS="400")
        assert (done.returncode, hint in done.stderr) == (2, True), done.stderr
    assert run("fly").returncode == 2
