"""The gateway keeps what its OpenAPI document says: schemathesis tries it out,
with right requests and with wrong ones.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft202012Validator

from knocktwice import user_token
from knocktwice_worker import services
from knocktwice_worker.gateway.application import describe_app
from knocktwice_worker.gateway.routes import PUBLIC, ROUTERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from knocktwice_worker.config import Settings
    from support.http_gateway import HttpGateway

#: A rule that JSON Schema cannot express ("user, or else registrations") is 422, not a mistake of the document; a
#: template or segment that is not there is 404; what is not signed (a receipt, a callback) is 403; a blast that is in
#: no state to be paused is 409.
CONFIGURATION = """
headers = {{ Authorization = "Bearer {key}" }}

[checks.positive_data_acceptance]
expected-statuses = ["2xx", 403, 404, 409, 422]

# A body beyond all limits is refused before its content is looked at.
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 415, 422, 428, 429, "5xx"]

# Their bodies are those of other operations, and filters in filters make thousands of cases.
[[operations]]
include-path = ["/v1/blasts/preflight", "/v1/audience/preview"]
[operations.phases.coverage]
enabled = false

[[operations]]
include-path-regex = "^/(v1/me|gonative)/"
headers = {{ Authorization = "Bearer {token}" }}
# Codes are sent so often and no more.
checks.positive_data_acceptance.expected-statuses = ["2xx", 403, 404, 409, 422, 429]
"""


def test_the_gateway_does_what_its_document_says(shared_gateway: HttpGateway, tmp_path: Path) -> None:
    configuration = tmp_path / "schemathesis.toml"
    token = user_token("u-17", secret="test")
    configuration.write_text(CONFIGURATION.format(key=shared_gateway.key(), token=token))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration), "run"]
    command += [f"{shared_gateway.url}/openapi.json", "--seed", "1"]
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
        "/knocktwice.js",
        "/knocktwice-worker.js",
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


def test_operations_have_names_that_are_fit_for_programs(shared_gateway: HttpGateway) -> None:
    paths = _document(shared_gateway)["paths"]
    ids = [operation["operationId"] for operations in paths.values() for operation in operations.values()]
    assert [id_ for id_ in ids if not re.fullmatch("[a-z][A-Za-z]+", id_)] == []
    assert {"notify", "cancelNotification", "listTemplates", "registerDevice", "pauseBlast"} <= set(ids)


@pytest.mark.parametrize(("public", "told"), [(None, "/"), ("https://push.example.com", "https://push.example.com")])
def test_clients_are_told_where_the_gateway_is(settings: Settings, public: str | None, told: str) -> None:
    built = services.Services(settings.model_copy(update={"public_url": public}))
    assert describe_app(built).openapi()["servers"] == [{"url": told}]
    built.close()


def test_no_field_says_null_where_it_was_left_out(shared_gateway: HttpGateway) -> None:
    document = _document(shared_gateway)
    assert [place for place, part in _parts(document) if "default" in part and part["default"] is None] == []


def test_descriptions_speak_to_callers(shared_gateway: HttpGateway) -> None:
    told = {place: part["description"] for place, part in _parts(_document(shared_gateway)) if "description" in part}
    assert len(told) > 100
    assert {place: words for place, words in told.items() if re.search("Attributes:|:[a-z]+:`|``", str(words))} == {}


def test_numbers_that_may_be_large_say_so_and_types_are_called_after_their_place(shared_gateway: HttpGateway) -> None:
    parts = dict(_parts(_document(shared_gateway)))
    whole = {place: part for place, part in parts.items() if part.get("type") == "integer"}
    assert len(whole) > 50
    assert {place for place, part in whole.items() if part.get("maximum", 2**31) >= 2**31} == {
        place for place, part in whole.items() if part.get("format") == "int64"
    }
    titled = [place for place, part in parts.items() if re.search("/properties/[^/]+$", place) and "title" in part]
    assert [place for place in titled if isinstance(parts[place]["title"], str)] == []


#: Objects that hold what an application, Apple or a browser decides; a push that is filled in; a filter's other name;
#: and what an operator's act was about, which differs from act to act.
FREE = ("params", "reference", "tags", "payload", "notification", "push", "segment", "subject")


def test_every_object_has_its_fields(shared_gateway: HttpGateway) -> None:
    schemas = _document(shared_gateway)["components"]["schemas"]
    untyped = {
        place
        for place, part in _parts(schemas)
        if part.get("type") == "object"
        and not part.get("properties")
        and part.get("additionalProperties", True) is True
    }
    assert {place for place in untyped if not re.search(rf"/({'|'.join(FREE)})(/anyOf)?$", place)} == set()


def test_an_unknown_change_and_a_wrong_filter_are_no_valid_requests(shared_gateway: HttpGateway) -> None:
    document = _document(shared_gateway)

    def fits(name: str, value: object) -> bool:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        return Draft202012Validator(schema).is_valid(value)

    assert fits("Changes", {"changes": [{"change": "opt_out", "phone": "+16505550100"}]})
    assert not fits("Changes", {"changes": [{"change": "marry", "user": "u-17"}]})
    assert fits("SegmentBody", {"filter": {"not": {"field": "locale", "op": "=", "value": "de"}}})
    assert not fits("SegmentBody", {"filter": {"nor": []}})
    content = {"push": {"title": "Hello", "body": "Tea?"}}
    assert fits("TemplateBody", {"default_locale": "en", "contents": {"en": content}, "fallback": "never"})
    assert not fits("TemplateBody", {"default_locale": "en", "contents": {"en": {"push": {"body": "Tea?"}}}})


def _parts(part: object, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object in a document with its place, of whatever depth; examples are left out."""
    if isinstance(part, dict):
        yield place, part
        for name, inner in part.items():
            if name not in ("example", "examples"):
                yield from _parts(inner, f"{place}/{name}")
    elif isinstance(part, list):
        for inner in part:
            yield from _parts(inner, place)
