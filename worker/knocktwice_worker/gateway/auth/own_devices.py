"""The most devices that a user token may register: a stolen token must not give a person a million devices.

PostgreSQL knows the devices of a person that workers have written, Redis those that were accepted lately; together they
are counted. Redis keeps HMACs only, for a day.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

#: How long an accepted device is counted without a row. Workers write it within seconds, or within hours of a backlog.
_LATELY = timedelta(days=1)
#: Separates this use of the secret from every other.
_PURPOSE = b"knocktwice own devices "

_DEVICES = text("SELECT registration FROM devices WHERE user_id = :user ORDER BY last_seen_at DESC LIMIT :limit")


@dataclass(frozen=True, slots=True)
class OwnDevices:
    """Counts the devices of people whose apps register them.

    Attributes:
        services: the installation.
        secret: the installation's.
    """

    services: Services
    secret: str

    def admit(self, user: str, registration: str) -> None:
        """Count a device of a person; one that the person has already counts once.

        Raises:
            Problem: the person would have more than ``KNOCKTWICE_USER_DEVICES``.
        """
        most = self.services.settings.user_devices
        if not most:
            return
        known = self._written(user, most + 1)
        if registration in known:
            return
        key, own = self._key(user), self._mac("device", registration)
        # The device is added before all are counted: of two that come at once at least one sees the other.
        pipe = self.services.redis.pipeline()
        pipe.sadd(key, own)
        pipe.expire(key, _LATELY)
        pipe.smembers(key)
        added, _, members = pipe.execute()
        lately = {one.decode() if isinstance(one, bytes) else str(one) for one in members}
        if len(lately | {self._mac("device", one) for one in known}) <= most:
            return
        if added:
            self.services.redis.srem(key, own)
        detail = (
            f"this person has {most} devices already, the most that apps may register; unregister one that is not used"
        )
        raise Problem("forbidden", detail)

    def forget(self, user: str, registration: str) -> None:
        """Make room: a device is not the person's any more."""
        self.services.redis.srem(self._key(user), self._mac("device", registration))

    def _written(self, user: str, limit: int) -> set[str]:
        """Return the devices in the table; none while PostgreSQL is away, when Redis alone counts."""
        try:
            with self.services.engine.connect() as conn:
                return set(conn.execute(_DEVICES, {"user": user, "limit": limit}).scalars())
        except (OperationalError, PoolTimeout):
            return set()

    def _key(self, user: str) -> str:
        return f"knocktwice:own-devices:{self._mac('user', user)}"

    def _mac(self, kind: str, value: str) -> str:
        key = hashlib.sha256(_PURPOSE + self.secret.encode()).digest()
        return hmac.digest(key, f"{kind}\0{value}".encode(), "sha256").hex()[:32]
