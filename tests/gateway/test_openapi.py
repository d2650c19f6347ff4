"""The gateway keeps what its OpenAPI document says: schemathesis tries it out, with right requests and with wrong ones."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from http_gateway import HttpGateway

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
