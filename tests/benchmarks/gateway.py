"""The gateway: notifications and receipts by single requests until they are durable, and receipts in batches until they are rows."""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from benchmarks import meter
from benchmarks.figures import median, spread
from benchmarks.history import pending
from benchmarks.installation import WORKERS
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.channels import NoResponse, Request
from knocktwice_worker.children import Child
from knocktwice_worker.gateway import keys
from knocktwice_worker.receipt_tokens import ReceiptTokens, ReceiptUrls
from knocktwice_worker.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.figures import Figures
    from benchmarks.installation import Installation

ROUNDS, SINGLE, BATCHED, PER_BATCH = 3, 6_000, 20_000, 1_000
NOTIFICATIONS = 3_000


def measure(here: Installation, figures: Figures) -> None:
    """Fill in the figures."""
    database_url = here.database()
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    here.empty_the_broker()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    env = here.environment(database_url, here.provider.url) | {
        "KNOCKTWICE_PUBLIC_URL": url,
        "KNOCKTWICE_GATEWAY_PER_S": "0",
    }
    transport = Transport(timeout=60, in_flight=64)
    urls = ReceiptUrls(url, ReceiptTokens([env["KNOCKTWICE_SECRET"].encode()], timedelta(days=7)))
    _signing(figures, urls)
    with (
        here.workers("benchmarks.trusting", env=env, count=WORKERS) as workers,
        _gateway(port, env, transport) as gateway,
    ):
        _notifications(here, figures, url, _key(engine, env), gateway, transport)
        single, cpus, batched = [], [], []
        done = 0
        for _ in range(ROUNDS):
            addresses = _addresses(urls, pending(engine, SINGLE))
            requests = [Request(f"{address}/delivered", {}) for address in addresses]
            with meter.measure(lambda: {"gateway": [gateway.pid]}) as spent:
                single.append(_send(transport, requests, SINGLE, 204))
            cpus.append(spent.cpu_us("gateway", SINGLE))
            done += SINGLE
            here.wait(lambda wanted=done: _reached(engine) >= wanted, workers)  # type: ignore[misc]
        for _ in range(ROUNDS):
            addresses = _addresses(urls, pending(engine, BATCHED))
            done += BATCHED
            start = time.perf_counter()
            _send(transport, _batches(url, addresses), BATCHED, 202)
            here.wait(lambda wanted=done: _reached(engine) >= wanted, workers)  # type: ignore[misc]
            batched.append(BATCHED / (time.perf_counter() - start))
    rate = median(single)
    figures.add("receipts by single requests, until durable", f"{rate:,.0f}/s", spread(single), single_per_s=rate)
    figures.add("gateway CPU each", f"{median(cpus):,.0f} µs", "", gateway_cpu_us=median(cpus))
    rate = median(batched)
    figures.add(
        "receipts by the batch endpoint, until they end a fallback", f"{rate:,.0f}/s", spread(batched), batch_per_s=rate
    )


def _notifications(
    here: Installation, figures: Figures, url: str, key: str, gateway: Child, transport: Transport
) -> None:
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    rates, cpus = [], []
    for round_ in range(ROUNDS):
        requests = []
        for n in range(NOTIFICATIONS):
            body = {
                "user": f"user-{n}",
                "push": {"title": "Ready", "body": "{{ who }} arrives."},
                "params": {"who": "Ana"},
            }
            own = {**headers, "idempotency-key": f"{round_}-{n}"}
            requests.append(Request(f"{url}/v1/notifications", own, json.dumps(body).encode()))
        with meter.measure(lambda: {"gateway": [gateway.pid]}) as spent:
            rates.append(_send(transport, requests, NOTIFICATIONS, 202))
        cpus.append(spent.cpu_us("gateway", NOTIFICATIONS))
        here.wait(lambda: here.redis.hlen(INBOX_MESSAGES) == 0, [gateway])
    rate = median(rates)
    figures.add("notifications by single requests, until durable", f"{rate:,.0f}/s", spread(rates), notify_per_s=rate)
    figures.add("gateway CPU each", f"{median(cpus):,.0f} µs", "", notify_cpu_us=median(cpus))


def _key(engine: sa.Engine, env: dict[str, str]) -> str:
    with engine.begin() as conn:
        return keys.create(conn, "bench", {keys.Scope.NOTIFY}, secret=env["KNOCKTWICE_SECRET"])


def _signing(figures: Figures, urls: ReceiptUrls) -> None:
    start, count = time.perf_counter(), 20_000
    for _ in range(count):
        urls.url("01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a11", "a-registration-token", now=1_800_000_000.0, ttl_s=60)
    each = (time.perf_counter() - start) / count * 1e6
    figures.add("making a push's receipt address", f"{each:.1f} µs", "", sign_us=each)


def _addresses(urls: ReceiptUrls, ids: Sequence[str]) -> list[str]:
    return [urls.url(i, "phone", now=time.time(), ttl_s=600) for i in ids]


def _batches(url: str, addresses: Sequence[str]) -> list[Request]:
    batches = [addresses[start : start + PER_BATCH] for start in range(0, len(addresses), PER_BATCH)]
    bodies = [{"receipts": [{"receipt": a, "kind": "delivered"} for a in some]} for some in batches]
    headers = {"content-type": "application/json"}
    return [Request(f"{url}/v1/receipts", headers, json.dumps(body).encode()) for body in bodies]


def _send(transport: Transport, requests: Sequence[Request], count: int, expected: int) -> float:
    start = time.perf_counter()
    answers = transport.send(requests)
    spent = time.perf_counter() - start
    wrong = [a for a in answers if isinstance(a, NoResponse) or a.status != expected]
    if wrong:
        raise RuntimeError(f"{len(wrong)} of {len(answers)} requests were not taken: {wrong[0]}")
    return count / spent


@contextmanager
def _gateway(port: int, env: dict[str, str], transport: Transport) -> Iterator[Child]:
    log = Path(env["KNOCKTWICE_HOME"]) / "gateway.log"
    child = Child("gateway", [sys.executable, "-m", "knocktwice_worker", "gateway", "--port", str(port)], log, env=env)
    child.start()
    probe = Request(f"http://127.0.0.1:{port}/healthz", {}, method="GET", repeatable=True)
    try:
        for _ in range(600):
            if not isinstance(transport.send([probe])[0], NoResponse):
                break
            time.sleep(0.1)
        yield child
    finally:
        child.stop()


def _reached(engine: sa.Engine) -> int:
    with engine.connect() as conn:
        return int(conn.execute(sa.text("SELECT count(*) FROM notifications WHERE state = 'reached'")).scalar_one())
