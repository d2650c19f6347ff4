"""The addresses of an installation's servers, and its secret: the operator's own, or else the embedded ones."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from knocktwice_shared import rabbitmq, sentinels
from knocktwice_worker.config import ConfigurationError
from knocktwice_worker.embedded import home as embedded

if TYPE_CHECKING:
    from redis import Redis

    from knocktwice_shared.sentinels import Sentinels
    from knocktwice_worker.config import Settings


_CERTIFICATES = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True, slots=True)
class CeleryBroker:
    """Celery's settings of the broker.

    Attributes:
        url: ``broker_url``.
        options: a part of ``broker_transport_options``.
        tls: ``broker_use_ssl``.
        sentinels: who knows where the broker is, if it is behind Sentinel.
        rabbitmq: whether the broker is RabbitMQ.
    """

    url: str
    options: dict[str, Any]
    tls: dict[str, Any] | None = None
    sentinels: Sentinels | None = None
    rabbitmq: bool = False


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the operator's own PostgreSQL, or of the embedded one."""
    return sqlalchemy_url(settings.database_url or embedded.addresses(settings.home).database_url)


def sqlalchemy_url(url: str) -> str:
    """Return a PostgreSQL URL in SQLAlchemy's form."""
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+psycopg2://" + url.removeprefix(scheme)
    return url


def broker_url(settings: Settings) -> str:
    """Return the URL of the operator's own broker, where messages queue, or of the embedded Valkey."""
    return settings.broker_url or embedded.addresses(settings.home).broker_url


def state_url(settings: Settings) -> str:
    """Return the kombu URL of the Redis or Valkey that keeps what was accepted; without RabbitMQ it is the broker."""
    return settings.state_url or broker_url(settings)


def secret(settings: Settings) -> str:
    """Return the key for hashing numbers and signing; without a setting it is made once and kept in the home folder."""
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    return embedded.secret(settings.home)


def connect_redis(url: str, *, timeout_s: float = 5.0, hurried: bool = False) -> Redis:
    """Connect to the place of state as a plain Redis client, with bounded waits.

    Args:
        url: its URL as kombu takes it.
        timeout_s: seconds for connecting, and for each answer.
        hurried: a server that was silent for that long is not asked again.
    """
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    # One repeat: everything we ask of Redis is idempotent, and a longer outage is the caller's to handle.
    repeated = (redis.ConnectionError,) if hurried else (redis.ConnectionError, redis.TimeoutError)
    patience: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "health_check_interval": 30,
        "retry": Retry(ExponentialBackoff(cap=1), 1, repeated),
    }
    if url.startswith("sentinel://"):
        return _primary(sentinels.parse(url), patience)
    plain = url
    if url.startswith("redis+socket://"):
        plain = "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    return redis.Redis.from_url(plain, **patience)


def _primary(found: Sentinels, patience: dict[str, Any]) -> Redis:
    """Return a client of the primary that the Sentinels name; it asks them anew for each connection."""
    from redis.sentinel import Sentinel

    asking = _asking(found)
    sentinel = Sentinel(found.hosts, sentinel_kwargs=asking, **patience, **found.server_login)  # type: ignore[no-untyped-call]
    client: Redis = sentinel.master_for(found.master, db=found.db)  # type: ignore[no-untyped-call]
    return client


def _asking(found: Sentinels) -> dict[str, Any]:
    """Return how a Sentinel is asked: once. By itself redis-py asks one that is gone for seconds before the next."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return {"socket_timeout": 5, "socket_connect_timeout": 5, "retry": Retry(NoBackoff(), 0), **found.login}


def celery_broker(settings: Settings) -> CeleryBroker:
    """Return what Celery, and so Flower, is told of the broker: options of the URL that they take only elsewhere."""
    url = broker_url(settings)
    if rabbitmq.carries(url):
        at = rabbitmq.parse(url)
        # A write that RabbitMQ blocks, because its memory or disk is full, must not stop a worker's loop for ever.
        return CeleryBroker(at.url, {"confirm_publish": True, "write_timeout": 5}, at.tls, rabbitmq=True)
    if url.startswith("sentinel://"):
        found = sentinels.parse(url)
        options = {"master_name": found.master, "sentinel_kwargs": _asking(found)}
        return CeleryBroker(found.url, options, sentinels=found)
    if url.startswith("rediss://"):
        parts = urlsplit(url)
        others = [pair for pair in parts.query.split("&") if pair and not pair.startswith("ssl_")]
        return CeleryBroker(parts._replace(query="&".join(others)).geturl(), {}, _tls(url))
    return CeleryBroker(url, {})


def _tls(url: str) -> dict[str, Any]:
    """Return the TLS options of a URL. Without any, the server's certificate must be one that this machine trusts."""
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items() if name.startswith("ssl_")}
    needed = asked.pop("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if needed not in _CERTIFICATES:
        raise ConfigurationError(f"KNOCKTWICE_BROKER_URL: ssl_cert_reqs must be one of {', '.join(_CERTIFICATES)}")
    options: dict[str, Any] = {**asked, "ssl_cert_reqs": _CERTIFICATES[needed]}
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() not in ("false", "0", "no")
    elif needed == "none":
        # Python refuses to check a name without a certificate to check it by.
        options["ssl_check_hostname"] = False
    return options
