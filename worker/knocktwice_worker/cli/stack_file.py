"""The ``export`` lines that a second terminal needs beside ``knocktwice up``; kept in its home folder.

``knocktwice up`` and ``knocktwice env`` print them, and a producer without a broker address finds the embedded broker
in the file. The file contains only values that ``up`` itself provides. Addresses and passwords of an operator's own
servers are not copied into it.
"""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from knocktwice_shared.names import STACK_FILE
from knocktwice_worker.embedded import servers as embedded
from knocktwice_worker.embedded.installation import secret

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from knocktwice_worker.config import Settings


def write(settings: Settings, engine: Engine, gateway_url: str) -> str:
    """Write the file of the embedded servers' home, and return its text.

    Args:
        settings: the stack's; its own servers are not named in the file.
        engine: the stack's database. If it is the embedded one, a key of the gateway is made there, or the one of the
            last run is kept.
        gateway_url: where this stack's gateway listens.
    """
    home = settings.home.resolve()
    servers = embedded.addresses(home)
    values = {"KNOCKTWICE_HOME": str(home)}
    if settings.broker_url is None:
        values["KNOCKTWICE_BROKER_URL"] = servers.broker_url
    if settings.database_url is None:
        # Without SQLAlchemy's driver in it, so that psql takes it as well.
        values["KNOCKTWICE_DATABASE_URL"] = servers.database_url.replace("+psycopg2", "", 1)
    values["GATEWAY"] = gateway_url
    if settings.database_url is None:
        values["KEY"] = _key(engine, secret(settings), _kept(home).get("KEY", ""))
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
    draft = home / f"{STACK_FILE}.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        file.write(text)
    draft.replace(home / STACK_FILE)
    return text


def read(home: Path) -> str | None:
    """Return the text of the file if the servers that it names run, else ``None``."""
    path = home / STACK_FILE
    return path.read_text() if path.exists() and embedded.running(home) else None


def without_our_own(settings: Settings) -> Settings:
    """Return the settings without the embedded servers' addresses, which name no operator's servers."""
    servers = embedded.addresses(settings.home)
    ours = {
        "broker_url": settings.broker_url == servers.broker_url,
        "database_url": settings.database_url == servers.database_url.replace("+psycopg2", "", 1),
    }
    return settings.model_copy(update={name: None for name, own in ours.items() if own})


def _kept(home: Path) -> dict[str, str]:
    try:
        words = shlex.split((home / STACK_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _key(engine: Engine, own_secret: str, kept: str) -> str:
    """Return a key for all but an administrator's rights: the kept one if it still works, else a new one."""
    # The sandbox and the demo, which need no gateway, import this module too.
    from knocktwice_worker.gateway.auth import keys

    scopes = frozenset(keys.Scope) - {keys.Scope.ADMIN}
    with engine.begin() as conn:
        known = keys.working(conn).get(keys.id_of(kept) or "")
        if known and known.digest == keys.digest(kept, own_secret) and known.scopes == scopes:
            return kept
        return keys.create(conn, "knocktwice up", scopes, secret=own_secret)
