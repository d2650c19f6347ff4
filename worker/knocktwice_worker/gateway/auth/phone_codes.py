"""Codes that prove that a number is a person's: six digits by SMS, a few tries, ten minutes.

Redis keeps of a code one HMAC of the person, the number and the code together, so a copy of Redis gives away neither,
and a code for one number proves no other. How many codes are sent is bounded for each person, each number and each
client address, because whoever can have SMS sent to numbers of their choice can annoy others, or earn by it.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_worker.gateway.problems import Problem

if TYPE_CHECKING:
    from redis import Redis

#: How long a code works.
VALID = timedelta(minutes=10)
#: Wrong codes until one has to ask for another.
TRIES = 5
#: The digits of a code. With five tries for each code and five codes an hour a guess is right once in 40,000 hours.
DIGITS = 6
#: One client address may have codes sent for so many people at once, as behind a carrier's few addresses.
_PEOPLE_AT_AN_ADDRESS = 10
_HOUR_S = 3_600
#: Separates this use of the secret from every other.
_PURPOSE = b"knocktwice phone code "

# KEYS: counters of the person, the number and the address. ARGV: the most of each, then the seconds that a counter
# lives. Counts all or none, and returns the seconds to wait; 0: it was counted.
_COUNT = """
local wait = 0
for i, key in ipairs(KEYS) do
  if tonumber(redis.call('GET', key) or '0') >= tonumber(ARGV[i]) then
    wait = math.max(wait, redis.call('TTL', key), 1)
  end
end
if wait == 0 then
  for _, key in ipairs(KEYS) do
    if redis.call('INCR', key) == 1 then redis.call('EXPIRE', key, ARGV[#KEYS + 1]) end
  end
end
return wait
"""

# A counter that has ended meanwhile must not come back without an end.
_UNCOUNT = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DECR', KEYS[1]) end"

# KEYS[1]: the person's code. ARGV[1]: what it must be. ARGV[2]: the most tries.
# A try counts before it is judged, so many at once do not get more tries.
_TRY = """
local tries = redis.call('HINCRBY', KEYS[1], 'tries', 1)
local code = redis.call('HGET', KEYS[1], 'code')
if not code or tries > tonumber(ARGV[2]) then
  redis.call('DEL', KEYS[1])
  return 0
end
return code == ARGV[1] and 1 or 0
"""


@dataclass(frozen=True, slots=True)
class PhoneCodes:
    """Makes and judges codes.

    Attributes:
        redis: keeps them.
        secret: the installation's.
        per_hour: codes for one person, and to one number, in an hour.
    """

    redis: Redis
    secret: str
    per_hour: int

    def make(self, user: str, number: str, address: str) -> str:
        """Return a new code for a person and a number; one that was made before for this person works no more.

        Args:
            address: whose request it is.

        Raises:
            Problem: too many were asked for.
        """
        counters = [self._key("user", user), self._key("number", number), self._key("address", address)]
        most = [self.per_hour, self.per_hour, self.per_hour * _PEOPLE_AT_AN_ADDRESS]
        wait = int(self.redis.eval(_COUNT, len(counters), *counters, *most, _HOUR_S))
        if wait:
            detail = "too many codes were asked for; wait, or use the last one"
            raise Problem("too-many-requests", detail, headers={"Retry-After": str(math.ceil(wait))})
        code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"
        kept = self._key("code", user)
        pipe = self.redis.pipeline()
        pipe.delete(kept)
        pipe.hset(kept, mapping={"code": self._proof(user, number, code), "tries": 0})
        pipe.expire(kept, VALID)
        pipe.execute()
        return code

    def not_sent(self, user: str, number: str, address: str) -> None:
        """Forget a code whose SMS was not accepted: it counts for nobody."""
        pipe = self.redis.pipeline()
        for kind, value in (("user", user), ("number", number), ("address", address)):
            pipe.eval(_UNCOUNT, 1, self._key(kind, value))
        pipe.delete(self._key("code", user))
        pipe.execute()

    def fits(self, user: str, number: str, code: str) -> bool:
        """Return whether this is the person's code for the number; each wrong one is a try less."""
        kept, proof = self._key("code", user), self._proof(user, number, code)
        return bool(self.redis.eval(_TRY, 1, kept, proof, TRIES))

    def forget(self, user: str) -> None:
        """Let a code be used once only."""
        self.redis.delete(self._key("code", user))

    def _key(self, kind: str, value: str) -> str:
        return f"knocktwice:phone-code:{kind}:{self._mac(kind, value)[:32]}"

    def _proof(self, user: str, number: str, code: str) -> str:
        return self._mac("proof", f"{user}\0{number}\0{code}")

    def _mac(self, kind: str, value: str) -> str:
        key = hashlib.sha256(_PURPOSE + self.secret.encode()).digest()
        return hmac.digest(key, f"{kind}\0{value}".encode(), "sha256").hex()
