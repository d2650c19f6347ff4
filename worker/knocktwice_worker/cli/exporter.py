"""``knocktwice exporter``: the series for Prometheus on a port of their own."""

from __future__ import annotations

from typing import Annotated

import typer

from knocktwice_worker.cli.output import out
from knocktwice_worker.services import services


def exporter(
    host: Annotated[str, typer.Option(help="Address to listen on; the series need no key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 9464,
) -> None:
    """Serve the series for Prometheus at /metrics until Ctrl-C. One exporter shows the whole installation.

    Example: knocktwice exporter --port 9464
    """
    from knocktwice_worker.metrics import exporter as serving

    with serving.server(services(), host, port) as running:
        out.print(f"metrics at http://{host}:{running.server_port}/metrics; Ctrl-C ends it", soft_wrap=True)
        running.serve_forever()
