"""The gateway keeps what its OpenAPI document says: schemathesis tries it out, with right requests and with wrong ones."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from knocktwice_worker.gateway.routes import PUBLIC, ROUTERS

if TYPE_CHECKING:
    from pathlib import Path

    from support.http_gateway import HttpGateway

#: A rule that JSON Schema cannot express ("user, or else registrations") is 422, not a mistake of the document; a template
#: or segment that is not there is 404; what is not signed (a receipt, a callback) is 403; a blast that is in no state to be paused is 409.
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 403, 404, 409, 422]
"""


def test_the_gateway_does_what_its_document_says(shared_gateway: HttpGateway, tmp_path: Path) -> None:
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    key = shared_gateway.key()
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration), "run"]
    command += [f"{shared_gateway.url}/openapi.json", "--header", f"Authorization: Bearer {key}", "--seed", "1"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "3", "--generation-deterministic"]
    command += ["--no-color", "--no-shrink", "--continue-on-failure"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


def _document(gateway: HttpGateway) -> dict[str, Any]:
    document: dict[str, Any] = gateway.client().get("/openapi.json").json()
    return document


def test_everything_that_is_served_is_in_the_document(shared_gateway: HttpGateway) -> None:
    described = {
        (path, method) for path, operations in _document(shared_gateway)["paths"].items() for method in operations
    }
    served = {
        (str(getattr(route, "path", "")), method.lower())
        for router in ROUTERS
        for route in router.routes
        for method in getattr(route, "methods", ())
    }
    assert described == served


def test_every_operation_is_tagged_told_and_behind_a_key_unless_it_is_public(shared_gateway: HttpGateway) -> None:
    paths = _document(shared_gateway)["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation["tags"], (method, path)
            assert operation["description"], (method, path)
            assert ("security" in operation) != path.startswith(PUBLIC), (method, path)
    assert {path for path in paths if path.startswith(PUBLIC)} == {
        "/healthz",
        "/readyz",
        "/r/{token}/{kind}",
        "/l/{token}",
        "/v1/receipts",
        "/callbacks/sms/{provider}",
        "/callbacks/sms/{provider}/inbound",
        "/callbacks/twilio",
        "/callbacks/twilio/inbound",
    }
    ids = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert len(ids) == len(set(ids))


def test_examples_are_what_their_schemas_say(shared_gateway: HttpGateway) -> None:
    document = _document(shared_gateway)
    found = 0

    def look(part: object) -> None:
        nonlocal found
        if isinstance(part, list):
            for item in part:
                look(item)
        if not isinstance(part, dict):
            return
        examples = part.get("examples", [])
        examples = [
            *(examples if isinstance(examples, list) else []),
            *([part["example"]] if "example" in part else []),
        ]
        for example in examples:
            schema = {**part.get("schema", part), "components": document["components"]}
            Draft202012Validator(schema).validate(example)
            found += 1
        for inner in part.values():
            look(inner)

    look(document)
    assert found > 20
