"""Tokens with which an app or a page speaks for one person at the gateway; made by the application's backend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.user_tokens import LIFETIME, UserScope, sign

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import timedelta

#: Where the secret is looked for, in this order.
VARIABLES = ("KNOCKTWICE_USER_TOKEN_SECRET", "KNOCKTWICE_SECRET")


def user_token(
    user: str,
    *,
    secret: str | None = None,
    lifetime: timedelta = LIFETIME,
    scopes: Collection[UserScope | str] = tuple(UserScope),
) -> str:
    """Return a token for the person who is logged in, to be given to their app or page.

    Whoever holds it may register devices, report whether notifications are on, set the tags that the operator allows
    and bind a number, all of this person and of nobody else. It needs no server and no other library.

    Args:
        user: your own id of the person.
        secret: the gateway's ``KNOCKTWICE_USER_TOKEN_SECRET``; left out, the environment's, or its
            ``KNOCKTWICE_SECRET``. Of several, separated by commas, the first signs.
        lifetime: how long it works: 1 second to 30 days. It cannot be called back, so let it be short.
        scopes: what it allows: ``devices``, ``tags``, ``phone``.

    Raises:
        InvalidMessage: the id, a scope or the lifetime cannot be right, or there is no secret.
    """
    unknown = [scope for scope in scopes if scope not in set(UserScope)]
    if unknown:
        raise InvalidMessage("scopes", f"must be of {', '.join(UserScope)}")
    return sign(user, secret or _secret(), scopes=[UserScope(scope) for scope in scopes], lifetime=lifetime)


def _secret() -> str:
    listed, whole = VARIABLES
    for part in os.environ.get(listed, "").split(","):
        if part.strip():
            return part.strip()
    if found := os.environ.get(whole):
        return found
    raise InvalidMessage("secret", f"is missing; give it, or set {listed} to what the gateway has")
