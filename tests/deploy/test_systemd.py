"""The systemd units start commands and options that exist, and systemd itself understands them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from knocktwice_shared.names import Queue

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
BIN = Path(sys.executable).parent


def _settings(unit: Path) -> dict[str, str]:
    lines = (line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def test_there_is_a_unit_for_each_process() -> None:
    assert {unit.stem for unit in UNITS} == {
        "knocktwice-worker@",
        "knocktwice-beat",
        "knocktwice-flower",
        "knocktwice-gateway",
    }


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_real_command_with_real_options(unit: Path, tmp_path: Path) -> None:
    program, *words = shlex.split(_settings(unit)["ExecStart"])
    done = subprocess.run(
        [BIN / Path(program).name, *words, "--help"],
        cwd=tmp_path,
        env={**os.environ, "KNOCKTWICE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        # Flower's own options are Tornado's, not in its help.
        assert option in done.stdout or "flower" in words, option


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_needs_no_rights_and_comes_back(unit: Path) -> None:
    settings = _settings(unit)
    assert settings["User"] == "knocktwice"
    assert settings["DynamicUser"] == settings["NoNewPrivileges"] == "yes"
    assert settings["Restart"] == "always"
    assert settings["EnvironmentFile"] == "/etc/knocktwice/env"


def test_the_workers_of_a_machine_serve_every_queue() -> None:
    text = (DEPLOY / "knocktwice-worker@.service").read_text()
    found = re.search(r"knocktwice-worker@\{([a-z,]+)\}", text)
    assert found
    assert "--queues=knocktwice.%i " in _settings(DEPLOY / "knocktwice-worker@.service")["ExecStart"]
    assert {f"knocktwice.{name}" for name in found[1].split(",")} == {queue.value for queue in Queue}


ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(ANALYZE is None, reason="no systemd on this machine")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    copies = []
    for unit in UNITS:
        # A template is verified as one of its instances; and the programs are those of this installation.
        copy = tmp_path / unit.name.replace("@.", "@push.")
        copy.write_text(unit.read_text().replace("/opt/knocktwice/bin/", f"{BIN}/"))
        copies.append(copy)
    done = subprocess.run([str(ANALYZE), "verify", "--man=no", *copies], capture_output=True, text=True, check=False)
    assert [line for line in done.stderr.splitlines() if str(tmp_path) in line or "knocktwice" in line] == []
