"""Checks of the servers: PostgreSQL with its schema, the broker, and what waits in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import text

from knocktwice_shared.counted import many
from knocktwice_shared.durability import Durability
from knocktwice_shared.names import INBOX_ACCEPTED, INBOX_BACKLOG, Queue
from knocktwice_worker.database import migrations
from knocktwice_worker.diagnosis.check import Finding, Level
from knocktwice_worker.diagnosis.inbox_age import oldest_s
from knocktwice_worker.notifications.inbox import dead_letters as dead_letters_store

if TYPE_CHECKING:
    from knocktwice_worker.services import Services

#: The share of the backlog's limits from which somebody should look.
_NEARLY_FULL = 0.7
#: Seconds after which an accepted message that is not committed is a warning.
_OLD_S = 60.0


def postgres(here: Services) -> Finding:
    """Whether PostgreSQL answers."""
    with here.engine.connect() as conn:
        version = conn.execute(text("SHOW server_version")).scalar_one()
    return Level.OK, f"PostgreSQL {version}"


def schema(here: Services) -> Finding:
    """Whether the database has all migrations of this version."""
    with here.engine.connect() as conn:
        missing = migrations.pending(conn)
    if missing:
        return (
            Level.ERROR,
            f"the database lacks {len(missing)} migrations, from {missing[0]} on; run: knocktwice migrate",
        )
    return Level.OK, "the schema is up to date"


def broker(here: Services) -> Finding:
    """Whether the broker answers, and keeps what it took."""
    info = here.redis.info()
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info["redis_version"])
    if not info.get("aof_enabled"):
        disk = here.settings.durability is Durability.DISK
        asked = ", and KNOCKTWICE_DURABILITY is disk, so no call is confirmed" if disk else ""
        return (
            Level.ERROR if disk else Level.WARNING,
            f"{name} {version} without append-only file: a crash forgets accepted messages{asked}; set appendonly yes",
        )
    if info.get("maxmemory_policy") not in (None, "noeviction"):
        return Level.ERROR, f"{name} {version} evicts keys when full; set maxmemory-policy noeviction"
    return _durable(here, info, f"{name} {version}, append-only file on")


def _durable(here: Services, info: dict[str, Any], found: str) -> tuple[Level, str]:
    """Say what accepted means, and whether the broker can hold it."""
    asked, replicas = here.settings.durability, here.settings.durability_replicas
    if asked is Durability.REPLICA and int(info.get("connected_slaves", 0)) < replicas:
        there = info.get("connected_slaves", 0)
        return Level.ERROR, (
            f"{found}; KNOCKTWICE_DURABILITY is replica, but {there} of {many(replicas, 'replica')} {'is' if replicas == 1 else 'are'} connected, so no call "
            "is confirmed: connect them, or set disk or memory"
        )
    return Level.OK, f"{found}; accepted means: {asked.promise}"


def rabbitmq(here: Services) -> Finding:
    """Whether RabbitMQ answers, and its queues are ours."""
    try:
        found = here.queues.examine()
    except ConnectionError as error:
        return Level.ERROR, f"{error}; messages are accepted meanwhile, and wait in the inbox until it is back"
    if found is None:
        return Level.OK, "not used: the queues are in the broker, which keeps the rest, too"
    told = f"RabbitMQ {found.version}"
    if found.others:
        names = ", ".join(found.others)
        return Level.ERROR, (
            f"{told}: no durable quorum queue: {names}, so workers cannot use it; stop the workers, delete it with "
            "rabbitmqctl delete_queue, and start them: what was accepted comes again from the inbox"
        )
    if missing := [str(queue) for queue in Queue if queue not in found.lengths]:
        return Level.WARNING, f"{told}: no worker has made {', '.join(missing)} yet; start workers that take them"
    return Level.OK, f"{told}, quorum queues: " + ", ".join(f"{q} {length}" for q, length in found.lengths.items())


# No further than some thousand: whoever looks in an outage must not add to it.
_OVERDUE = text("""
SELECT count(*)
FROM (SELECT 1 FROM deliveries WHERE wake_at < knocktwice_now() - interval '1 minute' LIMIT 10000) overdue
""")


def backlog(here: Services) -> Finding:
    """What waits, and whether it waits for too long."""
    try:
        waiting = ", ".join(f"{queue} {length}" for queue, length in here.queues.lengths().items())
    except ConnectionError as error:
        waiting = str(error)
    inbox = here.redis.zcard(INBOX_ACCEPTED)
    oldest = oldest_s(here.redis)
    used = int(cast("bytes | None", here.redis.hget(INBOX_BACKLOG, "used")) or 0)
    most, most_bytes = here.settings.backlog_messages, here.settings.backlog_bytes
    share = max(inbox / most, used / most_bytes)
    with here.engine.connect() as conn:
        late = conn.execute(_OVERDUE).scalar_one()
    full = f"{share:.0%} full by KNOCKTWICE_BACKLOG_MESSAGES and KNOCKTWICE_BACKLOG_BYTES"
    finding = f"{waiting}; inbox {inbox}; overdue rows {late}"
    if inbox:
        finding += f"; the oldest accepted message waits for {oldest:.0f} s"
    if share >= 1:
        return Level.ERROR, f"notifications are refused, {full}; start workers, or raise the limits; {finding}"
    if share >= _NEARLY_FULL:
        return Level.WARNING, f"{full}; beyond that notifications are refused; {finding}"
    return (Level.WARNING if late or oldest > _OLD_S else Level.OK), finding


_PARKED = text("SELECT count(*) FROM (SELECT 1 FROM dead_letters LIMIT 10000) parked")


def dead_letters(here: Services) -> Finding:
    """Messages that nobody could process."""
    with here.engine.connect() as conn:
        count = conn.execute(_PARKED).scalar_one()
        first = dead_letters_store.page(conn, limit=1)
    if not first:
        return Level.OK, "none"
    # A whole reason may quote a person's data.
    return Level.WARNING, f"{count} parked, for example: {first[0].kind}; see 'knocktwice dead list'"
