"""Joins concurrent calls: while one thread's messages are under way, other threads' messages gather, and go together.

A round trip costs the application, the network and the broker nearly the same with one message as with a hundred. No
call waits for company: the first goes at once, and the next one takes along whatever has gathered meanwhile. There is
no thread of our own; the callers' threads send for each other.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_shared.errors import BrokerUnavailable, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from knocktwice.envelope import Outgoing

#: The most calls, and about the most bytes, that one round trip serves.
_MOST_CALLS, _MOST_BYTES = 256, 500_000


class StillWaiting(Exception):
    """Other threads were not done in time. Nothing of this call was sent."""


@dataclass(eq=False, slots=True)
class _Call:
    """The call of one thread.

    Attributes:
        messages: what it sends.
        taken: a thread sends it now, its own or another one.
        done: it was sent, or failed.
        refused: ids of its messages for which the broker had no room.
        error: why it failed.
    """

    messages: Sequence[Outgoing]
    taken: bool = False
    done: bool = False
    refused: Sequence[str] = ()
    error: BaseException | None = None

    def settle(self, refused: frozenset[str], error: BaseException | None) -> None:
        self.done = True
        self.error = error
        self.refused = [id_ for message in self.messages if (id_ := str(message.id)) in refused]


class Joining:
    """The calls of one process that want the same connection."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[_Call] = deque()
        self._busy = False

    def accept(
        self, messages: Sequence[Outgoing], send: Callable[[Sequence[Outgoing]], Sequence[str]], timeout: float
    ) -> Sequence[str]:
        """Send messages, perhaps together with those of other threads.

        Args:
            send: sends messages in one round trip, and returns the ids of those without room. If it fails, it fails for
                all of them.
            timeout: how long to wait for other threads.

        Returns:
            The ids among ``messages`` for which the broker had no room.

        Raises:
            StillWaiting: other threads were not done within the timeout.
        """
        call = _Call(messages)
        with self._changed:
            self._waiting.append(call)
            if not self._changed.wait_for(lambda: call.taken or not self._busy, timeout):
                self._waiting.remove(call)
                raise StillWaiting
            if call.taken:
                # Its sender has a timeout of its own.
                self._changed.wait_for(lambda: call.done)
                return _result(call)
            self._busy = True
            calls = self._take(call)
        refused: Sequence[str] = ()
        error: BaseException | None = None
        try:
            refused = send([message for one in calls for message in one.messages])
        except BaseException as failure:
            error = failure
            raise
        finally:
            self._settle(calls, frozenset(refused), error)
        return call.refused

    def _take(self, own: _Call) -> list[_Call]:
        """Return the calls that go now: the thread's own, and the oldest of the others."""
        self._waiting.remove(own)
        calls, size = [own], _size(own)
        while self._waiting and len(calls) < _MOST_CALLS and size + _size(self._waiting[0]) <= _MOST_BYTES:
            calls.append(self._waiting.popleft())
            size += _size(calls[-1])
        for call in calls:
            call.taken = True
        return calls

    def _settle(self, calls: Sequence[_Call], refused: frozenset[str], error: BaseException | None) -> None:
        with self._changed:
            self._busy = False
            for call in calls:
                call.settle(refused, error)
            self._changed.notify_all()


def _size(call: _Call) -> int:
    return sum(len(message.message) for message in call.messages)


def _result(call: _Call) -> Sequence[str]:
    """Return the refused ids of a call that another thread has sent, or raise what went wrong."""
    if call.error is None:
        return call.refused
    if not isinstance(call.error, Exception):
        # A signal ended the sending thread's call, which must not end this one's thread.
        raise BrokerUnavailable(
            "the call of another thread, which sent this one's messages, was interrupted; the outcome is unknown, and it "
            "is safe to call again with the same key (or ids)"
        ) from call.error
    # Each thread raises an error of its own, because raising changes it.
    error = copy.copy(call.error)
    if isinstance(error, QueueFull):
        error.refused = frozenset(call.refused)
    raise error from call.error.__cause__
