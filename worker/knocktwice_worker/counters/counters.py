"""The counts of one process: added to in memory, and taken out to be added to Redis."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: The most different keys that a process counts between two flushes. Labels come from small sets, so more are a
#: mistake; they are dropped before they fill Redis.
_MOST_KEYS = 2_000


#: The most different values of one label that a process counts apart; further ones are :data:`OTHER` together.
_MOST_VALUES = 100
#: What stands for values beyond the most.
OTHER = "other"


class Count(StrEnum):
    """Things that are counted, with their labels."""

    #: Answers of providers; provider, outcome (``sent``, ``refused``, …) and the provider's code.
    PROVIDER_ANSWERS = "provider_answers"
    #: Decisions about steps that were due; verdict.
    DECISIONS = "decisions"
    #: Messages that rules which are only watched would have stopped; rule.
    WATCHED = "watched"
    #: Receipts that were written; kind.
    RECEIPTS = "receipts"
    #: Answers of the gateway; status.
    GATEWAY_ANSWERS = "gateway_answers"


class Span(StrEnum):
    """Times that are counted by length, in seconds."""

    #: From the end of a countdown to the decision about its step.
    TIMER_LATENESS = "timer_lateness"
    #: From the application's call to the provider's answer, for pushes that go out at once.
    ENQUEUE_TO_PROVIDER = "enqueue_to_provider"
    #: From a receipt's own time to its row.
    RECEIPT_DELAY = "receipt_delay"


#: Upper bounds of the lengths, in seconds; longer ones count as ``+Inf``.
BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
#: In place of a bound: what all lengths add up to.
SUM = "sum"
_LABELS = (*map(str, BOUNDS), "+Inf")

#: What was counted and its labels.
Key = tuple[str, ...]


class Counters:
    """The counts of a process since they were taken out last. Threads may share it.

    Args:
        on: whether anything is counted.
    """

    def __init__(self, *, on: bool = True) -> None:
        self._on = on
        self._lock = threading.Lock()
        self._counts: dict[Key, float] = {}
        self._met: dict[str, set[str]] = {}

    def add(self, what: Count, labels: Iterable[str], count: int = 1) -> None:
        """Count something.

        Args:
            labels: from small, closed sets: each combination is a series.
        """
        if self._on and count:
            self._add({(what.value, *labels): count})

    def add_each(self, what: Count, labels: Iterable[str]) -> None:
        """Count things that have one label each."""
        if self._on:
            self._add({(what.value, label): count for label, count in Counter(labels).items()})

    def took(self, what: Span, seconds: float, count: int = 1) -> None:
        """Count a time.

        Args:
            count: how many took so long; of a batch its longest time stands for all of it.
        """
        if not self._on or not count:
            return
        seconds = max(0.0, seconds)
        self._add(
            {(what.value, _LABELS[bisect_left(BOUNDS, seconds)]): count, (what.value, SUM): seconds * count},
        )

    def bounded(self, of: str, value: str) -> str:
        """Return a label's value, or ``other`` if this process has met too many: each makes a series that stays.

        Args:
            of: whose values are counted, such as a provider.
        """
        with self._lock:
            met = self._met.setdefault(of, set())
            if len(met) < _MOST_VALUES:
                met.add(value)
            return value if value in met else OTHER

    def take(self) -> dict[Key, float]:
        """Return what was counted, and begin anew."""
        with self._lock:
            taken, self._counts = self._counts, {}
        return taken

    def put_back(self, counts: Mapping[Key, float]) -> None:
        """Count again what was taken out and could not be written."""
        self._add(counts)

    def _add(self, more: Mapping[Key, float]) -> None:
        with self._lock:
            for key, count in more.items():
                if key in self._counts or len(self._counts) < _MOST_KEYS:
                    self._counts[key] = self._counts.get(key, 0) + count
