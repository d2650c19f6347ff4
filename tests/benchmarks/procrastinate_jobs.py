"""The pipeline as one would write it with procrastinate: a job for each notification and step, all queues in
PostgreSQL.

``work`` runs one worker process and prints `` ready.``; ``feed COUNT`` hands COUNT notifications over one by one and
prints ``{"until", "cpu_s"}``; ``schema`` makes procrastinate's tables. It imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import sys
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

sys.path.insert(0, os.environ["PROCRASTINATE_PATH"])

import aiohttp
import procrastinate  # type: ignore[import-not-found,unused-ignore]
from redis import asyncio as redis_asyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_ENV = os.environ
_PEOPLE, _AT_ONCE = 100_000, 32
_TWILIO = f"{_ENV['KNOCKTWICE_TWILIO_URL']}/2010-04-01/Accounts/{_ENV['TWILIO_ACCOUNT_SID']}/Messages.json"

app = procrastinate.App(connector=procrastinate.PsycopgConnector(min_size=2, max_size=10))
_here: dict[str, Any] = {}


async def _sql(statement: str, *values: object) -> list[Any]:
    async with _here["pool"].connection() as conn:
        cursor = await conn.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []


async def _post(url: str, **what: Any) -> Any:
    async with _here["http"].post(url, ssl=_here["tls"], **what) as answer:
        answer.raise_for_status()
        return await answer.json(content_type=None)


@app.task(queue="jobs")  # type: ignore[untyped-decorator,unused-ignore]
async def send_push(id_: str, person: str, title: str, body: str) -> None:
    """Write the row, push, start the countdown."""
    ((token,),) = await _sql("SELECT token FROM textbook_people WHERE id = %s", person)
    await _sql(
        "INSERT INTO textbook_notifications (id, person_id, title, body, state, created_at) "
        "VALUES (%s, %s, %s, %s, 'new', now())",
        *(id_, person, title, body),
    )
    android = {"priority": "high", "ttl": "3s"}
    message = {"token": token, "notification": {"title": title, "body": body}, "data": {"id": id_}, "android": android}
    sent = await _post(_here["fcm"], json={"message": message}, headers={"authorization": "Bearer ya29." + "x" * 200})
    await _sql("UPDATE textbook_notifications SET state = 'pushed', push_name = %s WHERE id = %s", sent["name"], id_)
    countdown = float(_ENV["TEXTBOOK_COUNTDOWN_S"])
    await check_fallback.configure(schedule_in={"milliseconds": round(countdown * 1000)}).defer_async(id_=id_)


@app.task(queue="jobs")  # type: ignore[untyped-decorator,unused-ignore]
async def record_delivered(id_: str) -> None:
    """Note a receipt."""
    await _sql("UPDATE textbook_notifications SET delivered_at = now() WHERE id = %s", id_)


@app.task(queue="jobs")  # type: ignore[untyped-decorator,unused-ignore]
async def check_fallback(id_: str) -> None:
    """Decide whether the SMS follows."""
    ((state, delivered_at, body, phone),) = await _sql(
        "SELECT n.state, n.delivered_at, n.body, p.phone FROM textbook_notifications n "
        "JOIN textbook_people p ON p.id = n.person_id WHERE n.id = %s",
        id_,
    )
    if state != "pushed":
        return
    if delivered_at:
        await _sql("UPDATE textbook_notifications SET state = 'reached', finished_at = now() WHERE id = %s", id_)
    elif await _allowed(phone, body):
        await send_sms.defer_async(id_=id_)
    else:
        await _sql("UPDATE textbook_notifications SET state = 'suppressed', finished_at = now() WHERE id = %s", id_)


@app.task(queue="jobs")  # type: ignore[untyped-decorator,unused-ignore]
async def send_sms(id_: str) -> None:
    """Send it."""
    ((state, body, phone),) = await _sql(
        "SELECT n.state, n.body, p.phone FROM textbook_notifications n "
        "JOIN textbook_people p ON p.id = n.person_id WHERE n.id = %s",
        id_,
    )
    if state != "pushed":
        return
    form = {"To": phone, "From": _ENV["KNOCKTWICE_TWILIO_FROM"], "Body": body}
    account = aiohttp.BasicAuth(_ENV["TWILIO_ACCOUNT_SID"], _ENV["TWILIO_AUTH_TOKEN"])
    sent = await _post(_TWILIO, data=form, auth=account)
    await _sql(
        "UPDATE textbook_notifications SET state = 'texted', sms_sid = %s, finished_at = now() WHERE id = %s",
        *(sent["sid"], id_),
    )


async def _allowed(phone: str, body: str) -> bool:
    day = f"day:{phone}:{datetime.now(UTC):%Y%m%d}"
    pipe = _here["redis"].pipeline()
    pipe.set(f"content:{phone}:{hashlib.sha256(body.encode()).hexdigest()}", 1, nx=True, ex=30)
    pipe.incr(day)
    pipe.expire(day, 172_800)
    fresh, today, _ = await pipe.execute()
    return bool(fresh) and int(today) <= 10


async def _work() -> None:
    from psycopg_pool import AsyncConnectionPool  # type: ignore[import-not-found,unused-ignore]

    account = json.loads(Path(_ENV["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    async with (
        app.open_async(),
        AsyncConnectionPool(min_size=2, max_size=10) as pool,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_AT_ONCE)) as http,
    ):
        _here.update(
            pool=pool,
            http=http,
            tls=ssl.create_default_context(cafile=_ENV["BENCHMARK_CA"]),
            redis=redis_asyncio.Redis(unix_socket_path=_ENV["PEER_SOCKET"], db=int(_ENV["PEER_DB"])),
            fcm=f"{_ENV['KNOCKTWICE_FCM_URL']}/v1/projects/{account['project_id']}/messages:send",
        )
        print(" ready.", flush=True)
        await app.run_worker_async(
            queues=["jobs"], concurrency=_AT_ONCE, delete_jobs="successful", fetch_job_polling_interval=0.5
        )


async def _feed(count: int) -> None:
    orders, pushed = iter(range(count)), deque[str]()
    async with app.open_async():
        start = time.process_time()

        async def waiting() -> int:
            rows = await app.connector.execute_query_all_async(
                "SELECT count(*) AS n FROM procrastinate_jobs WHERE status = 'todo' AND scheduled_at IS NULL"
            )
            return int(rows[0]["n"])

        async def call() -> None:
            for order in orders:
                id_ = str(uuid4())
                person, text = f"user-{order % _PEOPLE}", f"rder {order} is ready"
                await send_push.defer_async(id_=id_, person=person, title=f"O{text}", body=f"Hi Ana, your o{text}.")
                if order % 2:
                    pushed.append(id_)
                if len(pushed) > _AT_ONCE:
                    await record_delivered.defer_async(id_=pushed.popleft())
                if order % (4 * _AT_ONCE) == 0:
                    while await waiting() > 8 * _AT_ONCE:
                        await asyncio.sleep(0.2)

        await asyncio.gather(*[call() for _ in range(8)])
        until = time.time()
        while await waiting():
            await asyncio.sleep(0.2)
        await asyncio.gather(*[record_delivered.defer_async(id_=id_) for id_ in pushed])
        print(json.dumps({"until": until, "cpu_s": time.process_time() - start}))


async def _schema() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


_COMMANDS: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
    "work": _work,
    "feed": lambda: _feed(int(sys.argv[2])),
    "schema": _schema,
}

if __name__ == "__main__":
    asyncio.run(_COMMANDS[sys.argv[1]]())
