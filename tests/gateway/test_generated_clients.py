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
from support.documents import ROOT, blocks, commands, files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis

    from support.http_gateway import HttpGateway

DOCUMENT = ROOT / "docs" / "openapi.json"
PAGE = ROOT / "docs" / "clients.md"
PROGRAMS = files(PAGE)
#: What "make generators" installs.
GENERATORS = Path(sys.prefix) / "generators"
PYTHON, NODE = GENERATORS / "python" / "bin", GENERATORS / "node_modules"
#: Where Debian keeps what the generated code uses. OpenAPI Generator brings Jackson for its own use.
GO_LIBRARIES = Path("/usr/share/gocode")
JAVA_LIBRARIES = [
    Path("/usr/share/java") / f"{name}.jar" for name in ("geronimo-annotation-1.3-spec", "httpmime", "httpcore")
]

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


def test_a_go_program_is_typed_and_works(gateway: HttpGateway, valkey: redis.Redis, tmp_path: Path) -> None:
    if not (GO_LIBRARIES / "src/gopkg.in/validator.v2").exists() and "CI" not in os.environ:
        pytest.skip("needs: apt install golang-go golang-gopkg-validator.v2-dev")
    source = tmp_path / "src"
    _generate("go", source / "knocktwice")
    # Its own tests call the address of the document.
    shutil.rmtree(source / "knocktwice" / "test")
    (source / "client").mkdir()
    (source / "client" / "client.go").write_text(PROGRAMS["client.go"])
    places = {"GO111MODULE": "off", "GOPATH": f"{tmp_path}:{GO_LIBRARIES}", "GOCACHE": str(GENERATORS / "go")}
    _run(["go", "build", "-o", tmp_path / "program", "client"], tmp_path, places)
    told = _told(_run([tmp_path / "program"], tmp_path, _environment(gateway)))
    _assert_accepted(told, valkey)
    assert told["filter"] == {"field": "tags.interests", "op": "contains", "value": "tea"}
    assert told["refused"] == ["phone"]


def test_a_java_program_is_typed_and_works(gateway: HttpGateway, valkey: redis.Redis, tmp_path: Path) -> None:
    if not (shutil.which("javac") and all(jar.exists() for jar in JAVA_LIBRARIES)) and "CI" not in os.environ:
        pytest.skip("needs: apt install default-jdk-headless libhttpmime-java libgeronimo-annotation-1.3-spec-java")
    _generate("java", tmp_path / "knocktwice")
    (tmp_path / "Client.java").write_text(PROGRAMS["Client.java"])
    (jackson,) = GENERATORS.glob("python/lib/*/site-packages/openapi_generator_cli/openapi-generator.jar")
    libraries = [jackson, *JAVA_LIBRARIES]
    sources = sorted((tmp_path / "knocktwice/src/main/java").rglob("*.java"))
    options = ["-nowarn", "-d", "classes", "-cp", ":".join(map(str, libraries))]
    _run(["javac", *options, "Client.java", *sources], tmp_path)
    classes = ":".join(map(str, ["classes", *libraries]))
    told = _told(_run(["java", "-cp", classes, "Client"], tmp_path, _environment(gateway)))
    _assert_accepted(told, valkey)
    assert told["filter"]["field"] == "tags.interests"
    assert told["refused"] == ["phone"]


def _generate(language: str, folder: Path) -> None:
    """Run the page's command for a language, which makes the package in a folder called knocktwice."""
    typed = [words for block in blocks(PAGE, "console") for words, _ in commands(block)]
    ((_, *options),) = [words for words in typed if words[:4] == ["openapi-generator-cli", "generate", "-g", language]]
    folder.parent.mkdir(exist_ok=True)
    (folder.parent / "docs").symlink_to(DOCUMENT.parent)
    _run([PYTHON / "openapi-generator-cli", *options], folder.parent)


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
