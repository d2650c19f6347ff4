"""Makes ``twilio_messages_openapi.json``, the part of Twilio's OpenAPI document that the contract test needs.

Twilio publishes the whole document inside an npm package. To take a newer one::

    npm pack @twilio-alpha/mcp
    python tests/channels/extract_twilio_openapi.py twilio-alpha-mcp-*.tgz
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path
from typing import Any

_DOCUMENT = "package/twilio-oai/spec/json/twilio_api_v2010.json"
_MESSAGES = "/2010-04-01/Accounts/{AccountSid}/Messages"
_OPERATIONS = ((f"{_MESSAGES}.json", "post"), (f"{_MESSAGES}.json", "get"), (f"{_MESSAGES}/{{Sid}}.json", "get"))
#: Prose, and what only Twilio's own tools read.
_LEFT_OUT = frozenset({"description", "summary", "tags", "example", "examples", "x-twilio", "headers", "security"})
_REFERENCE = "#/components/schemas/"

TARGET = Path(__file__).with_name("twilio_messages_openapi.json")


def extract(document: dict[str, Any], package: dict[str, Any]) -> dict[str, Any]:
    """Return the operations on messages and the schemas they need, with a note of where they come from."""
    paths: dict[str, dict[str, Any]] = {}
    for path, method in _OPERATIONS:
        paths.setdefault(path, {})[method] = _bare(document["paths"][path][method])
    schemas: dict[str, Any] = {}
    wanted = _references(paths)
    while wanted:
        name = wanted.pop()
        schemas[name] = _bare(document["components"]["schemas"][name])
        wanted |= _references(schemas[name]) - schemas.keys()
    return {
        "openapi": document["openapi"],
        "info": {key: document["info"][key] for key in ("title", "version", "license")},
        "x-source": {
            "package": package["name"],
            "version": package["version"],
            "license": package["license"],
            "file": _DOCUMENT.removeprefix("package/"),
        },
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def _bare(node: Any, *, names: bool = False) -> Any:
    """Leave the prose out. Below ``properties`` the keys are the fields' own names (``tags`` is one) and all stay."""
    if isinstance(node, list):
        return [_bare(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if names or key not in _LEFT_OUT}
    return {key: _bare(value, names=key == "properties" and not names) for key, value in kept.items()}


def _references(node: Any) -> set[str]:
    if isinstance(node, list):
        return {name for item in node for name in _references(item)}
    if not isinstance(node, dict):
        return set()
    found = {name for value in node.values() for name in _references(value)}
    return found | {node["$ref"].removeprefix(_REFERENCE)} if "$ref" in node else found


def main(archive: str) -> None:
    """Write the extract of the document inside an npm package."""
    with tarfile.open(archive) as files:

        def read(name: str) -> dict[str, Any]:
            member = files.extractfile(name)
            if member is None:
                raise FileNotFoundError(f"{archive} holds no {name}")
            content: dict[str, Any] = json.load(member)
            return content

        extracted = extract(read(_DOCUMENT), read("package/package.json"))
    TARGET.write_text(json.dumps(extracted, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
