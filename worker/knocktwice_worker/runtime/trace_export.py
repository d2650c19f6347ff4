"""Traces of ended notifications to OpenTelemetry, if a share of them is asked for.

No step of a notification waits for it.

Where they go is said by OpenTelemetry's own variables: ``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_EXPORTER_OTLP_HEADERS``.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.config import ConfigurationError
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.reporting import traces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from knocktwice_worker.reporting.traces import Span
    from knocktwice_worker.services import Services

FOLLOWER = "traces"
#: The longest span of time that is read at once, and the most notifications of one request.
_STRIDE, _PAGE = timedelta(minutes=1), 200
#: What ended longer ago is left out: after an outage of the collector, or a time without traces.
_OLDEST = timedelta(hours=1)


#: Who exports, and the seconds after which another worker may if that one died.
_LOCK, _LOCK_S = "knocktwice:traces", 60


class NotTaken(KnocktwiceError):
    """The collector did not take the traces; they are sent again later."""


def exporting(share: float) -> Callable[[Services], None] | None:
    """Return what exports the traces of what has ended since the last time; ``None``: none are asked for.

    Args:
        share: of how many notifications, from 0 to 1.

    Raises:
        ConfigurationError: OpenTelemetry's library is not installed.
    """
    if not share:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigurationError(
            "KNOCKTWICE_TRACES_SHARE is set, and OpenTelemetry's library is missing: pip install 'knocktwice[traces]'"
        ) from None
    exporter = OTLPSpanExporter(timeout=5)

    def turn(here: Services) -> None:
        # One worker at a time. Two would only send the same spans twice, so a lock that expires is enough.
        if not here.redis.set(_LOCK, "1", nx=True, ex=_LOCK_S):
            return
        try:
            while _stride(here, exporter, share):
                here.redis.expire(_LOCK, _LOCK_S)
        finally:
            here.redis.delete(_LOCK)

    return turn


def _stride(here: Services, exporter: Any, share: float) -> bool:
    """Export one stride; return whether there may be more. What is not taken is exported again.

    No transaction is open while the collector answers: all followers wait for the oldest one.
    """
    with here.engine.begin() as conn:
        now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
        change_feed.join(conn, FOLLOWER, now)
        window = change_feed.window(conn, FOLLOWER, most=_STRIDE)
        if window is None:
            return False
        if window.until < now - _OLDEST:
            change_feed.seen(conn, FOLLOWER, now - _OLDEST)
            return True
        ids = traces.ended(conn, window, share)
    for first in range(0, len(ids), _PAGE):
        with here.engine.connect() as conn:
            spans = traces.spans(conn, ids[first : first + _PAGE])
        _export(exporter, spans)
    with here.engine.begin() as conn:
        change_feed.seen(conn, FOLLOWER, window.until)
    return window.until - window.after >= _STRIDE


def _export(exporter: Any, spans: Sequence[Span]) -> None:
    from opentelemetry.sdk.trace.export import SpanExportResult

    if exporter.export([_told(span) for span in spans]) is not SpanExportResult.SUCCESS:
        raise NotTaken("the collector did not take the traces")


def _told(span: Span) -> Any:
    """Return a span as OpenTelemetry has it."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    trace = UUID(span.notification_id)

    def context(step: int | None) -> SpanContext:
        digest = hashlib.sha256(trace.bytes + repr(step).encode()).digest()
        return SpanContext(trace.int, int.from_bytes(digest[:8], "big") or 1, False, TraceFlags(TraceFlags.SAMPLED))

    return ReadableSpan(
        name=span.name,
        context=context(span.step),
        parent=None if span.step is None else context(None),
        resource=Resource.create({"service.name": "knocktwice"}),
        attributes={f"knocktwice.{name}": value for name, value in span.facts.items() if value not in (None, "")},
        events=[Event(one.name, {"knocktwice.step": one.facts["step"]}, _nanoseconds(one.at)) for one in span.moments],
        status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
        start_time=_nanoseconds(span.begin),
        end_time=_nanoseconds(span.end),
        instrumentation_scope=InstrumentationScope("knocktwice"),
    )


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
