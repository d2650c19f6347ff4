"""Makes one batch of many small ones: what arrives while others are worked on waits, and goes together.

A batch of one costs nearly as much as a batch of a hundred: the same queries, the same commits, the same wait for the
provider. So the tasks of one process that have little to do each put it on one pile, and whoever gets a turn takes the pile
as it is. Nobody waits for company: with a free turn a single notification goes at once, and the busier the worker, the
larger its batches. Each task still ends when its own work is done, so a message is acknowledged no earlier than before.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_P = ParamSpec("_P")
_R = TypeVar("_R")
_C = TypeVar("_C")
_T = TypeVar("_T")


@dataclass(eq=False, slots=True)
class _Entry(Generic[_C, _T]):
    context: _C
    item: _T
    size: int
    taken: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Combiner(Generic[_C, _T]):
    """Works on what many threads bring, together.

    Args:
        work: takes a context, such as the services, and items; safe to repeat. Only items of one context go together.
        turns: how many threads may work at once.
        most: total size of what is worked on together; a single larger item goes alone.
    """

    def __init__(self, work: Callable[[_C, list[_T]], None], *, turns: int, most: int) -> None:
        self._work = work
        self._most = most
        self._turns = threading.BoundedSemaphore(turns)
        self._lock = threading.Lock()
        self._pile: deque[_Entry[_C, _T]] = deque()

    def run(self, context: _C, item: _T, *, size: int) -> None:
        """Return when the item's work is done, or raise what stopped it."""
        entry = _Entry(context, item, size)
        with self._lock:
            self._pile.append(entry)
        with self._turns:
            # Whose item went with others has nothing left to do; taking what has just come would make small batches again.
            while not entry.taken:
                self._do(self._take())
        entry.done.wait()
        if entry.error is not None:
            raise entry.error

    def _take(self) -> list[_Entry[_C, _T]]:
        taken: list[_Entry[_C, _T]] = []
        size = 0
        with self._lock:
            while self._pile:
                first = self._pile[0]
                if taken and (size + first.size > self._most or first.context is not taken[0].context):
                    break
                taken.append(self._pile.popleft())
                first.taken = True
                size += first.size
        return taken

    def _do(self, entries: list[_Entry[_C, _T]]) -> None:
        try:
            self._work(entries[0].context, [entry.item for entry in entries])
        except Exception as error:  # noqa: BLE001 - raised again in the thread whose item it was
            if len(entries) > 1:
                # One of them is to blame, and the others must not suffer for it.
                for entry in entries:
                    self._do([entry])
                return
            entries[0].error = error
        except BaseException as error:
            for entry in entries:
                entry.error = error
            raise
        finally:
            for entry in entries:
                entry.done.set()


def at_most(turns: int) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Let only so many threads into a function at once; the others wait outside, without a database connection."""
    gate = threading.BoundedSemaphore(turns)

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def enter(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            with gate:
                return function(*args, **kwargs)

        return enter

    return decorate
