"""Traces: one for each notification, under its own id, with its steps, and nothing of a person."""

from __future__ import annotations

import gzip
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Receipt, ReceiptEvent, parse_batch
from knocktwice_worker.notifications.pipeline import receipts
from knocktwice_worker.runtime import trace_export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from knocktwice_worker.services import Services
    from support.clock import Clock

MINUTE = timedelta(minutes=1)
NUMBER, KEY, TEXT, TOKEN = "+16505550143", "order-of-hers", "Your biopsy", "silent-token-of-hers"


class Collector:
    """Takes traces as a collector does.

    Attributes:
        status: how it answers.
    """

    def __init__(self) -> None:
        self.status, self.bodies = 200, list[bytes]()
        here = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if here.status == 200:
                    here.bodies.append(
                        gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                    )
                self.send_response(here.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def spans(self) -> list[Any]:
        """Return all spans, in the order in which they came."""
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    built = Collector()
    thread = threading.Thread(target=built.server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{built.server.server_port}")
    yield built
    built.server.shutdown()
    thread.join()
    built.server.server_close()


def turn(share: float = 1) -> Callable[[Services], None]:
    made = trace_export.exporting(share)
    assert made
    return made


def notify(here: Services, clock: Clock) -> str:
    """Somebody gets a push, does not click, and gets an SMS."""
    id_ = str(uuid7())
    wire = {"v": 1, "id": str(uuid7()), "content": {"push": {"title": TEXT, "body": TEXT}}}
    wire["plan"] = [{"channel": "sms", "when": "not_clicked", "after_s": 600, "text": TEXT}]
    wire["recipients"] = [{"id": id_, "key": f"{KEY} {id_}", "phone": NUMBER, "registrations": [TOKEN]}]
    here.pushes.send(parse_batch(wire))
    receipts.record(here.engine, [ReceiptEvent(UUID(id_), Receipt.DELIVERED, datetime.now(UTC), TOKEN)])
    clock.advance(10 * MINUTE + MINUTE)
    here.later_steps.send(here.fallback.check([id_]))
    clock.advance(MINUTE / 2)
    return id_


def facts(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_a_notification_is_one_trace_under_its_own_id_over_the_whole_delay(
    working: Services, clock: Clock, collector: Collector
) -> None:
    export = turn()
    export(working)
    id_ = notify(working, clock)
    export(working)
    whole, push, sms = collector.spans()
    assert {span.trace_id.hex() for span in (whole, push, sms)} == {UUID(id_).hex}
    assert [span.name for span in (whole, push, sms)] == ["notification", "push", "sms"]
    assert whole.parent_span_id == b""
    assert {push.parent_span_id, sms.parent_span_id} == {whole.span_id}
    assert facts(whole)["knocktwice.state"] == "texted"
    assert facts(sms) == {
        "knocktwice.step": 1,
        "knocktwice.channel": "sms",
        "knocktwice.provider": "twilio",
        "knocktwice.state": "sent",
        "knocktwice.tries": 1,
    }
    assert {event.name for event in whole.events} == {"delivered", "not_clicked"}
    assert whole.end_time_unix_nano - whole.start_time_unix_nano >= 660 * 10**9
    assert not [told for told in (NUMBER, KEY, TEXT, TOKEN) if told.encode() in b"".join(collector.bodies)]
    export(working)
    assert len(collector.spans()) == 3


def test_what_a_collector_did_not_take_is_exported_again(working: Services, clock: Clock, collector: Collector) -> None:
    export = turn()
    export(working)
    notify(working, clock)
    collector.status = 400
    with pytest.raises(trace_export.NotTaken):
        export(working)
    collector.status = 200
    export(working)
    assert len(collector.spans()) == 3


def test_after_a_long_outage_of_the_collector_only_the_last_hour_is_told(
    working: Services, clock: Clock, collector: Collector
) -> None:
    export = turn()
    export(working)
    notify(working, clock)
    clock.advance(timedelta(hours=2))
    late = notify(working, clock)
    export(working)
    assert {span.trace_id.hex() for span in collector.spans()} == {UUID(late).hex}


def test_without_a_share_nothing_is_exported() -> None:
    assert trace_export.exporting(0) is None
