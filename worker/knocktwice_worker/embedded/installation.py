"""The addresses of an installation's servers, and its secret: the operator's own, or else the embedded ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_worker.embedded import home as embedded

if TYPE_CHECKING:
    from redis import Redis

    from knocktwice_worker.config import Settings


def database_url(settings: Settings) -> str:
    """Return the SQLAlchemy URL of the operator's own PostgreSQL, or of the embedded one."""
    url = settings.database_url or embedded.addresses(settings.home).database_url
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            return "postgresql+psycopg2://" + url.removeprefix(scheme)
    return url


def broker_url(settings: Settings) -> str:
    """Return the kombu URL of the operator's own Redis or Valkey, or of the embedded one."""
    return settings.broker_url or embedded.addresses(settings.home).broker_url


def secret(settings: Settings) -> str:
    """Return the key for hashing numbers and signing; without a setting it is made once and kept in the home folder."""
    if settings.secret is not None:
        return settings.secret.get_secret_value()
    return embedded.secret(settings.home)


def connect_redis(url: str) -> Redis:
    """Connect to the broker as a plain Redis client, with bounded waits.

    Args:
        url: the broker's URL as kombu takes it.
    """
    import redis
    from redis.backoff import ExponentialBackoff
    from redis.retry import Retry

    plain = url
    if url.startswith("redis+socket://"):
        plain = "unix://" + url.removeprefix("redis+socket://").replace("virtual_host=", "db=")
    # One repeat: everything we ask of Redis is idempotent, and a longer outage is the caller's to handle.
    return redis.Redis.from_url(
        plain,
        socket_timeout=5,
        socket_connect_timeout=5,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=1), 1),
    )
