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
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from redis.exceptions import RedisError

from knocktwice_shared.names import INBOX_MESSAGES, INBOX_SUBJECTS, Task
from knocktwice_shared.subjects import notification
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Engine

    from knocktwice_worker.notifications.inbox.accepted import Inbox, Work

log = structlog.get_logger(__name__)

#: When to look again at a decision that waits for a message.
PENDING = timedelta(seconds=1)
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


@dataclass(frozen=True, kw_only=True)
class CatchUp:
    """Looks into the inbox before a decision.

    Attributes:
        inbox: where accepted messages are.
        work: what messages of each task make happen; messages of other tasks are left to their queue.
        patience: how long a decision waits for a message that cannot be carried out.
    """

    inbox: Inbox
    work: Mapping[Task, Work]
    patience: timedelta

    def about(self, subjects: Iterable[str]) -> set[str]:
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
                self._carry_out({id_: entry for _, id_, entry in found})
            return {subject for subject, _, _ in self._find(wanted)}
        except RedisError as error:
            log.warning("the inbox was not asked", error=type(error).__name__)
            return set(wanted)

    def notifications(self, engine: Engine, ids: Sequence[str]) -> set[str]:
        """Carry out all that was accepted about these notifications, the people they are for, and the blasts they belong to.

        Whom they are for is asked only while something is pending about anybody, so a quiet inbox costs one request.

        Returns:
            The ids of those about which something is still pending.
        """
        pending = {subject[2:] for subject in self.about(map(notification, ids))}
        if not self._people_pending():
            return pending
        with engine.begin() as conn:
            related = store.related(conn, ids)
        still = self.about(subject for own in related.values() for subject in own)
        return pending | {id_ for id_, own in related.items() if still.intersection(own)}

    def _people_pending(self) -> bool:
        try:
            redis = self.inbox.redis
            return any(redis.zrangebylex(INBOX_SUBJECTS, f"[{kind}:", f"({kind};", 0, 1) for kind in ("b", "k", "u"))
        except RedisError:
            return True

    def _find(self, subjects: Sequence[str]) -> list[tuple[str, str, bytes]]:
        keys = [INBOX_MESSAGES, INBOX_SUBJECTS]
        flat: Any = self.inbox.redis.eval(_PENDING, len(keys), *keys, *subjects)
        return [
            (subject.decode(), id_.decode(), entry)
            for subject, id_, entry in zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        ]

    def _carry_out(self, entries: Mapping[str, bytes]) -> None:
        for task, messages in _by_task(entries).items():
            work = self.work.get(task)
            if work is None:
                continue
            log.info("carried out before a decision", task=task.value, messages=len(messages))
            try:
                work([message for _, message in messages])
            except Exception:  # noqa: BLE001 - whichever message it was raises it again, alone
                for id_, message in messages:
                    self._alone(task, id_, message, work)
            else:
                self.inbox.done(task, messages)

    def _alone(self, task: Task, id_: str, message: object, work: Work) -> None:
        try:
            self.inbox.carry_out(task, id_, message, work)
        except Exception as error:  # noqa: BLE001 - the message stays pending, and the decision waits
            log.warning("not carried out yet", task=task.value, message_id=id_, error=type(error).__name__)


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
