"""Said before, counts before: carry out what was accepted about somebody before a decision about them is taken.

Receipts, cancellations and changes of a person have a queue of their own. Behind a backlog, an import or a stopped worker they
would come after a decision that they should have changed: somebody is texted whose click was accepted a minute ago. So whoever
decides asks the inbox which accepted messages are about the same notification, person or device, and carries them out at once,
whatever waits before them. The queue brings them again later, which changes nothing.

What cannot be carried out now (another worker holds the rows, or processing fails) stays pending: the decision waits as a row
and asks again, until ``patience`` is over.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

import structlog
from redis.exceptions import RedisError

from knocktwice_shared.names import INBOX_MESSAGES, INBOX_SUBJECTS, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from redis import Redis

log = structlog.get_logger(__name__)

#: Rounds of looking and carrying out; what is still there after them came while we worked, or cannot be carried out.
_ROUNDS = 2

# Finds the messages about some subjects: a flat list of subject, message id and inbox entry. A subject whose message is gone from
# the inbox is left over from a message that was parked by hand, and is removed.
_PENDING = """
if redis.call('ZCARD', KEYS[2]) == 0 then return {} end
local out = {}
for _, subject in ipairs(ARGV) do
  local members = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. subject .. '\\n', '(' .. subject .. '\\v')
  for _, member in ipairs(members) do
    local id = string.sub(member, #subject + 2)
    local entry = redis.call('HGET', KEYS[1], id)
    if entry then
      out[#out + 1] = subject
      out[#out + 1] = id
      out[#out + 1] = entry
    else
      redis.call('ZREM', KEYS[2], member)
    end
  end
end
return out
"""


class Process(Protocol):
    """Carries out messages of one task and removes them from the inbox, as their Celery task would."""

    def __call__(self, task: Task, messages: Sequence[tuple[str, object]]) -> None:
        """Carry out ``(message id, message)`` pairs. What cannot be done is left in the inbox; nothing is raised for it."""
        ...


class CatchUp:
    """Looks into the inbox before a decision.

    Args:
        redis: where the inbox is.
        process: carries messages out.
    """

    def __init__(self, redis: Redis, process: Process) -> None:
        self._redis = redis
        self._process = process
        self._script: Callable[..., list[bytes]] = redis.register_script(_PENDING)

    def __call__(self, subjects: Iterable[str]) -> set[str]:
        """Carry out all that was accepted about these subjects.

        Returns:
            The subjects about which something is still pending. A broker that does not answer leaves all of them pending: nobody
            knows what it holds.
        """
        wanted = list(dict.fromkeys(subjects))
        if not wanted:
            return set()
        try:
            for _ in range(_ROUNDS):
                found = self._find(wanted)
                if not found:
                    return set()
                self._carry_out(found)
            return {subject for subject, _, _ in self._find(wanted)}
        except RedisError as error:
            log.warning("the inbox was not asked", error=type(error).__name__)
            return set(wanted)

    def _find(self, subjects: Sequence[str]) -> list[tuple[str, str, bytes]]:
        flat = self._script(keys=[INBOX_MESSAGES, INBOX_SUBJECTS], args=subjects)
        return [
            (subject.decode(), id_.decode(), entry)
            for subject, id_, entry in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    def _carry_out(self, found: Sequence[tuple[str, str, bytes]]) -> None:
        entries = {id_: entry for _, id_, entry in found}
        for task, messages in _by_task(entries).items():
            log.info("carried out before a decision", task=str(task), messages=len(messages))
            self._process(task, messages)


def _by_task(entries: Mapping[str, bytes]) -> dict[Task, list[tuple[str, object]]]:
    messages: dict[Task, list[tuple[str, object]]] = defaultdict(list)
    for id_, raw in entries.items():
        try:
            entry = json.loads(raw)
            messages[Task(entry["task"])].append((id_, entry["message"]))
        except (ValueError, KeyError, TypeError):
            # The sweep parks what cannot be read.
            log.warning("an inbox entry cannot be read", message_id=id_)
    return messages
