"""UUIDv7: ids that sort by time of creation (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from uuid import UUID, uuid5

from knocktwice_shared.names import scoped

#: Blasts have their ids from their keys; this is the namespace.
BLASTS = UUID("5b0f6c9e-0d0a-5b1e-8f7c-6b6e6f636b32")

#: What a hexadecimal digit becomes when its first two bits are those of the variant.
_VARIANT = {f"{digit:x}": "89ab"[digit % 4] for digit in range(16)}


def uuid7() -> UUID:
    """Return a new id: 48 bits of Unix milliseconds, then 74 random bits."""
    random = int.from_bytes(os.urandom(10))
    value = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62
    return UUID(int=value | random & 0x3FFF_FFFF_FFFF_FFFF)


def uuid7_texts(count: int) -> list[str]:
    """Return so many new ids as text: one call for the random bits of all, and no objects in between."""
    now = f"{time.time_ns() // 1_000_000:012x}"
    random = os.urandom(10 * count).hex()
    head = f"{now[:8]}-{now[8:]}-7"
    parts = (random[i : i + 20] for i in range(0, 20 * count, 20))
    return [f"{head}{r[:3]}-{_VARIANT[r[3]]}{r[4:7]}-{r[7:19]}" for r in parts]


def created_at(id_: UUID) -> datetime:
    """Return the aware UTC time that a UUIDv7 carries, to the millisecond."""
    return datetime.fromtimestamp((id_.int >> 80) / 1000, tz=UTC)


def blast_id(key: str, project: str | None = None) -> UUID:
    """Return the id of the blast with this key in a project, the same for ever."""
    return uuid5(BLASTS, scoped(key, project))
