"""User tokens: what an app or a page shows to the gateway, to speak for the one person who is logged in there.

A token is a JSON Web Token signed with HMAC-SHA-256 (RFC 7519, RFC 7515), so a backend in any language can make one
with the library that it has. The gateway keeps no list of them. The claims are ``aud`` (:data:`AUDIENCE`), ``sub`` (the
person), ``iat``, ``exp`` and ``scope`` (words of :class:`UserScope`, separated by blanks); all five must be there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import checks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

#: Whom a token is for. A token that the application signs with the same secret for something else lacks it.
AUDIENCE = "knocktwice"
#: How long a token works unless something else is said.
LIFETIME = timedelta(days=1)
#: The longest time that a token may work. It cannot be called back, except by another secret.
LIFETIME_LIMIT = timedelta(days=30)
#: How far the clocks of the backend and the gateway may differ.
SKEW = timedelta(minutes=1)
#: Longest token that is looked at, in characters.
LENGTH_LIMIT = 2_000
#: Longest id of a person, as in every message.
USER_LIMIT = 200

_ALGORITHM = "HS256"


class UserScope(StrEnum):
    """The rights that a token gives its holder, for the token's person only."""

    #: Register and unregister devices, and report whether notifications are on and which were seen.
    DEVICES = "devices"
    #: Set the tags that the operator allows.
    TAGS = "tags"
    #: Prove that a phone number is the person's, and bind it.
    PHONE = "phone"


class RefusedUserToken(ValueError):
    """This token gives no right. The text says why and quotes nothing."""


@dataclass(frozen=True, slots=True)
class UserToken:
    """A valid token.

    Attributes:
        user: the person.
        issued_at: when it was made, by the clock of whoever made it.
    """

    user: str
    scopes: frozenset[UserScope]
    issued_at: datetime
    expires_at: datetime


def sign(
    user: str,
    secret: str,
    *,
    scopes: Collection[UserScope] = tuple(UserScope),
    lifetime: timedelta = LIFETIME,
    now: datetime | None = None,
) -> str:
    """Return a token for one person.

    Args:
        user: the application's id of the person.
        secret: signs it.
        scopes: what it allows.
        lifetime: how long it works: 1 second to 30 days.
        now: the time of making; left out: now.

    Raises:
        InvalidMessage: the id, the scopes or the lifetime cannot be right.
    """
    checks.text(user, "user", USER_LIMIT)
    if not secret:
        raise InvalidMessage("secret", "is empty")
    if not scopes:
        raise InvalidMessage("scopes", f"must be at least one of {', '.join(UserScope)}")
    if not timedelta(seconds=1) <= lifetime <= LIFETIME_LIMIT:
        raise InvalidMessage("lifetime", f"must be 1 second to {LIFETIME_LIMIT.days} days")
    made = int((now or datetime.now(UTC)).timestamp())
    claims = {
        "aud": AUDIENCE,
        "sub": user,
        "iat": made,
        "exp": made + int(lifetime.total_seconds()),
        "scope": " ".join(sorted(set(scopes))),
    }
    body = f"{_encoded({'alg': _ALGORITHM, 'typ': 'JWT'})}.{_encoded(claims)}"
    return f"{body}.{_base64(_mac(body, secret))}"


def read(token: str, secrets: Sequence[str], *, now: datetime | None = None) -> UserToken:
    """Return what a token stands for.

    Args:
        secrets: any of them makes a token valid.

    Raises:
        RefusedUserToken: it is no token, was signed by somebody else, is not valid yet or any more, or lacks a claim.
    """
    if len(token) > LENGTH_LIMIT or token.count(".") != 2:
        raise RefusedUserToken("is no user token")
    body, _, mac = token.rpartition(".")
    head, _, payload = body.partition(".")
    # The algorithm is ours to choose: a token that names another one, "none" above all, is refused.
    header = _decoded(head)
    if header.get("alg") != _ALGORITHM or "crit" in header:
        raise RefusedUserToken(f"is not signed with {_ALGORITHM}")
    given = _bytes(mac)
    # All secrets are tried, so that the time taken does not tell which one fits.
    fits = [hmac.compare_digest(_mac(body, secret), given) for secret in secrets]
    if not any(fits):
        raise RefusedUserToken("was not signed by this system")
    return _claimed(_decoded(payload), now or datetime.now(UTC))


def _claimed(claims: dict[str, Any], now: datetime) -> UserToken:
    audience = claims.get("aud")
    if AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
        raise RefusedUserToken(f"is not for {AUDIENCE}: its aud says otherwise")
    try:
        user = checks.text(claims.get("sub"), "sub", USER_LIMIT)
    except InvalidMessage:
        raise RefusedUserToken("names no person in its sub") from None
    issued, expires = _moment(claims, "iat"), _moment(claims, "exp")
    if "nbf" in claims and _moment(claims, "nbf") > now + SKEW:
        raise RefusedUserToken("is not valid yet")
    if issued > now + SKEW:
        raise RefusedUserToken("was made in the future; compare the clocks")
    if expires <= now - SKEW:
        raise RefusedUserToken("has expired")
    if expires - issued > LIFETIME_LIMIT:
        raise RefusedUserToken(f"works for more than {LIFETIME_LIMIT.days} days")
    scope = claims.get("scope")
    words = set(scope.split()) if isinstance(scope, str) else set()
    if not words or not words <= set(UserScope):
        raise RefusedUserToken(f"must have a scope of {', '.join(UserScope)}, separated by blanks")
    return UserToken(user, frozenset(UserScope(word) for word in words), issued, expires)


def _moment(claims: dict[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RefusedUserToken(f"has no time in its {name}")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise RefusedUserToken(f"has no time in its {name}") from None


def _mac(body: str, secret: str) -> bytes:
    return hmac.digest(secret.encode(), body.encode(), hashlib.sha256)


def _encoded(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(part: str) -> dict[str, Any]:
    try:
        value = json.loads(_bytes(part))
    except (ValueError, RecursionError):
        raise RefusedUserToken("is no user token") from None
    if not isinstance(value, dict):
        raise RefusedUserToken("is no user token")
    return value


def _bytes(part: str) -> bytes:
    try:
        return base64.b64decode(part.encode("ascii") + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise RefusedUserToken("is no user token") from None
