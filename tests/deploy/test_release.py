"""A release: the wheel has everything and works alone, its changes are written down,
and its workflows run what was reviewed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml

import knocktwice
from support.documents import ROOT

SOURCES = ("producer/knocktwice", "shared/knocktwice_shared", "worker/knocktwice_worker")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    options = [
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
        "--wheel-dir",
        str(folder),
    ]
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", *options, str(ROOT)])
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(wheel: Path) -> None:
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = {
        path.relative_to((ROOT / source).parent).as_posix()
        for source in SOURCES
        for path in (ROOT / source).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert files == ours


def test_an_installed_wheel_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    options = ["--no-deps", "--no-index", "--disable-pip-version-check", "--quiet"]
    _run([sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel)])
    # The libraries are those of the tests; what is installed for editing is not found this way.
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(str(Path(yaml.__file__).parents[1]))
    script = "import knocktwice, knocktwice_worker.tasks as t; print(knocktwice.__version__, knocktwice.__file__, t.__file__)"
    version, *places = _run([str(python), "-c", script], tmp_path).split()
    assert version == knocktwice.__version__
    assert all(place.startswith(str(site)) for place in places)
    assert "notify" in _run([str(tmp_path / "venv" / "bin" / "knocktwice"), "--help"], tmp_path)


def test_the_version_is_said() -> None:
    assert knocktwice.__version__ == metadata.version("knocktwice")


def test_the_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert knocktwice.__version__ in versions or f"What will be {knocktwice.__version__}" in text


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_reviewed_actions_with_few_rights(workflow: Path) -> None:
    text = workflow.read_text()
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert [
        action for action, comment in used if not re.search(r"@[0-9a-f]{40}$", action) or "# v" not in comment
    ] == []
    described = yaml.safe_load(text)
    assert described["permissions"] == {"contents": "read"}
    for job in described["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert set(job.get("permissions", {})) <= {"contents", "id-token", "attestations"}
    assert "persist-credentials: false" in text


def test_a_release_names_what_it_consists_of_and_where_it_came_from() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"run: make ([a-z ]+)", text)[0].split()) <= set(targets)
    assert "--provenance=mode=max --sbom=true" in text
    assert "attest-build-provenance" in text


def _run(command: list[str], folder: Path = ROOT) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
