"""A scrape: all parts are read side by side, each in bounded time, and written down as Prometheus reads it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from importlib import metadata
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from knocktwice_worker.diagnosis.in_time import in_time
from knocktwice_worker.metrics import broker, database
from knocktwice_worker.metrics.series import SERIES, Kind, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from knocktwice_worker.services import Services

#: The type of the answer.
CONTENT_TYPE = CONTENT_TYPE_LATEST
#: Seconds that a part may take; a scrape takes no longer.
PATIENCE_S = 1.8
#: Seconds for which an answer serves everybody who asks, and for which the figures of the day do.
_FRESH_S, _FIGURES_FRESH_S = 2.0, 30.0


class Scrapes:
    """Reads the series for whoever asks; those who ask at the same time share one answer. Threads may share it."""

    def __init__(self, here: Services) -> None:
        self._parts: Mapping[str, _Part] = {
            "broker": _Part(lambda: list(broker.read(here))),
            "queues": _Part(lambda: list(broker.read_queues(here))),
            "budget": _Part(lambda: list(broker.budget(here))),
            "database": _Part(lambda: list(database.read(here))),
            "figures": _Part(lambda: list(database.read_figures(here)), _FIGURES_FRESH_S),
        }
        self._lock = threading.Lock()
        self._text, self._until = b"", float("-inf")

    def text(self) -> bytes:
        """Return the series in Prometheus' text format, within two seconds whatever hangs."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._text = _written(list(self._samples()))
                self._until = time.monotonic() + _FRESH_S
            return self._text

    def _samples(self) -> Iterator[Sample]:
        yield Sample("knocktwice_build_info", 1, (metadata.version("knocktwice"),))
        began = time.monotonic()
        for name, answer in in_time({name: part.read for name, part in self._parts.items()}, PATIENCE_S):
            yield Sample("knocktwice_part_up", float(not isinstance(answer, Exception)), (name,))
            yield Sample("knocktwice_part_seconds", time.monotonic() - began, (name,))
            if not isinstance(answer, Exception):
                yield from answer


class _Part:
    """One part. While one look at it hangs no other one begins, or threads and connections would pile up.

    Args:
        look: reads it.
        fresh_s: seconds for which one look is enough.
    """

    def __init__(self, look: Callable[[], Sequence[Sample]], fresh_s: float = 0.0) -> None:
        self._look, self._fresh_s = look, fresh_s
        self._lock = threading.Lock()
        self._found: Sequence[Sample] = ()
        self._until = float("-inf")

    def read(self) -> Sequence[Sample]:
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise TimeoutError("the look before this one has not ended")
        try:
            if time.monotonic() >= self._until:
                self._found = self._look()
                self._until = time.monotonic() + self._fresh_s
            return self._found
        finally:
            self._lock.release()


class _Written(Collector):
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            self._samples[sample.name].append(sample)

    def collect(self) -> Iterator[Metric]:
        for name, samples in self._samples.items():
            yield _family(name, samples)


def _family(name: str, samples: Sequence[Sample]) -> Metric:
    series = SERIES[name]
    if series.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, series.meaning, labels=series.labels)
        for sample in samples:
            histogram.add_metric(sample.labels, list((sample.buckets or {}).items()), sample.value)
        return histogram
    family = (CounterMetricFamily if series.kind is Kind.COUNTER else GaugeMetricFamily)(
        name, series.meaning, labels=series.labels
    )
    for sample in samples:
        family.add_metric(sample.labels, sample.value)
    return family


def _written(samples: Sequence[Sample]) -> bytes:
    return generate_latest(_Written(samples))
