"""The totals in Redis: counts of all processes, since the hash was made, and provider answers minute by minute.

A flush whose answer gets lost is repeated, so a broken connection may count a few seconds twice. A process that is
killed loses the seconds since its last flush.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, cast

from knocktwice_worker.counters.counters import Count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis import Redis

    from knocktwice_worker.counters.counters import Counters, Key

#: A hash: JSON list of what was counted and its labels → total.
_TOTALS = "knocktwice:counters"
#: One hash for each minute of Unix time: the same for provider answers alone.
_MINUTE = "knocktwice:answers:{}"
_MINUTES_KEPT_S = 1_800
#: The totals of an installation that stands still for so long begin anew, as those of a restarted process do.
_TOTALS_KEPT_S = 30 * 86_400


def flush(redis: Redis, counters: Counters) -> None:
    """Add what a process has counted to the totals.

    Raises:
        RedisError: Redis did not answer; the counts are kept for the next time.
    """
    counts = counters.take()
    if not counts:
        return
    pipe = redis.pipeline(transaction=False)
    minute = _MINUTE.format(int(time.time()) // 60)
    for key, count in counts.items():
        name = json.dumps(key)
        pipe.hincrbyfloat(_TOTALS, name, count)
        if key[0] == Count.PROVIDER_ANSWERS:
            pipe.hincrbyfloat(minute, name, count)
    pipe.expire(_TOTALS, _TOTALS_KEPT_S)
    pipe.expire(minute, _MINUTES_KEPT_S)
    try:
        pipe.execute()
    except BaseException:
        counters.put_back(counts)
        raise


def read(redis: Redis) -> dict[Key, float]:
    """Return the totals of the installation."""
    return _read(cast("dict[bytes, bytes]", redis.hgetall(_TOTALS)))


def answers(redis: Redis, minutes: int) -> dict[Key, float]:
    """Return the providers' answers of the last minutes, as (provider, outcome, code) → count."""
    now = int(time.time()) // 60
    pipe = redis.pipeline(transaction=False)
    for minute in range(now - minutes, now + 1):
        pipe.hgetall(_MINUTE.format(minute))
    found: dict[Key, float] = {}
    for hash_ in pipe.execute():
        for key, count in _read(hash_).items():
            found[key[1:]] = found.get(key[1:], 0) + count
    return found


def _read(hash_: Mapping[bytes, bytes]) -> dict[Key, float]:
    return {tuple(json.loads(name)): float(count) for name, count in hash_.items()}
