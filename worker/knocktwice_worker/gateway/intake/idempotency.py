"""``Idempotency-Key``: a request that is sent again is the same request, and gets the same answer.

What a key was first used for is claimed in Redis before anything is published: a digest of the body, and the batch's
id, from which all ids of the answer follow. So a gateway that dies half-way leaves nothing that a repeat could not
complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis import Redis

#: The time for which a key is remembered.
LIFETIME = timedelta(days=1)
#: Longest key, in characters.
KEY_LIMIT = 200
#: A UUIDv7's version and variant, and its random bits.
_RANDOM_BITS = (0xFFF << 64) | 0x3FFF_FFFF_FFFF_FFFF


@dataclass(frozen=True, slots=True)
class Claim:
    """A request's claim to a key.

    Attributes:
        name: the name of the key in Redis.
        body: the digest of the request's body.
        batch: the id of the batch, if this is the key's first use.
    """

    name: str
    body: str
    batch: UUID


@dataclass(frozen=True, slots=True)
class Held:
    """The request that a key was first used for.

    Attributes:
        body: the digest of the request's body.
        batch: the id of its batch.
        done: the broker has accepted the whole batch.
    """

    body: str
    batch: UUID
    done: bool


def claim(owner: str, key: str, body: Any, batch: UUID) -> Claim:
    """Return the claim of a request.

    Args:
        owner: whose key it is; two API keys do not share theirs.
        key: the header's value.
        body: the decoded body; white space and the order of names do not count.
    """
    name = hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return Claim(f"knocktwice:idempotency:{name}", hashlib.sha256(canonical.encode()).hexdigest(), batch)


def hold(redis: Redis, claims: Sequence[Claim]) -> list[Held]:
    """Return what the keys stand for, now or since before."""
    pipe = redis.pipeline(transaction=False)
    for one in claims:
        # Two commands, because SET with both NX and GET needs Redis 7.
        pipe.set(one.name, f"{one.body} {one.batch} 0", nx=True, ex=LIFETIME)
        pipe.get(one.name)
    found: list[bytes | None] = pipe.execute()[1::2]
    return [_held(value, one) for value, one in zip(found, claims, strict=True)]


def finish(redis: Redis, done: Iterable[tuple[Claim, UUID]]) -> None:
    """Note that the broker has all of these; a repeat is then answered without another message."""
    pipe = redis.pipeline(transaction=False)
    for one, batch in done:
        pipe.set(one.name, f"{one.body} {batch} 1", xx=True, keepttl=True)
    pipe.execute()


def notification_id(batch: UUID, place: int) -> UUID:
    """Return the id of a batch's ``place``-th notification: always the same one, and a UUIDv7 of the batch's time."""
    random = int.from_bytes(hashlib.blake2b(batch.bytes + place.to_bytes(4, "big"), digest_size=16).digest(), "big")
    return UUID(int=(batch.int & ~_RANDOM_BITS) | (random & _RANDOM_BITS))


def _held(value: bytes | None, own: Claim) -> Held:
    if value is None:  # It ran out in that very moment.
        return Held(own.body, own.batch, done=False)
    body, batch, done = value.decode().split(" ")
    return Held(body, UUID(batch), done == "1")
