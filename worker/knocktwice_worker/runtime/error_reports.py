"""Reports of unexpected errors to Sentry, if its DSN is set: what kind, where in the code, in which task.

Nothing of a person leaves: messages of exceptions quote rows and requests, and frames hold numbers and texts. So a
report is made of what is known to be harmless, instead of striking out what is known to be harmful.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError

from knocktwice_shared.names import Task
from knocktwice_worker.config import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OF_EVENT = ("event_id", "timestamp", "level", "platform", "release", "environment")
_OF_EXCEPTION = ("type", "module", "mechanism")
_OF_MECHANISM = ("type", "handled")
_OF_FRAME = ("filename", "function", "module", "lineno", "in_app")
_TASKS = frozenset(task.value for task in Task)


def start(dsn: str | None, role: str) -> None:
    """Report unexpected errors of this process from now on; without a DSN nothing is done.

    Args:
        dsn: Sentry's address of the project, with its key.
        role: worker or gateway, as reports name it.

    Raises:
        ConfigurationError: Sentry's library is not installed, or the DSN is none.
    """
    if not dsn:
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.excepthook import ExcepthookIntegration
        from sentry_sdk.integrations.starlette import StarletteIntegration
        from sentry_sdk.integrations.threading import ThreadingIntegration
        from sentry_sdk.utils import BadDsn
    except ImportError:
        raise ConfigurationError(
            "KNOCKTWICE_SENTRY_DSN is set, and Sentry's library is missing: pip install 'knocktwice[sentry]'"
        ) from None
    # Errors of tasks are reported by tasks.py: what Celery gets to see of them names their type alone.
    own = [StarletteIntegration()] if role == "gateway" else []
    try:
        sentry_sdk.init(
            dsn,
            release=f"knocktwice@{version('knocktwice')}",
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[ExcepthookIntegration(), ThreadingIntegration(), *own],
            before_send=lambda event, _: harmless(event, role),
            include_local_variables=False,
            max_breadcrumbs=0,
            auto_session_tracking=False,
            send_client_reports=False,
        )
    except BadDsn:
        raise ConfigurationError("KNOCKTWICE_SENTRY_DSN is no DSN of Sentry's, like https://key@host/1") from None


def report(error: Exception, task: Task) -> None:
    """Report an error of a task. A server that is away is no error of ours: alarms and the log tell of it."""
    sentry = sys.modules.get("sentry_sdk")
    if sentry is None or isinstance(error, OperationalError | InterfaceError | RedisError):
        return
    with sentry.new_scope() as scope:
        scope.set_tag("task", task.value)
        sentry.capture_exception(error)


def harmless(event: Mapping[str, Any], role: str) -> Any:
    """Return what a report may say."""
    values = (event.get("exception") or {}).get("values") or ()
    task = (event.get("tags") or {}).get("task")
    tags = {"role": role} | ({"task": task} if task in _TASKS else {})
    return _kept(event, _OF_EVENT) | {"exception": {"values": [_exception(one) for one in values]}, "tags": tags}


def _exception(one: Mapping[str, Any]) -> dict[str, Any]:
    kept = _kept(one, _OF_EXCEPTION)
    if kept.get("mechanism"):
        kept["mechanism"] = _kept(kept["mechanism"], _OF_MECHANISM)
    frames = (one.get("stacktrace") or {}).get("frames") or ()
    return kept | {"stacktrace": {"frames": [_kept(frame, _OF_FRAME) for frame in frames]}}


def _kept(of: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: of[name] for name in names if name in of}
