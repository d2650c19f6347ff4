"""Redis forgets what nobody needs any more: every key of ours has an end, unless it holds what waits to be done."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from knocktwice import Client, Push, Sms
from knocktwice_shared.ids import uuid7
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.channels.outbound.provider_choice import Providers, Why
from knocktwice_worker.channels.outcomes import Retry, Sent
from knocktwice_worker.gateway.intake import idempotency
from knocktwice_worker.sandbox import Answer, Rule
from knocktwice_worker.services import Services
from support.redis_clock import RedisClock
from support.redis_keys import ours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.sandbox import Sandbox

#: The longest that any of the others needs: a producer's idempotency key.
LONGEST = timedelta(days=7)


@pytest.fixture
def limited(working: Services) -> Iterator[Services]:
    """An installation that limits and paces all it can."""
    built = Services(working.settings.model_copy(update={"sms_budget": 2}))
    yield built
    built.close()


def live(here: Services, sandbox: Sandbox, client: Client) -> None:
    """Let everything happen that leaves something in Redis."""
    sandbox.rule(Rule("push", times=1, answer=Answer(status=429, retry_after=1)))
    for n in range(4):
        who = {"registrations": [f"silent-{n}"], "phone": "+16505550100", "key": f"key-{n}"}
        client.notify(push=Push("t", "b"), sms=Sms(after=timedelta(), text=f"text {n % 3}"), **who)  # type: ignore[arg-type]
    entries: dict[bytes, bytes] = here.redis.hgetall(INBOX_MESSAGES)  # type: ignore[assignment]
    for id_, raw in sorted(entries.items()):
        entry = json.loads(raw)
        here.inbox.carry_out(Task.SEND_PUSH, id_.decode(), entry["message"], here.accepted[Task.SEND_PUSH])
    sandbox.rule(Rule("sms", times=1, answer=Answer(status=429, retry_after=1)))
    with here.engine.connect() as conn:
        ids = [str(id_) for id_ in conn.exec_driver_sql("SELECT id FROM notifications").scalars()]
    here.later_steps.send(here.fallback.check(ids))
    claim = idempotency.claim("owner", "key", {"a": 1}, uuid7())
    idempotency.hold(here.redis, [claim])
    idempotency.finish(here.redis, [(claim, claim.batch)])
    minute = timedelta(minutes=1)
    choice = Providers(here.redis, {"a": 1, "b": 1}, share=0.5, sample=2, pause=minute, patience=minute)
    choice.note([("a", Why.WEIGHT, Sent("1"))])
    choice.note([("b", Why.WEIGHT, Retry("broken", None))] * 5)
    choice.choose([(str(uuid7()), None, 0)])


@pytest.mark.parametrize("since_today", [True, False])
def test_every_key_has_an_end(limited: Services, sandbox: Sandbox, valkey_url: str, since_today: bool) -> None:
    """Whether the server was started today, so that Postgres is asked what it counted, or long ago."""
    redis = limited.redis
    if not since_today:
        server = redis.info("server")["run_id"]
        redis.hset("{knocktwice:sms}:complete", mapping={"run": server, "complete": 0})
    with Client(valkey_url) as client:
        live(limited, sandbox, client)
    left = ours(redis)
    kinds = {
        "knocktwice:key:", "knocktwice:pace:", "knocktwice:idempotency:", "knocktwice:{providers}:",
        "{knocktwice:sms}:content:", "{knocktwice:sms}:day:", "{knocktwice:sms}:budget:",
    }  # fmt: skip
    assert {kind for kind in kinds for name in left if name.startswith(kind)} == kinds
    assert {name: s for name, s in left.items() if not 0 < s <= LONGEST.total_seconds()} == {}
    RedisClock(redis).advance(LONGEST)
    assert ours(redis) == {}
