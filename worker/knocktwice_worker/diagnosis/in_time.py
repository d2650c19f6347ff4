"""Answers in time: functions run side by side, and one that hangs is given up, so that it delays no other answer."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_T = TypeVar("_T")


class TooLate(Exception):
    """A function has not answered in time. Its thread goes on in the background and does not keep the process alive."""


def in_time(
    functions: Mapping[str, Callable[[], _T]], seconds: float, longer: Mapping[str, float] | None = None
) -> Iterator[tuple[str, _T | Exception]]:
    """Call functions side by side, and yield name and answer of each as it comes.

    A function that raises answers with its error, and one that hangs with :class:`TooLate`.

    Args:
        seconds: how long a function may take.
        longer: name → how long, for those that may take longer.
    """
    answers: SimpleQueue[tuple[str, _T | Exception]] = SimpleQueue()

    def run(name: str, function: Callable[[], _T]) -> None:
        try:
            answers.put((name, function()))
        except Exception as error:
            answers.put((name, error))

    began = time.monotonic()
    # Daemons: a thread in a call that never returns must not keep the process from its end.
    for name, function in functions.items():
        threading.Thread(target=run, args=(name, function), name=f"check-{name}", daemon=True).start()
    ends = {name: began + (longer or {}).get(name, seconds) for name in functions}
    while ends:
        try:
            name, answer = answers.get(timeout=max(0.0, min(ends.values()) - time.monotonic()))
        except Empty:
            now = time.monotonic()
            for name in [name for name, end in ends.items() if end <= now]:
                taken = ends.pop(name) - began
                yield name, TooLate(f"no answer within {taken:g} s")
            continue
        # A late answer was given up already.
        if ends.pop(name, None) is not None:
            yield name, answer
