"""The examples for cron and Kubernetes start a blast, as their comments say: once, whatever is repeated."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from celery.schedules import crontab

from knocktwice_worker.audience import segments
from knocktwice_worker.audience.segment_filter import parse
from knocktwice_worker.cli.blast_preflight import OVER_BUDGET
from knocktwice_worker.content import template_store, templates

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
CRONTAB = (DEPLOY / "blasts.crontab").read_text()
JOB: dict[str, Any] = yaml.safe_load((DEPLOY / "blasts.cronjob.yaml").read_text())
SPEC: dict[str, Any] = JOB["spec"]["jobTemplate"]["spec"]
POD: dict[str, Any] = SPEC["template"]["spec"]
(LINE,) = (line for line in CRONTAB.splitlines() if line[:1].isdigit())
#: As the shell gets it.
COMMANDS = [LINE.split(maxsplit=5)[5].replace(r"\%", "%").removesuffix(" >/dev/null"), POD["containers"][0]["args"][0]]


def _words(command: str) -> list[str]:
    """The command's words, as the shell passes them on."""
    told = subprocess.run(["/bin/sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    return told.stdout.splitlines()


@pytest.mark.parametrize("command", COMMANDS, ids=["crontab", "kubernetes"])
def test_the_command_starts_a_blast_and_the_same_week_again_does_nothing(
    run: Callable[..., CommandOutput], here: Services, command: str
) -> None:
    with here.engine.begin() as conn:
        segments.put(conn, "tea", parse({"everyone": True}))
        content = {"en": {"push": {"title": "Tea week", "body": "{{ tea }} is cheaper."}}}
        template_store.put(conn, "tea_week", templates.check("tea_week", {"default_locale": "en", "contents": content}))
    words = _words(command)
    assert Path(words[0]).name == "knocktwice"
    first, second = run(*words[1:]), run(*words[1:])
    assert re.fullmatch(r"blast tea-week-20\d\d-\d\d: started\n", first.out)
    assert (first.code, second.code) == (0, 0)
    assert "was started before" in second.out


def test_both_schedules_are_fridays_at_six() -> None:
    for schedule in (" ".join(LINE.split()[:5]), JOB["spec"]["schedule"]):
        fields = crontab.from_string(schedule)
        assert (fields.hour, fields.minute, fields.day_of_week) == ({18}, {0}, {5})


def test_what_does_not_help_is_not_tried_again() -> None:
    (rule,) = SPEC["podFailurePolicy"]["rules"]
    assert OVER_BUDGET in rule["onExitCodes"]["values"]
    # A pod failure policy asks for this.
    assert POD["restartPolicy"] == "Never"


def test_the_examples_hold_no_secret() -> None:
    assert all("valueFrom" in variable for variable in POD["containers"][0]["env"])
    assert not re.search(r"(?i)(password|://)", CRONTAB)
