"""Keeps Flower closed and discreet, whoever starts it: no open address without a login, and no personal data.

Producers' messages contain phone numbers and texts. What Flower keeps of a task passes through here first: ids and
counts stay, anything else becomes ``(hidden)``, in the pages, the API and the search alike. (Flower's own
``format_task`` would leave the API and the search as they are.) Every ``FLOWER_*`` variable, option and configuration
file of an operator works as usual.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_shared.sentinels import Sentinels

HIDDEN = "(hidden)"
#: The state of a task whose worker was killed.
LOST = "LOST"
#: Milliseconds between two looks for workers that have gone.
_LOOK_EVERY_MS = 5_000
#: What our producer and workers say of a task: an id, a count with the first id, or the kind of an error.
_SHOWN = re.compile(
    r"""\('?(\d+\ \w+:\ )? [0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12} (\ \d+\ \w+|\ again|,\ …)? '?,\)
    | TaskFailed\("\w+;\ see\ the\ worker's\ log"\) | \(\) | \{\} | None""",
    re.VERBOSE,
)
_TOLD = ("args", "kwargs", "result", "exception", "traceback")


def visible(value: object) -> str | None:
    """Return what may be shown of a task's arguments or result: our own summary of ids and counts, or a placeholder."""
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


def install(sentinels: Sentinels | None = None) -> None:
    """Change Flower in this process. Flower is imported here, because most installations of a worker have none.

    Args:
        sentinels: who knows where the broker is; Flower by itself asks only the first of them.
    """
    from flower import command
    from flower.events import EventsState
    from flower.inspector import Inspector
    from flower.utils.broker import RedisSentinel

    if getattr(command, "_guarded", False):
        return
    command._guarded = True
    EventsState.event = _hiding_events(EventsState.event)
    EventsState.__init__ = _watching_workers(EventsState.__init__)
    Inspector._on_update = _hiding_answers(Inspector._on_update)
    if sentinels is not None:
        RedisSentinel._get_redis_client = asking_all(sentinels)
    # Flower calls it when it has read the environment, its configuration file and the command line.
    command.extract_settings = _closed(command.extract_settings)


def mark_lost(state: Any) -> None:
    """Show tasks whose worker has ended without a word as lost, and the worker as idle.

    Celery sends no event for them, so Flower would call them active for ever. Nothing is lost but the attempt: another
    worker takes the work up, as a task of its own.
    """
    gone = {name: worker for name, worker in state.workers.items() if not worker.alive}
    for worker in gone.values():
        worker.active = 0
    for task in state.tasks.values():
        if task.state in ("RECEIVED", "STARTED") and task.worker is not None and task.worker.hostname in gone:
            task.state = LOST
            state.search_engine.upsert(task)


def _watching_workers(begin: Callable[..., None]) -> Callable[..., None]:
    @wraps(begin)
    def begin_watching(self: Any, *args: Any, **kwargs: Any) -> None:
        from tornado.ioloop import PeriodicCallback

        begin(self, *args, **kwargs)
        PeriodicCallback(lambda: mark_lost(self), _LOOK_EVERY_MS).start()

    return begin_watching


def _hiding_events(remember: Callable[..., None]) -> Callable[..., None]:
    @wraps(remember)
    def remember_hidden(self: Any, event: dict[str, Any]) -> None:
        remember(self, _hide(event))

    return remember_hidden


def _hiding_answers(update: Callable[..., None]) -> Callable[..., None]:
    @wraps(update)
    def update_hidden(self: Any, worker: str, method: str, response: Any) -> None:
        update(self, worker, method, _hide_reported(method, response))

    return update_hidden


def asking_all(sentinels: Sentinels) -> Callable[..., Any]:
    def client(self: Any, *_: Any) -> Any:
        from redis.asyncio.retry import Retry
        from redis.asyncio.sentinel import Sentinel
        from redis.backoff import NoBackoff

        patience = {
            "socket_timeout": self.socket_timeout,
            "socket_connect_timeout": self.socket_connect_timeout,
            "retry": Retry(NoBackoff(), 0),
        }
        asked = Sentinel(  # type: ignore[no-untyped-call]
            sentinels.hosts, sentinel_kwargs={**patience, **sentinels.login}, **patience, **sentinels.server_login
        )
        primary = asked.master_for(sentinels.master, db=sentinels.db)
        close = primary.aclose

        async def close_all() -> None:
            # Flower closes the client after each look, and nobody else would close those of the Sentinels.
            await close()
            for one in asked.sentinels:
                await one.aclose()

        primary.aclose = close_all
        return primary

    return client


def _closed(extract: Callable[[], None]) -> Callable[[], None]:
    @wraps(extract)
    def extract_closed() -> None:
        _refuse_open_door()
        extract()

    return extract_closed


def _refuse_open_door() -> None:
    """Stop before Flower listens where others can reach it and nobody asks who they are."""
    from tornado.options import options

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
