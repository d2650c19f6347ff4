"""The members: processes that announce themselves in Redis every few seconds; those that stop are forgotten.

Times are those of Redis, so a member with a wrong clock is neither forgotten early nor kept for ever.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis import Redis

#: A hash: member's name → the time of its last announcement (seconds, Redis) and, after a blank, the member as JSON.
_KEY = "knocktwice:members"
#: Seconds between two announcements, without one after which a member counts as gone, and after which it is forgotten.
EVERY_S = 5.0
GONE_S, FORGOTTEN_S = 30, 3_600

_ANNOUNCE = """
redis.call('HSET', KEYS[1], ARGV[1], redis.call('TIME')[1] .. ' ' .. ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""

# Also forgets members that went long ago.
_LIST = """
local now, out = redis.call('TIME')[1] + 0, {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local at, rest = string.match(all[i + 1], '^(%d+) (.*)$')
  local age = now - (at or 0)
  if age > tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], all[i])
  else
    out[#out + 1] = age
    out[#out + 1] = rest
  end
end
return out
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A running process.

    Attributes:
        name: host and process.
        role: ``worker`` or ``beat``.
        version: of knocktwice.
        queues: the queues that it takes messages from.
        settings: setting → fingerprint of its value; no value can be read from it.
        ahead_s: how far its clock is ahead of the database's, in seconds; ``None``: it does not know.
        credentials: channel → why its credentials do not work; empty: they do.
        age_s: seconds since its last announcement.
    """

    name: str
    role: str
    version: str
    queues: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    ahead_s: float | None = None
    credentials: Mapping[str, str] = field(default_factory=dict)
    age_s: int = 0

    @property
    def gone(self) -> bool:
        """Whether it has been silent for too long: it was killed, hangs, or lost its broker."""
        return self.age_s > GONE_S


def announce(redis: Redis, member: Member) -> None:
    """Say that a member lives, and what it works with."""
    redis.eval(_ANNOUNCE, 1, _KEY, member.name, json.dumps(asdict(member)), FORGOTTEN_S)


def leave(redis: Redis, name: str) -> None:
    """Take a member off that ends in order."""
    redis.hdel(_KEY, name)


def list_all(redis: Redis) -> list[Member]:
    """Return the members of the last hour, by name; those that have gone are marked so."""
    flat = cast("list[bytes | int]", redis.eval(_LIST, 1, _KEY, FORGOTTEN_S))
    found = [_read(cast("bytes", said), int(age)) for age, said in zip(flat[::2], flat[1::2], strict=True)]
    return sorted(found, key=lambda m: (m.role, m.name))


def _read(said: bytes, age_s: int) -> Member:
    """Read what a member said. During an upgrade one of another version may say more than this version knows."""
    told, known = json.loads(said), {f.name for f in fields(Member)}
    return Member(**{**{name: value for name, value in told.items() if name in known}, "age_s": age_s})
