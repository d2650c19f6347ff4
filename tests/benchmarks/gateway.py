"""The gateway: notifications and receipts by single requests until they are durable, and receipts in batches until they
are rows.

CPU by role says more than the rates: clients, gateway, servers and workers share the cores of one machine.
"""

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

from benchmarks import load, meter
from benchmarks.figures import median, spread
from benchmarks.history import pending
from benchmarks.installation import WORKERS
from knocktwice_shared.names import INBOX_MESSAGES
from knocktwice_worker.content.links.receipt_urls import PATH, ReceiptTokens, ReceiptUrls
from knocktwice_worker.embedded.children import Child
from knocktwice_worker.gateway.auth import keys
from knocktwice_worker.gateway.http.address_pace import AddressPace
from knocktwice_worker.gateway.http.client_address import ClientAddresses

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.figures import Figures
    from benchmarks.installation import Installation
    from benchmarks.meter import Spent

ROUNDS, SINGLE, BATCHED, PER_BATCH = 3, 10_000, 20_000, 1_000
NOTIFICATIONS = 3_000
_JSON = {"content-type": "application/json"}


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
        # Counted, and never too many: all clients are on one address here.
        "KNOCKTWICE_GATEWAY_ADDRESS_PER_S": "1000000",
    }
    urls = ReceiptUrls(url, ReceiptTokens([env["KNOCKTWICE_SECRET"].encode()], timedelta(days=7)))
    _signing(figures, urls)
    _counting(figures)
    with (
        here.workers("benchmarks.trusting", env=env, count=WORKERS) as workers,
        _gateway(port, env) as gateway,
    ):
        reached = 0

        def roles() -> dict[str, list[int]]:
            return {"gateway": [gateway.pid], **here.roles(workers)()}

        def wait_for_receipts(count: int) -> None:
            nonlocal reached
            reached += count
            here.wait(lambda: here.redis.hlen(INBOX_MESSAGES) == 0, workers)
            if _reached(engine) != reached:
                raise RuntimeError("not every receipt has ended its fallback")

        def receipts(count: int) -> list[str]:
            return [urls.url(i, "phone", now=time.time(), ttl_s=600) for i in pending(engine, count)]

        key = _key(engine, env)
        durable, spent, ratio = [], [], []
        for round_ in range(ROUNDS):
            with meter.measure(roles) as one:
                answers = load.send(port, _notifications(key, round_))
                _check(answers, 202)
                here.wait(lambda: here.redis.hlen(INBOX_MESSAGES) == 0, [gateway, *workers])
            durable.append(NOTIFICATIONS / answers.wall_s)
            spent.append(one)
        _add(figures, "notifications by single requests, until durable", "notify", durable, spent, NOTIFICATIONS)

        durable, spent = [], []
        for _ in range(ROUNDS):
            requests = [load.request("POST", f"{PATH}{url.rpartition('/')[2]}/delivered") for url in receipts(SINGLE)]
            with meter.measure(roles) as one:
                answers = load.send(port, requests)
                _check(answers, 204)
                wait_for_receipts(SINGLE)
            durable.append(SINGLE / answers.wall_s)
            ratio.append(answers.cpu_s / SINGLE)
            spent.append(one)
        _add(figures, "receipts by single requests, until durable", "single", durable, spent, SINGLE)
        figures.add("CPU of the clients each", f"{median(ratio) * 1e6:,.0f} µs", "not in the figures above")

        durable, spent, written = [], [], []
        for _ in range(ROUNDS):
            requests = _batches(receipts(BATCHED))
            start = time.perf_counter()
            with meter.measure(roles) as one:
                answers = load.send(port, requests, connections=4)
                _check(answers, 202)
                wait_for_receipts(BATCHED)
            written.append(BATCHED / (time.perf_counter() - start))
            durable.append(BATCHED / answers.wall_s)
            spent.append(one)
        _add(
            figures,
            f"receipts by the batch endpoint, {PER_BATCH:,} each, until durable",
            "batch",
            durable,
            spent,
            BATCHED,
        )
        rate = median(written)
        figures.add("… until they end a fallback", f"{rate:,.0f}/s", spread(written), batch_written_per_s=rate)


def _add(figures: Figures, measure: str, name: str, rates: Sequence[float], spent: Sequence[Spent], count: int) -> None:
    rate, cpu = median(rates), median(one.cpu_us("gateway", count) for one in spent)
    figures.add_rate(measure, rate, spent[-1], count, spread(rates), **{f"{name}_per_s": rate})
    remark = f"{1e6 / cpu:,.0f}/s a core; {spent[-1].shares(count)}"
    figures.add("gateway CPU each", f"{cpu:,.0f} µs", remark, **{f"{name}_cpu_us": cpu})


def _notifications(key: str, round_: int) -> list[bytes]:
    headers = {**_JSON, "authorization": f"Bearer {key}"}
    requests = []
    for n in range(NOTIFICATIONS):
        body = {"user": f"user-{n}", "push": {"title": "Ready", "body": "{{ who }} arrives."}, "params": {"who": "Ana"}}
        own = {**headers, "idempotency-key": f"{round_}-{n}"}
        requests.append(load.request("POST", "/v1/notifications", json.dumps(body).encode(), own))
    return requests


def _batches(urls: Sequence[str]) -> list[bytes]:
    batches = [urls[start : start + PER_BATCH] for start in range(0, len(urls), PER_BATCH)]
    bodies = [{"receipts": [{"receipt": url, "kind": "delivered"} for url in some]} for some in batches]
    return [load.request("POST", "/v1/receipts", json.dumps(body).encode(), _JSON) for body in bodies]


def _key(engine: sa.Engine, env: dict[str, str]) -> str:
    with engine.begin() as conn:
        return keys.create(conn, "bench", {keys.Scope.NOTIFY}, secret=env["KNOCKTWICE_SECRET"])


def _signing(figures: Figures, urls: ReceiptUrls) -> None:
    start, count = time.perf_counter(), 20_000
    for _ in range(count):
        urls.url("01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a11", "a-registration-token", now=1_800_000_000.0, ttl_s=60)
    each = (time.perf_counter() - start) / count * 1e6
    figures.add("making a push's receipt address", f"{each:.1f} µs", "", sign_us=each)


def _counting(figures: Figures) -> None:
    pace, count = AddressPace(1e9), 100_000
    addresses = ClientAddresses()
    scopes = [{"client": (f"203.0.113.{n}", 1), "headers": []} for n in range(100)]
    start = time.perf_counter()
    for n in range(count):
        address = addresses.of(scopes[n % 100])
        pace.enter(address)
        pace.leave(address)
    each = (time.perf_counter() - start) / count * 1e6
    figures.add("counting a request by its address", f"{each:.1f} µs", "", count_us=each)


def _check(answers: load.Answers, expected: int) -> None:
    if answers.statuses.keys() != {expected}:
        raise RuntimeError(f"not all requests were taken: {dict(answers.statuses)}")


@contextmanager
def _gateway(port: int, env: dict[str, str]) -> Iterator[Child]:
    log = Path(env["KNOCKTWICE_HOME"]) / "gateway.log"
    child = Child(
        "gateway", [sys.executable, "-m", "knocktwice_worker.cli", "gateway", "--port", str(port)], log, env=env
    )
    child.start()
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield child
    finally:
        child.stop()


def _reached(engine: sa.Engine) -> int:
    with engine.connect() as conn:
        return int(conn.execute(sa.text("SELECT count(*) FROM notifications WHERE state = 'reached'")).scalar_one())
