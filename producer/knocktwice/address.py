"""The broker's address: read from the argument or the environment, checked, and shown without its password."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from knocktwice import local_stack
from knocktwice_shared import sentinels
from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from knocktwice_shared.sentinels import Sentinels

_VARIABLE = "KNOCKTWICE_BROKER_URL"
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "amqp": 5672, "amqps": 5671, "pyamqp": 5672}
_SCHEMES = "redis://, rediss://, redis+socket:///path, sentinel://, amqp:// or amqps://"


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's address.

    Args:
        url: as kombu takes it; holds the password and is never shown.
        place: the same for people: ``host:port``, or the socket's path.
        scheme: the URL's.
        sentinels: the Sentinels that know where the broker is.
    """

    url: str = field(repr=False)
    place: str
    scheme: str
    sentinels: Sentinels | None = None

    @property
    def speaks_redis(self) -> bool:
        """Whether this is Redis, Valkey or alike, where the inbox lives."""
        return not self.scheme.endswith(("amqp", "amqps"))

    def transport_options(self, timeout: float) -> dict[str, Any]:
        """Return kombu's options: bounded waits, and on RabbitMQ a confirmation for each message."""
        if not self.speaks_redis:
            return {"confirm_publish": True, "read_timeout": timeout, "write_timeout": timeout}
        options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        if self.sentinels is not None:
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            # Left to itself a Sentinel's client asks again and again, far beyond the timeout.
            sentinel = options | self.sentinels.login | {"retry": Retry(NoBackoff(), 0)}
            options |= {"master_name": self.sentinels.master, "sentinel_kwargs": sentinel}
        return options


def find(url: str | None) -> Address:
    """Return the broker's address: ``url``, ``KNOCKTWICE_BROKER_URL_FILE``, ``KNOCKTWICE_BROKER_URL`` or a local stack.

    Raises:
        KnocktwiceError: there is none, or it cannot be one. The message never quotes it.
    """
    given = url or _from_file() or os.environ.get(_VARIABLE) or local_stack.broker_url(_VARIABLE)
    if not given:
        raise KnocktwiceError(
            f"no broker is named; pass Client(broker_url) or set {_VARIABLE}, like redis://host:6379/0, "
            "or, in development, run 'knocktwice up' in this folder or one above it"
        )
    return _parse(given.strip())


def _from_file() -> str | None:
    path = os.environ.get(f"{_VARIABLE}_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise KnocktwiceError(f"{_VARIABLE}_FILE: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise KnocktwiceError(f"{_VARIABLE}_FILE: {path} does not hold text") from None


def _parse(url: str) -> Address:
    scheme, separator, _ = url.partition("://")
    if not separator or (scheme not in _PORTS and scheme != "redis+socket"):
        raise KnocktwiceError(f"{_VARIABLE} must start with {_SCHEMES}")
    try:
        places = [_place(part) for part in url.split(";")]
        parts = urlsplit(url)
    except ValueError:
        # "from None": the original error quotes a piece of the URL, possibly of the password.
        raise _not_a_url() from None
    if scheme.startswith("redis") and not _names_redis(parts):
        raise _not_a_url()
    if scheme != "sentinel":
        return Address(url, ", ".join(places), scheme)
    try:
        found = sentinels.parse(url)
    except ValueError:
        raise _not_a_url() from None
    return Address(found.url, ", ".join(places), scheme, found)


def _not_a_url() -> KnocktwiceError:
    """Return the complaint about a URL that cannot be one, without a word of it."""
    return KnocktwiceError(
        f"{_VARIABLE} is not a broker's URL; in a password, write / as %2F, @ as %40, # as %23, : as %3A and ; as %3B"
    )


def _names_redis(parts: SplitResult) -> bool:
    """Whether there is a socket's path, or nothing but a database's number, as kombu insists."""
    if parts.scheme == "redis+socket":
        return bool(parts.path)
    return not parts.path.strip("/") or parts.path.strip("/").isdecimal()


def _place(url: str) -> str:
    if "://" not in url:
        raise ValueError("what follows a semicolon is no URL of its own, so the semicolon is part of a password")
    parts = urlsplit(url)
    if parts.scheme == "redis+socket":
        return parts.path
    return f"{parts.hostname or 'localhost'}:{parts.port or _PORTS.get(parts.scheme, 0)}"
