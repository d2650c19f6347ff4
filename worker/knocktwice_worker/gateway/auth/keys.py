"""Keys for the gateway: who may do what over HTTP.

A key is ``kt_ID_SECRET``. The secret has 190 random bits, so a fast hash is enough: there is nothing to guess by
trying. What is stored is an HMAC of the whole, made with the installation's secret; a stolen table opens nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, text

from knocktwice_shared.errors import InvalidMessage, KnocktwiceError
from knocktwice_shared.messages import checks
from knocktwice_shared.test_side import is_test, side_of_tests

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime, timedelta

_LETTERS = string.ascii_letters + string.digits
_ID_LENGTH, _SECRET_LENGTH = 12, 32
_KEY = re.compile(rf"kt_([A-Za-z0-9]{{{_ID_LENGTH}}})_[A-Za-z0-9]{{{_SECRET_LENGTH}}}")
#: Longest name, in characters.
NAME_LIMIT = 100
#: Most keys that work at one time; every gateway keeps them in memory.
KEYS_LIMIT = 10_000


class Scope(StrEnum):
    """The permissions that a key can have."""

    NOTIFY = "notify"
    AUDIENCE = "audience"
    TEMPLATES = "templates"
    BLASTS = "blasts"
    READ = "read"
    ADMIN = "admin"


#: The meaning of each scope, for people.
MEANINGS = {
    Scope.NOTIFY: "send and cancel notifications",
    Scope.AUDIENCE: "register devices, set numbers, tags and consent",
    Scope.TEMPLATES: "change templates and segments",
    Scope.BLASTS: "start, pause, resume and abort blasts; release and drop what a brake holds",
    Scope.READ: "read notifications, templates, segments, blasts and numbers",
    Scope.ADMIN: "everything",
}


#: What a test key may have.
TEST_SCOPES = frozenset({Scope.NOTIFY, Scope.BLASTS, Scope.READ})
#: Why it may have no more.
CHANGES_NOTHING = "a test changes no people, devices, numbers, opt-outs, templates and settings, which are real"


class UnknownKey(KnocktwiceError):
    """There is no such key: look at ``knocktwice key list``."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it is stored.

    Attributes:
        id: the part of it that may be shown.
        name: whose it is, for people.
        digest: HMAC of the whole key.
        project: the only project that it sees and acts in; ``None``: it sees all. A test key's is the test side of one.
    """

    id: str
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    project: str | None = None

    @property
    def test(self) -> bool:
        """Whether no provider is called for what it sends."""
        return is_test(self.project)

    def allows(self, scope: Scope) -> bool:
        """Whether it may be used for this."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


_INSERT = text("""
INSERT INTO api_keys (
  id,
  name,
  digest,
  scopes,
  project,
  expires_at
) VALUES (
  :id,
  :name,
  :digest,
  :scopes,
  :project,
  knocktwice_now() + CAST(:lifetime AS interval)
)
""")


def create(
    conn: Connection,
    name: str,
    scopes: Collection[Scope],
    *,
    secret: str,
    lifetime: timedelta | None = None,
    project: str | None = None,
    test: bool = False,
) -> str:
    """Make a key and return it. It cannot be shown again.

    Args:
        name: whose it is.
        secret: the installation's.
        lifetime: how long it works; ``None``: until it is revoked.
        project: the only project that it sees and acts in; ``None``: it sees all.
        test: it sees and makes tests only, of the project or of what belongs to none.

    Raises:
        InvalidMessage: the name or the project's cannot be one, there is no scope, or a project or test cannot have it.
    """
    if not name.strip() or len(name) > NAME_LIMIT or not name.isprintable():
        raise InvalidMessage("name", f"must be 1 to {NAME_LIMIT} printable characters")
    if not scopes:
        raise InvalidMessage("scopes", f"must be at least one of {', '.join(Scope)}")
    if project is not None:
        checks.project(project)
        if Scope.TEMPLATES in scopes:
            raise InvalidMessage(
                "scopes", f"{Scope.TEMPLATES} is not for a project: all projects share what it changes"
            )
    if test:
        if forbidden := sorted(set(scopes) - TEST_SCOPES):
            raise InvalidMessage("scopes", f"{', '.join(forbidden)} is not for a test key: {CHANGES_NOTHING}")
        project = side_of_tests(project)
    id_, hidden = (_random(length) for length in (_ID_LENGTH, _SECRET_LENGTH))
    key = f"kt_{id_}_{hidden}"
    own = {"id": id_, "name": name, "digest": digest(key, secret), "project": project}
    row = own | {"scopes": sorted(scopes), "lifetime": lifetime}
    conn.execute(_INSERT, row)
    return key


_REVOKE = text("UPDATE api_keys SET revoked_at = knocktwice_now() WHERE id = :id AND revoked_at IS NULL")
_EXISTS = text("SELECT FROM api_keys WHERE id = :id")


def revoke(conn: Connection, id_: str) -> bool:
    """End a key for good, and return whether it still worked.

    Raises:
        UnknownKey: there is none.
    """
    if conn.execute(_REVOKE, {"id": id_}).rowcount:
        return True
    if conn.execute(_EXISTS, {"id": id_}).first() is None:
        raise UnknownKey(f"no key {id_!r}; 'knocktwice key list' shows those there are")
    return False


_COLUMNS = """
  id,
  name,
  digest,
  scopes,
  created_at,
  expires_at,
  revoked_at,
  last_used_at,
  project
"""
_ALL = text(f"SELECT {_COLUMNS} FROM api_keys ORDER BY created_at, id")


def list_all(conn: Connection) -> list[Key]:
    """Return all keys ever made, oldest first."""
    return [_key(row) for row in conn.execute(_ALL)]


_WORKING = text(f"""
SELECT {_COLUMNS}
FROM api_keys
WHERE revoked_at IS NULL AND coalesce(expires_at > knocktwice_now(), true)
ORDER BY id
LIMIT :most
""")


def working(conn: Connection) -> dict[str, Key]:
    """Return the keys that may be used now, by id."""
    rows = conn.execute(_WORKING, {"most": KEYS_LIMIT})
    return {row.id: _key(row) for row in rows}


# Rows are locked in one order everywhere, so that two gateways wait for each other instead of deadlocking.
_USED = text("""
UPDATE api_keys k SET
  last_used_at = knocktwice_now()
FROM (
  SELECT id
  FROM api_keys
  WHERE id = ANY(:ids)
  ORDER BY id
  FOR UPDATE
) used
WHERE k.id = used.id
""")


def note_used(conn: Connection, ids: Sequence[str]) -> None:
    """Note that keys were used just now."""
    conn.execute(_USED, {"ids": list(ids)})


def id_of(key: str) -> str | None:
    """Return the id in a key; ``None`` for what is no key at all."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def digest(key: str, secret: str) -> bytes:
    """Return what is stored of a key."""
    return hmac.digest(hashlib.sha256(b"knocktwice api key\0" + secret.encode()).digest(), key.encode(), "sha256")


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        digest=bytes(row.digest),
        # A newer version may know scopes that this one does not.
        scopes=frozenset(Scope(scope) for scope in row.scopes if scope in set(Scope)),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        project=row.project,
    )
