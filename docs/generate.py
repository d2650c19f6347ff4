"""Writes the parts of the documents that repeat the code, so that they cannot drift from it.

``make docs`` writes them. With ``--check``, as the tests run it, nothing is written: it names what is out of date and
exits 1.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AliasChoices, BaseModel

import reference
from knocktwice_worker.cli import main as cli
from knocktwice_worker.config import FROM_FILES, Settings
from knocktwice_worker.config.values import Group
from knocktwice_worker.database.schema import metadata
from knocktwice_worker.lifecycle import ANSWERED_LATER, EDGES, DeliveryState, NotificationState
from knocktwice_worker.metrics.series import SERIES, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parent.parent
WORKER = ROOT / "worker" / "knocktwice_worker"

#: What makes a notification end so.
ENDS = {
    NotificationState.REACHED: "it was answered in time",
    NotificationState.PUSHED: "the push went out and no SMS was due or planned",
    NotificationState.TEXTED: "a message went out, and nobody answered it",
    NotificationState.SUPPRESSED: "an SMS was due, but a limit, the budget or an opt-out forbade it, or there was no number",
    NotificationState.FAILED: "nothing could be sent",
    NotificationState.UNKNOWN: "nobody can tell whether the SMS went out",
    NotificationState.CANCELLED: "the application stopped it",
    NotificationState.DUPLICATE: "its key was used before",
}

_SCHEDULED, _RESERVED, _SENDING = DeliveryState.SCHEDULED, DeliveryState.RESERVED, DeliveryState.SENDING
#: What leads from one state of a delivery to the next.
MOVES = {
    (_SCHEDULED, _SENDING): "a push's time has come, or it is tried again",
    (_SCHEDULED, _RESERVED): "the SMS is due and within its limits",
    (_SCHEDULED, DeliveryState.SKIPPED): "answered, over a limit, opted out",
    (_SCHEDULED, DeliveryState.FAILED): "it cannot be sent",
    (_SCHEDULED, DeliveryState.CANCELLED): "cancelled",
    (_RESERVED, _SENDING): "claimed by a sender",
    (_RESERVED, DeliveryState.SKIPPED): "answered, over a limit, opted out",
    (_RESERVED, DeliveryState.FAILED): "it cannot be sent",
    (_RESERVED, DeliveryState.CANCELLED): "cancelled",
    (_SENDING, DeliveryState.SENT): "the provider took it",
    (_SENDING, DeliveryState.FAILED): "the provider refused it",
    (_SENDING, DeliveryState.UNKNOWN): "no answer, and nobody can say",
    (_SENDING, _SCHEDULED): "a push asked to wait, or its sender died",
    (_SENDING, _RESERVED): "the SMS may safely be sent again",
    (_SENDING, DeliveryState.SKIPPED): "the rest of a push that nobody needs any more",
}


def variable(name: str, field: FieldInfo) -> str:
    """Return the environment variable of a setting."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"KNOCKTWICE_{name.upper()}"


def shown(value: object) -> str:
    """Return a default as the environment would spell it."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case BaseModel():
            return value.model_dump_json(exclude_defaults=True)
        case frozenset():
            return (
                "[" + ", ".join(sorted(f'"{item.value if isinstance(item, Enum) else item}"' for item in value)) + "]"
            )
        case _:
            return str(value)


def settings_groups() -> dict[str, dict[str, FieldInfo]]:
    """Return the settings by name, under the titles of their groups."""
    groups = [base for base in reversed(Settings.__bases__) if issubclass(base, Group)]
    return {(group.__doc__ or "").rstrip("."): dict(group.model_fields) for group in groups}


def settings_table() -> str:
    """Return a table of settings for each group."""
    parts: list[str] = []
    for title, fields in settings_groups().items():
        parts += ["", f"## {title}", "", "| variable | default | meaning |", "|---|---|---|"]
        for name, field in fields.items():
            default = shown(field.default)
            parts.append(f"| `{variable(name, field)}` | {f'`{default}`' if default else ''} | {field.description} |")
    return "\n".join([*parts, ""])


def files_list() -> str:
    """Return the settings whose values may stand in files."""
    return "\n".join(f"- `{name}`" for name in FROM_FILES)


def settings_lines() -> str:
    """Return the settings as lines of an environment file, each with its default and commented out."""
    lines: list[str] = []
    for title, fields in settings_groups().items():
        lines += [f"# --- {title[0].lower()}{title[1:]} ".ljust(118, "-"), ""]
        for name, field in fields.items():
            lines += [f"# {field.description}", f"#{variable(name, field)}={shown(field.default)}", ""]
    lines += ["# Instead of a value, the file that holds it:", *(f"#{name}_FILE=" for name in FROM_FILES)]
    return "\n".join(lines)


def command_table() -> str:
    """Return the table of the command line's commands."""
    rows = ["| command | what it does |", "|---|---|"]
    for name, command in cli.commands():
        rows.append(f"| `knocktwice {name}` | {(command.help or '').splitlines()[0]} |")
    return "\n".join(rows)


def notification_diagram() -> str:
    """Return the states of a notification as a Mermaid diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {NotificationState.ACTIVE}"]
    for state in NotificationState:
        if state is NotificationState.DUPLICATE:
            lines.append(f"    [*] --> {state}: {ENDS[state]}")
        elif state is not NotificationState.ACTIVE:
            lines.append(f"    {NotificationState.ACTIVE} --> {state}: {ENDS[state]}")
    lines += [f"    {state} --> {NotificationState.REACHED}: clicked after the end" for state in sorted(ANSWERED_LATER)]
    return "\n".join([*lines, "```"])


def delivery_diagram() -> str:
    """Return the states of a delivery, one step of a notification, as a Mermaid diagram."""
    order = list(DeliveryState)
    edges = sorted(EDGES, key=lambda edge: (order.index(edge[0]), order.index(edge[1])))
    lines = [
        "```mermaid",
        "stateDiagram-v2",
        f"    [*] --> {_SENDING}: push",
        f"    [*] --> {DeliveryState.SKIPPED}: push, notifications are off",
        f"    [*] --> {DeliveryState.FAILED}: push, no device",
        f"    [*] --> {_SCHEDULED}: SMS, or a push for later",
        *(f"    {old} --> {new}: {MOVES[old, new]}" for old, new in edges),
        "```",
    ]
    return "\n".join(lines)


def violations_table() -> str:
    """Return the table of what the oracle of the tests looks for."""
    # The tests' folder is not part of what is installed.
    sys.path.append(str(ROOT / "tests"))
    from oracle.violations import MEANINGS

    rows = ["| class | what it is |", "|---|---|", *(f"| {name} | {meaning} |" for name, meaning in MEANINGS.items())]
    return "\n".join(rows)


def rooms() -> dict[str, str]:
    """Return the folders of the worker, as paths inside it, with the first sentence of their charters."""
    files = (file for file in sorted(WORKER.rglob("__init__.py")) if file.parent not in (WORKER, WORKER / _VERSIONS))
    return {file.parent.relative_to(WORKER).as_posix(): _first_sentence(file) for file in files}


#: Alembic's files are no room.
_VERSIONS = "database/migrations/versions"


def _first_sentence(file: Path) -> str:
    charter = ast.get_docstring(ast.parse(file.read_text())) or ""
    paragraph = " ".join(charter.partition("\n\n")[0].split())
    # References to code read as code.
    return re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``", lambda m: f"`{m[1] or m[2]}`", paragraph)


def room_table() -> str:
    """Return the map of the rooms."""
    rows = ["| room | what it is for |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{room}/` | {charter} |" for room, charter in rooms().items())])


def floors() -> str:
    """Return the order in which rooms may import each other, from the import contract."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c.get("containers") == ["knocktwice_worker"])
    return "\n".join(["```", *(str(layer) for layer in layers), "```"])


def table_of_tables() -> str:
    """Return the database's tables with what they say they are."""
    rows = ["| table | what a row is |", "|---|---|"]
    return "\n".join([*rows, *(f"| `{name}` | {table.comment} |" for name, table in sorted(metadata.tables.items()))])


def series_table() -> str:
    """Return the table of the series for Prometheus."""
    endings = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_bucket"}
    rows = ["| series | labels | what it says |", "|---|---|---|"]
    for one in SERIES.values():
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append(f"| `{one.name}{endings[one.kind]}` | {labels} | {one.meaning} |")
    return "\n".join(rows)


#: File → name of the part between its two markers → what belongs there.
PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/settings.md": {"settings": settings_table, "files": files_list},
    "docs/commands.md": {"commands": command_table},
    "docs/events.md": {"events": reference.events_table},
    "docs/errors.md": {"errors": reference.errors_table, "problems": reference.problems_table},
    "docs/api.md": {"operations": reference.operations_table},
    "docs/architecture.md": {
        "rooms": room_table,
        "floors": floors,
        "notification": notification_diagram,
        "delivery": delivery_diagram,
        "tables": table_of_tables,
    },
    "deploy/env.example": {"settings": settings_lines},
    "docs/metrics.md": {"series": series_table},
    "docs/reliability.md": {"violations": violations_table},
}


#: File → all that is in it.
FILES: dict[str, Callable[[], str]] = {"docs/openapi.json": reference.openapi_json}


def renew(text: str, name: str, part: str) -> str:
    """Replace what stands between the lines that hold ``begin NAME`` and ``end NAME``."""
    pattern = re.compile(rf"(?<=\n)([^\n]*\bbegin {name}\b[^\n]*\n).*?([^\n]*\bend {name}\b)", re.DOTALL)
    renewed, count = pattern.subn(lambda m: f"{m[1]}{part}\n{m[2]}", text)
    if count != 1:
        sys.exit(f"markers 'begin {name}' and 'end {name}' are there {count} times instead of once")
    return renewed


def main() -> None:
    """Write the parts, or say which are out of date."""
    stale = []
    for file, parts in PARTS.items():
        path = ROOT / file
        text = path.read_text()
        for name, make in parts.items():
            renewed = renew(text, name, make())
            if renewed != text:
                stale.append(f"{file}: {name}")
            text = renewed
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
    for file, make in FILES.items():
        path = ROOT / file
        if not path.exists() or path.read_text() != make():
            stale.append(file)
        if "--check" not in sys.argv[1:]:
            path.write_text(make())
    if stale and "--check" in sys.argv[1:]:
        sys.exit("out of date, run `make docs`: " + ", ".join(stale))


if __name__ == "__main__":
    main()
