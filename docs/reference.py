"""The reference pages' tables that repeat the code: events, errors,
problems and the operations of the HTTP interface.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Any

from knocktwice_shared import errors
from knocktwice_worker.config import Settings
from knocktwice_worker.gateway.application import describe_app
from knocktwice_worker.gateway.problems import KINDS
from knocktwice_worker.lifecycle import DeliveryState
from knocktwice_worker.services import Services
from knocktwice_worker.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where ``make up`` runs the gateway; the published document names it as its server.
LOCAL_GATEWAY = "http://127.0.0.1:8080"

#: Type of an event, or the part of it behind the channel, → when it is told.
EVENTS = {
    "notification.accepted": "its rows are written",
    endpoints.FINISHED: (
        "the one final report: state, reason and every step, with what its provider had reported until then "
        "(`provider_status`); what is reported later has its own event"
    ),
    "push.delivered": "a device reported for the first time that the push arrived",
    "push.clicked": "a device reported for the first time that the push was clicked",
    "notification.seen": "it was reported for the first time that the person has seen elsewhere what the notification says",
    "*.replied": "the person replied to the message for the first time; `inbound` is the id of the text",
    **{
        f"*.{state}": f"the push, or a message over the channel, ended as `{state}`"
        for state in (
            DeliveryState.SENT,
            DeliveryState.FAILED,
            DeliveryState.SKIPPED,
            DeliveryState.CANCELLED,
            DeliveryState.UNKNOWN,
        )
    },
    "*.delivered": "the provider reported that the message arrived",
    "*.read": "the provider reported that it was read",
    "*.undelivered": "the provider reported that it did not arrive; `error` is its code, a number or a word",
    endpoints.INBOUND: "a person wrote to one of your senders",
    endpoints.OPTED_OUT: "a number must not be texted any more",
    endpoints.OPTED_IN: "a number may be texted again",
    "brake.on": (
        "the [brake](brake.md) holds SMS: `brake` (its number), `kind`, `template`, `platform`, `app_version` (null: any), or with `pumping` `prefix`, `template`, `project`, `sign` and `mode`, then "
        "`pushes`, `share`, `usual`, `why`, `holds`"
    ),
    "brake.over": "the share is usual again",
    "brake.released": "an operator released it",
    "pause.on": "an operator [paused](switches.md) messages: `pause` (its number), `what`, `reason`",
    "pause.over": "an operator resumed them, or their time was over",
    "message.parked": (
        "an accepted message that no worker can process was put aside: `number` (for `knocktwice dead show`), `message`, "
        "`task`, `reason`, `notifications` (the ids that it asked for)"
    ),
    "budget.used": (
        "half of the day's SMS budget is used, 80 % or all of it: `day`, `budget` (a category, or `all`), `percent`, `used`, "
        "`limit`, `reserve` in SMS parts; each once a day"
    ),
    "decisions.not_awaited": "decisions did not wait any longer for an accepted message; once an hour at most",
}


def events_table() -> str:
    """Return the table of events, those of all channels that mean the same in one row."""
    rows: dict[str, list[str]] = {}
    for kind in endpoints.types():
        rows.setdefault(kind if kind in EVENTS else f"*.{kind.partition('.')[2]}", []).append(kind)
    lines = ["| type | when |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| {', '.join(f'`{kind}`' for kind in kinds)} | {EVENTS[row]} |" for row, kinds in rows.items())]
    )


def errors_table() -> str:
    """Return the table of the errors that an application can meet."""
    lines = ["| error | is also | what it says |", "|---|---|---|"]
    for name, kind in vars(errors).items():
        if not (inspect.isclass(kind) and issubclass(kind, errors.KnocktwiceError)):
            continue
        parents = ", ".join(f"`{parent.__name__}`" for parent in kind.__bases__)
        lines.append(f"| `{name}` | {parents} | {_first_paragraph(kind.__doc__ or '')} |")
    return "\n".join(lines)


def problems_table() -> str:
    """Return the table of the problems with which the gateway answers."""
    lines = ["| problem | status | what it says |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{kind}` | {status} | {title} |" for kind, (status, title) in KINDS.items())])


def operations_table() -> str:
    """Return the table of the gateway's operations, by what they are about."""
    lines: list[str] = []
    for tag, operations in _by_tag(openapi()).items():
        lines += [f"### {tag.capitalize()}", "", "| request | name | does |", "|---|---|---|"]
        for method, path, operation in operations:
            does = _first_paragraph(operation["description"])
            lines.append(f"| `{method.upper()} {path}` | `{operation['operationId']}` | {does} |")
        lines.append("")
    return "\n".join(lines)


def openapi() -> dict[str, Any]:
    """Return the OpenAPI document of a gateway with the default settings, run by ``make up``."""
    # Neither is connected to.
    settings = Settings(
        database_url="postgresql://127.0.0.1/knocktwice", broker_url="redis://127.0.0.1", public_url=LOCAL_GATEWAY
    )
    services = Services(settings)
    try:
        document: dict[str, Any] = describe_app(services).openapi()
        return document
    finally:
        services.close()


def openapi_json() -> str:
    """Return the OpenAPI document as it is published beside the pages."""
    return json.dumps(openapi(), indent=1, ensure_ascii=False) + "\n"


def _by_tag(document: dict[str, Any]) -> dict[str, list[tuple[str, str, dict[str, Any]]]]:
    tags: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for method, path, operation in _operations(document):
        tags.setdefault(operation["tags"][0], []).append((method, path, operation))
    return tags


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield method, path, operation


def _first_paragraph(text: str) -> str:
    said = " ".join(inspect.cleandoc(text).partition("\n\n")[0].split())
    # References to code read as code.
    return re.sub(r":\w+:`~?([^`]*)`|``([^`]*)``", lambda m: f"`{m[1] or m[2]}`", said).replace("|", "\\|")
