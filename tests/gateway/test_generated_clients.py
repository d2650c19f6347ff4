"""Clients that generators make of the OpenAPI document, in the programs that the documents show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.names import INBOX_MESSAGES
from support.documents import ROOT, files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis

    from support.http_gateway import HttpGateway

DOCUMENT = ROOT / "docs" / "openapi.json"
PROGRAMS = files(ROOT / "docs" / "clients.md")
#: What "make generators" installs.
GENERATORS = Path(sys.prefix) / "generators"
PYTHON, NODE = GENERATORS / "python" / "bin", GENERATORS / "node_modules"

pytestmark = pytest.mark.skipif(
    not (GENERATORS.parent / ".generators").exists() and "CI" not in os.environ, reason="needs: make generators"
)


def test_a_typescript_program_is_typed_and_works(gateway: HttpGateway, valkey: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(NODE)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "client.ts").write_text(PROGRAMS["client.ts"])
    _run(
        [NODE / ".bin" / "openapi-typescript", DOCUMENT, "--default-non-nullable=false", "-o", "knocktwice.ts"],
        tmp_path,
    )
    options = ["--strict", "--skipLibCheck", "--target", "es2022", "--module", "nodenext", "--types", "node"]
    _run([NODE / ".bin" / "tsc", *options, "client.ts"], tmp_path)
    node = shutil.which("node")
    assert node
    told = _told(_run([node, "client.js"], tmp_path, _environment(gateway)))
    _assert_accepted(told, valkey)
    assert told["filter"]["and"][1] == {"not": {"everyone": True}}
    assert told["refused"] == ["phone"]


def test_a_python_program_works(gateway: HttpGateway, valkey: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "client.py").write_text(PROGRAMS["client.py"])
    said = _run([PYTHON / "openapi-python-client", "generate", "--path", DOCUMENT, "--output-path", "made"], tmp_path)
    # Of what it cannot make it says "WARNING parsing …".
    assert "parsing" not in said
    environment = {**_environment(gateway), "PYTHONPATH": str(tmp_path / "made")}
    told = _told(_run([PYTHON / "python", "client.py"], tmp_path, environment))
    _assert_accepted(told, valkey)
    assert told["filter"]["field"] == "tags.interests"


def _environment(gateway: HttpGateway) -> dict[str, str]:
    return {"GATEWAY": gateway.url, "KEY": gateway.key()}


def _run(command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _told(output: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    return told


def _assert_accepted(told: Mapping[str, Any], valkey: redis.Redis) -> None:
    (id_,) = told["ids"]
    assert any(id_ in str(entry) for entry in valkey.hvals(INBOX_MESSAGES))
