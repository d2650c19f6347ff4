"""Catching up: accepted messages about a person are carried out before a decision about this person.

Receipts, cancellations and changes of a person have a queue of their own. Behind a backlog, an import or a stopped
worker, such a message could be processed after a decision that it should have changed: a person would get an SMS
although a click was accepted a minute ago. So before a decision the inbox is asked for the accepted messages about the
same notification, person or device, and these messages are carried out at once, ahead of their queue. The queue
delivers them again later, which changes nothing.

A message may have to stay pending, because another worker has locked its rows or because its processing fails. Then the
decision waits as a row and asks again, until ``patience`` is over.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, cast

import structlog

from knocktwice_shared.names import INBOX_BEGUN, INBOX_MESSAGES, INBOX_SUBJECTS, Task
from knocktwice_shared.subjects import device, notification, user
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Engine

    from knocktwice_worker.notifications.inbox.accepted import Inbox, Work

log = structlog.get_logger(__name__)

#: The wait before another look at a decision that waits for a message.
PENDING = timedelta(seconds=1)
#: Rounds of search and processing. Messages that remain after them have just come, or cannot be carried out.
_ROUNDS = 2
#: Before an entry that may only be carried out alone.
_LEFT = b"!"

# Finds the messages about some subjects. With 'begin' as the first argument, work on them is noted as begun. A message
# that was begun before and has not ended is not given out: either another worker is at it, or it ended its worker.
# Carried out with others, such a message would take an innocent one with it, again and again, until the innocent one is
# parked. If it was begun longer ago than a grace, its worker is dead, and its entry is given with a mark before it, for
# whoever tries it alone; its queue may be so long that it comes to it too late. Returns the kinds of subjects that have
# any pending message, and then a flat list of subject, message id and inbox entry. If the inbox no longer has a
# subject's message, the message was parked by its id alone; its subject is removed.
_PENDING = """
local now = redis.call('TIME')[1] + 0
local function fit(id, entry)
  if ARGV[1] ~= 'begin' or redis.call('HSETNX', KEYS[3], id, '1 ' .. now) == 1 then return entry end
  local at = string.match(redis.call('HGET', KEYS[3], id), ' (%d+)$')
  return at and now - at >= tonumber(ARGV[2]) and '!' .. entry or ''
end
local out = {''}
for _, kind in ipairs({'b', 'd', 'k', 'n', 'p', 'u'}) do
  if #redis.call('ZRANGEBYLEX', KEYS[2], '[' .. kind .. ':', '(' .. kind .. ';', 'LIMIT', 0, 1) > 0 then
    out[1] = out[1] .. kind
  end
end
if out[1] == '' then return out end
for a = 3, #ARGV do
  local subject = ARGV[a]
  local members = {}
  if string.find(out[1], string.sub(subject, 1, 1), 1, true) then
    members = redis.call('ZRANGEBYLEX', KEYS[2], '[' .. subject .. '\\n', '(' .. subject .. '\\v')
  end
  for _, member in ipairs(members) do
    local id = string.sub(member, #subject + 2)
    local entry = redis.call('HGET', KEYS[1], id)
    if entry then
      out[#out + 1] = subject
      out[#out + 1] = id
      out[#out + 1] = fit(id, entry)
    else
      redis.call('ZREM', KEYS[2], member)
    end
  end
end
return out
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """The answer of the inbox.

    Attributes:
        kinds: the first letters of the kinds of subjects that have any pending message.
        messages: subject, message id and inbox entry of the pending messages about the subjects asked for; the entry is
            empty if the message is not to be carried out here, and with a ``!`` before it if only alone.
    """

    kinds: str
    messages: Sequence[tuple[str, str, bytes]]


@dataclass(frozen=True, kw_only=True)
class CatchUp:
    """Carries out accepted messages from the inbox before a decision.

    Attributes:
        inbox: the accepted messages.
        work: task → the function that carries out its messages. Messages of other tasks are left to their queue.
        patience: how long a decision waits for a message that cannot be carried out.
    """

    inbox: Inbox
    work: Mapping[Task, Work]
    patience: timedelta

    def about(self, subjects: Iterable[str]) -> set[str]:
        """Carry out all accepted messages about these subjects.

        Returns:
            The subjects that still have a pending message.

        Raises:
            RedisError: Redis does not answer, so the pending messages are unknown.
        """
        return self._about(list(dict.fromkeys(subjects)))[1]

    def notifications(self, engine: Engine, ids: Sequence[str], *, left: bool = False) -> set[str]:
        """Carry out all accepted messages about these notifications, their people and their blasts.

        The people are looked up only while any message about a person is pending, so an empty inbox costs one request.

        Args:
            left: also those that a dead worker has begun, each alone. One of them may end this worker, so nothing may be
                claimed yet.

        Returns:
            The ids of the notifications with a message that is still pending.

        Raises:
            RedisError: Redis does not answer, so the pending messages are unknown.
        """
        kinds, found = self._about(list(map(notification, ids)), left=left)
        pending = {subject[2:] for subject in found}
        if not set(kinds).intersection("bkpu"):
            return pending
        related, still = self._related(engine, ids, left=left)
        if "p" in kinds:
            # What was carried out may have given a person the number that another message is about.
            related, still = self._related(engine, ids, left=left)
        return pending | {id_ for id_, own in related.items() if still.intersection(own)}

    def waiting(self, engine: Engine, ids: Sequence[str]) -> set[str]:
        """Return the notifications with a pending message about them, their people or blasts. Nothing is carried out.

        Raises:
            RedisError: Redis does not answer, so the pending messages are unknown.
        """
        found = self._find(list(map(notification, ids)), begin=False)
        waiting = {subject[2:] for subject, _, _ in found.messages}
        if not set(found.kinds).intersection("bkpu"):
            return waiting
        with engine.begin() as conn:
            related = store.related(conn, ids)
        subjects = list(dict.fromkeys(chain.from_iterable(related.values())))
        still = {subject for subject, _, _ in self._find(subjects, begin=False).messages} if subjects else set()
        return waiting | {id_ for id_, own in related.items() if still.intersection(own)}

    def _related(self, engine: Engine, ids: Sequence[str], *, left: bool) -> tuple[dict[str, list[str]], set[str]]:
        with engine.begin() as conn:
            related = store.related(conn, ids)
        return related, self._about(list(dict.fromkeys(chain.from_iterable(related.values()))), left=left)[1]

    def people(self, engine: Engine, users: Sequence[str]) -> set[str]:
        """Carry out all accepted messages about these people and their devices.

        Returns:
            The users with a message that is still pending.

        Raises:
            RedisError: Redis does not answer, so the pending messages are unknown.
        """
        kinds, found = self._about(list(map(user, users)))
        pending = {subject[2:] for subject in found}
        if "d" not in kinds:
            return pending
        with engine.begin() as conn:
            owners = store.owners(conn, users)
        return pending | {owners[subject[2:]] for subject in self.about(map(device, owners))}

    def _about(self, subjects: Sequence[str], *, left: bool = False) -> tuple[str, set[str]]:
        """Carry out pending messages; return the kinds that were pending at first, and the subjects that still are."""
        if not subjects:
            return "", set()
        found = first = self._find(subjects)
        for rest in reversed(range(_ROUNDS)):
            if not found.messages:
                break
            entries = {id_: entry for _, id_, entry in found.messages}
            self._carry_out({id_: entry for id_, entry in entries.items() if entry and not entry.startswith(_LEFT)})
            if left:
                self._try_alone({id_: entry[1:] for id_, entry in entries.items() if entry.startswith(_LEFT)})
            found = self._find(subjects, begin=rest > 0)
        return first.kinds, {subject for subject, _, _ in found.messages}

    def _find(self, subjects: Sequence[str], *, begin: bool = True) -> _Found:
        keys = [INBOX_MESSAGES, INBOX_SUBJECTS, INBOX_BEGUN]
        arguments: list[str | int] = ["begin" if begin else "", math.ceil(self.inbox.grace_s), *subjects]
        kinds, *flat = cast("list[bytes]", self.inbox.redis.eval(_PENDING, len(keys), *keys, *arguments))
        triples = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return _Found(kinds.decode(), [(subject.decode(), id_.decode(), entry) for subject, id_, entry in triples])

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

    def _try_alone(self, entries: Mapping[str, bytes]) -> None:
        """Carry out messages that a dead worker has begun. After too many of these tries one is parked."""
        for task, messages in _by_task(entries).items():
            if work := self.work.get(task):
                for id_, message in messages:
                    self._alone(task, id_, message, work, came_again=True)

    def _alone(self, task: Task, id_: str, message: object, work: Work, *, came_again: bool = False) -> None:
        try:
            self.inbox.carry_out(task, id_, message, work, came_again=came_again)
        except Exception as error:  # noqa: BLE001 - the message stays pending, and the decision waits
            log.warning("not carried out yet", task=task.value, message_id=id_, error=type(error).__name__)


def _by_task(entries: Mapping[str, bytes]) -> dict[Task, list[tuple[str, object]]]:
    messages: dict[Task, list[tuple[str, object]]] = defaultdict(list)
    for id_, raw in entries.items():
        try:
            entry = json.loads(raw)
            messages[Task(entry["task"])].append((id_, entry["message"]))
        except (ValueError, KeyError, TypeError):
            # The sweep parks entries that cannot be read.
            log.warning("an inbox entry cannot be read", message_id=id_)
    return messages
