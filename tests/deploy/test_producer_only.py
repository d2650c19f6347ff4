"""``pip install .`` alone: applications can send, and the command says what it lacks instead of failing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_MODULE, _, _FUNCTION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"][
    "knocktwice"
].partition(":")


def _run(before: str, *options: str, command: str = "up") -> subprocess.CompletedProcess[str]:
    """Run what the console script runs, after some preparation."""
    program = f"import sys\n{before}\nfrom {_MODULE} import {_FUNCTION}\nsys.argv[1:] = [{command!r}]\n{_FUNCTION}()"
    return subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=False)


def test_without_the_worker_the_command_says_how_to_install_it() -> None:
    # Without the site-packages: nothing but the standard library and the code itself.
    ours = [str(ROOT / part) for part in ("producer", "shared", "worker")]
    done = _run(f"sys.path += {ours!r}", "-I", "-S")
    assert done.returncode == 2
    assert "is not installed" in done.stderr
    assert "pip install 'knocktwice[worker]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "package"), [("demo", "aiohttp"), ("gateway", "fastapi")])
def test_what_a_command_needs_beyond_the_worker_is_named_too(command: str, package: str) -> None:
    done = _run(f"sys.modules[{package!r}] = None", command=command)
    assert done.returncode == 2
    assert f"{package} is not installed" in done.stderr
    assert "pip install 'knocktwice[all]'" in done.stderr


def test_a_module_of_our_own_that_is_missing_is_a_bug_and_shows_itself() -> None:
    done = _run("sys.modules['knocktwice_worker.cli.main'] = None")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
