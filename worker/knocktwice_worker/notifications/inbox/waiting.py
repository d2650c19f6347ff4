"""A look at accepted messages that no worker has written yet, for whoever asks about a message made a moment ago."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from knocktwice_shared.names import INBOX_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis


def find(redis: Redis, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return those of these messages that wait in the inbox, as they were accepted, in the same order."""
    kept: list[bytes | str | None] = redis.hmget(INBOX_MESSAGES, list(ids))
    return [json.loads(one)["message"] for one in kept if one is not None]
