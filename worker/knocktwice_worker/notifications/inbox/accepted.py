"""The inbox: what producers were promised, kept in Redis until its rows are in Postgres.

Celery on Redis can lose a message whatever its settings (it is popped before it is noted as unacknowledged), so the
producer leaves a copy here. Processing removes it; :meth:`Inbox.sweep` publishes what stays. Ids make repeats harmless.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_FAILURES, INBOX_MESSAGES, Task, key_name
from knocktwice_worker.notifications.inbox import dead_letters

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis import Redis
    from sqlalchemy import Engine

log = structlog.get_logger(__name__)

#: After failing this often for a reason of its own (not an outage) a message is parked.
_MOST_FAILURES = 5
#: Messages published again per sweep.
_SWEEP_LIMIT = 100

# Takes the oldest overdue messages and counts their grace anew, by the clock of Redis, so that of many sweepers one wins.
_TAKE = """
local now = redis.call('TIME')[1] + 0
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, ARGV[2])
local out = {}
for _, id in ipairs(ids) do
  local message = redis.call('HGET', KEYS[2], id)
  if message then
    redis.call('ZADD', KEYS[1], now, id)
    out[#out + 1] = id
    out[#out + 1] = message
  else
    redis.call('ZREM', KEYS[1], id)
  end
end
return out
"""


@dataclass(frozen=True, kw_only=True)
class Inbox:
    """The accepted messages of one installation.

    Attributes:
        redis: where they wait.
        engine: where a message is parked that cannot be processed.
        grace_s: seconds that a message may wait for its worker before :meth:`sweep` publishes it again.
    """

    redis: Redis
    engine: Engine
    grace_s: float

    def remove(self, *message_ids: str) -> None:
        """Forget messages whose rows are committed."""
        pipe = self.redis.pipeline()
        pipe.hdel(INBOX_MESSAGES, *message_ids)
        pipe.zrem(INBOX_ACCEPTED, *message_ids)
        pipe.hdel(INBOX_FAILURES, *message_ids)
        pipe.execute()

    def ids_of(self, keys: Sequence[str]) -> list[str]:
        """Return the notification ids that producers used these idempotency keys for, as far as Redis remembers.

        A notification whose message still waits in its queue is known here and not yet in Postgres.
        """
        found = self.redis.mget([key_name(key) for key in keys]) if keys else []
        return [value.decode() for value in found if isinstance(value, bytes)]

    def park(self, message_id: str, task: str, reason: str, message: object) -> None:
        """Move a message that cannot be processed to the dead-letter table."""
        payload = json.dumps(message, default=str)
        with self.engine.begin() as conn:
            dead_letters.park(conn, message_id=message_id, task=task, reason=reason, payload=payload)
        self.remove(message_id)

    def failed(self, message_id: str, task: str, reason: str, message: object) -> None:
        """Note that processing failed for a reason of the message's own; park it when that keeps happening."""
        failures = self.redis.hincrby(INBOX_FAILURES, message_id, 1)
        if int(failures) >= _MOST_FAILURES:
            self.park(message_id, task, f"failed {failures} times: {reason}", message)

    def sweep(self, publish: Callable[[Task, object, str], None]) -> int:
        """Publish accepted messages again that nobody has processed within the grace.

        Args:
            publish: called with task, message and message id.

        Returns:
            How many were published.
        """
        taken = self.redis.eval(_TAKE, 2, INBOX_ACCEPTED, INBOX_MESSAGES, self.grace_s, _SWEEP_LIMIT)
        pairs = list(zip(taken[::2], taken[1::2], strict=True))
        for id_, raw in pairs:
            try:
                entry = json.loads(raw)
                task, message = Task(entry["task"]), entry["message"]
            except (ValueError, KeyError, TypeError) as error:
                # Written by hand or by a newer producer; it must not hold up the others.
                reason = f"inbox entry cannot be read: {type(error).__name__}"
                self.park(id_.decode(), "", reason, raw.decode(errors="replace"))
                continue
            publish(task, message, id_.decode())
        if pairs:
            log.warning("messages swept from the inbox", messages=len(pairs))
        return len(pairs)
