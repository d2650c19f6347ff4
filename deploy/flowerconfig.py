"""Flower's configuration: no password, no network; and blind to personal data.

Flower reads it with ``celery -A knocktwice_worker flower --conf=deploy/flowerconfig.py``; every ``FLOWER_*`` variable and
command-line option keeps working. Producers' messages carry phone numbers and texts. What Flower keeps of a task
therefore passes through here first: ids and counts stay, anything else becomes ``(hidden)``, in the pages, the API and the
search alike. (Flower's own ``format_task`` would leave the API and the search as they are.)
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from typing import Any

from flower.events import EventsState
from flower.inspector import Inspector
from tornado.options import options

HIDDEN = "(hidden)"
#: What our producer and workers say of a task: an id, a count with the first id, or the kind of an error.
_SHOWN = re.compile(
    r"""\('?(\d+\ \w+:\ )? [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12} (\ \d+\ \w+|\ again|,\ …)? '?,\)
    | TaskFailed\("\w+;\ see\ the\ worker's\ log"\) | \(\) | \{\} | None""",
    re.VERBOSE,
)
_TOLD = ("args", "kwargs", "result", "exception", "traceback")

# Looking is enough for most; FLOWER_READ_ONLY=false lets whoever logs in stop workers and send tasks.
read_only = os.environ.get("FLOWER_READ_ONLY", "true")


def visible(value: object) -> str | None:
    """Return what may be shown of a task's arguments or result: our own summaries of ids and counts, else a placeholder."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) and _SHOWN.fullmatch(value) else HIDDEN


def _hide(task: dict[str, Any]) -> dict[str, Any]:
    return task | {name: visible(task[name]) for name in _TOLD if name in task}


def _hide_reported(method: str, response: Any) -> Any:
    """Hide the arguments in a worker's answer about its tasks."""
    if method == "scheduled":
        return [task | {"request": _hide(task["request"])} for task in response]
    return [_hide(task) for task in response] if method in ("active", "reserved") else response


_remember, _update = EventsState.event, Inspector._on_update


def _remember_hidden(self: Any, event: dict[str, Any]) -> None:
    _remember(self, _hide(event))


def _update_hidden(self: Any, worker: str, method: str, response: Any) -> None:
    _update(self, worker, method, _hide_reported(method, response))


EventsState.event = _remember_hidden
Inspector._on_update = _update_hidden


def _refuse_open_door() -> None:
    """Stop before Flower listens where others can reach it and nobody asks who they are."""
    if options.basic_auth or options.auth or options.unix_socket or _is_loopback(options.address):
        return
    sys.exit(
        f"Flower would listen on {options.address or 'every interface'} without a password; "
        "set FLOWER_BASIC_AUTH=user:password, or FLOWER_ADDRESS=127.0.0.1"
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# Runs after the last of Flower's three sources (environment, this file, command line) has been read.
options.add_parse_callback(_refuse_open_door)
