"""The URL of a broker behind Sentinel: ``sentinel://host:26379/0?master_name=mymaster``, more hosts after a ``;``.

kombu takes neither the primary's name nor the Sentinels' own login from a URL, so they are taken out of it here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

#: The port of a Sentinel that names none.
PORT = 26379
#: The name that Sentinel's own documentation gives a primary.
_USUAL_MASTER = "mymaster"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The addresses of the Sentinels, and the name of the primary.

    Attributes:
        url: without any query, as kombu takes it.
        hosts: host and port of each Sentinel.
        master: the name of the primary.
        login: user name and password of the Sentinels themselves, as redis-py takes them; often there are none.
        server_login: those of the primary.
        db: the number of the database.
    """

    url: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...]
    master: str
    login: dict[str, str] = field(repr=False)
    server_login: dict[str, str] = field(repr=False)
    db: int


def parse(url: str) -> Sentinels:
    """Return what a ``sentinel://`` URL says. A query may stand behind any of its hosts.

    Args:
        url: its hosts are separated by semicolons. The query knows ``master_name``, ``sentinel_username`` and
            ``sentinel_password``.

    Raises:
        ValueError: it is not such a URL.
    """
    parts = [urlsplit(part) for part in url.split(";")]
    if any(part.scheme != "sentinel" for part in parts):
        raise ValueError("each part of the URL must begin with sentinel://")
    asked: dict[str, str] = {}
    for part in parts:
        asked |= {name: values[0] for name, values in parse_qs(part.query).items()}
    # kombu reads login and database from the first part, wherever they were written.
    login = next((user for part in parts if (user := part.netloc.rpartition("@")[0])), "")
    path = next((part.path for part in parts if part.path.strip("/")), "/0")
    bare = ";".join(f"sentinel://{login}{'@' if login else ''}{part.netloc.rpartition('@')[2]}{path}" for part in parts)
    hosts = tuple((part.hostname or "localhost", part.port or PORT) for part in parts)
    own = {name: asked[f"sentinel_{name}"] for name in ("username", "password") if f"sentinel_{name}" in asked}
    return Sentinels(bare, hosts, asked.get("master_name", _USUAL_MASTER), own, _login(parts), int(path.strip("/")))


def _login(parts: list[Any]) -> dict[str, str]:
    """Return user name and password of the first part that has them."""
    for part in parts:
        given = {"username": part.username, "password": part.password}
        if any(given.values()):
            return {name: unquote(value) for name, value in given.items() if value}
    return {}
