"""The broker's address: read from the argument or the environment, checked, and shown without its password.

Two places may have a part in it. Messages are accepted in Redis, Valkey or alike, the *place of state*. They queue for
the workers there, too, or in RabbitMQ.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from knocktwice import local_stack
from knocktwice_shared import rabbitmq, sentinels
from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from knocktwice_shared.sentinels import Sentinels

_VARIABLE = "KNOCKTWICE_BROKER_URL"
_STATE = "KNOCKTWICE_STATE_URL"
_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "amqp": 5672, "amqps": 5671}
_SCHEMES = "redis://, rediss://, redis+socket:///path or sentinel://"


@dataclass(frozen=True, slots=True)
class Address:
    """A broker's address.

    Args:
        url: as kombu takes it; holds the password and is never shown.
        place: the same for people: ``host:port``, or the socket's path.
        scheme: the URL's.
        sentinels: the Sentinels that know where the broker is.
        tls: how TLS is spoken, as kombu takes it; ``False``: not, or as the scheme says.
        queues: the RabbitMQ where messages queue; ``None``: they queue here.
    """

    url: str = field(repr=False)
    place: str
    scheme: str
    sentinels: Sentinels | None = None
    tls: dict[str, Any] | bool = False
    queues: Address | None = None

    def transport_options(self, timeout: float) -> dict[str, Any]:
        """Return kombu's options of Redis: bounded waits, and how Sentinels are asked."""
        options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        if self.sentinels is not None:
            from redis.backoff import NoBackoff
            from redis.retry import Retry

            # Left to itself a Sentinel's client asks again and again, far beyond the timeout.
            sentinel = options | self.sentinels.login | {"retry": Retry(NoBackoff(), 0)}
            options |= {"master_name": self.sentinels.master, "sentinel_kwargs": sentinel}
        return options


def find(url: str | None, state_url: str | None = None) -> Address:
    """Return the address of the place of state, with that of RabbitMQ if messages queue there.

    Args:
        url: where messages queue; left out, ``KNOCKTWICE_BROKER_URL_FILE``, ``KNOCKTWICE_BROKER_URL`` or a local stack.
        state_url: where they are accepted, if ``url`` is that of RabbitMQ; left out, ``KNOCKTWICE_STATE_URL_FILE`` or
            ``KNOCKTWICE_STATE_URL``.

    Raises:
        KnocktwiceError: there is none, or it cannot be one. The message never quotes it.
    """
    given = url or _from_file(_VARIABLE) or os.environ.get(_VARIABLE) or local_stack.broker_url(_VARIABLE)
    if not given:
        raise KnocktwiceError(
            f"no broker is named; pass Client(broker_url) or set {_VARIABLE}, like redis://host:6379/0, "
            "or, in development, run 'knocktwice up' in this folder or one above it"
        )
    given = given.strip()
    if not rabbitmq.carries(given):
        if state_url is not None and state_url.strip() != given:
            raise KnocktwiceError(
                "state_url is needed only with RabbitMQ; Redis and Valkey are the place of state, too"
            )
        return _redis(given, _VARIABLE, f"{_SCHEMES}, amqp:// or amqps://")
    queues = _rabbitmq(given)
    state = state_url or _from_file(_STATE) or os.environ.get(_STATE)
    if not state:
        raise KnocktwiceError(
            f"{_VARIABLE} is RabbitMQ, which only carries messages to the workers; they are accepted in the Redis or Valkey "
            f"of the workers: pass Client(state_url=…) or set {_STATE}, like redis://host:6379/0"
        )
    return replace(_redis(state.strip(), _STATE, _SCHEMES), queues=queues)


def _from_file(variable: str) -> str | None:
    path = os.environ.get(f"{variable}_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise KnocktwiceError(f"{variable}_FILE: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError:
        raise KnocktwiceError(f"{variable}_FILE: {path} does not hold text") from None


def _rabbitmq(url: str) -> Address:
    try:
        found = rabbitmq.parse(url)
        place = ", ".join(_place(part) for part in found.url.split(";"))
    except ValueError:
        # "from None": the original error quotes a piece of the URL, possibly of the password.
        raise _not_a_url(_VARIABLE) from None
    return Address(found.url, place, url.partition("://")[0], tls=found.tls or False)


def _redis(url: str, variable: str, schemes: str) -> Address:
    scheme, separator, _ = url.partition("://")
    if not separator or rabbitmq.carries(url) or (scheme not in _PORTS and scheme != "redis+socket"):
        raise KnocktwiceError(f"{variable} must start with {schemes}")
    try:
        places = [_place(part) for part in url.split(";")]
        parts = urlsplit(url)
    except ValueError:
        # "from None": as above.
        raise _not_a_url(variable) from None
    if scheme.startswith("redis") and not _names_redis(parts):
        raise _not_a_url(variable)
    if scheme != "sentinel":
        tls = {"ssl_cert_reqs": "required"} if scheme == "rediss" else False
        return Address(url, ", ".join(places), scheme, tls=tls)
    try:
        found = sentinels.parse(url)
    except ValueError:
        raise _not_a_url(variable) from None
    return Address(found.url, ", ".join(places), scheme, found)


def _not_a_url(variable: str) -> KnocktwiceError:
    """Return the complaint about a URL that cannot be one, without a word of it."""
    return KnocktwiceError(
        f"{variable} is not a broker's URL; in a password, write / as %2F, @ as %40, # as %23, : as %3A and ; as %3B"
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
