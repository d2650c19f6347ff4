"""A batch is the unit of work: it costs the same number of queries, Redis calls and messages,
however many are in it.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Step, When, parse_batch
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.store import provider_statuses
from knocktwice_worker.runtime.dispatcher import dispatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis import Redis

    from knocktwice_shared.messages import Batch
    from knocktwice_shared.names import Task
    from knocktwice_worker.services import Services
    from support.clock import Clock

DELAY = timedelta(hours=1)
NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)


class Bill:
    """What was spent: SQL statements and Redis commands."""

    def __init__(self, here: Services, valkey: Redis) -> None:
        self.here = here
        self.valkey = valkey
        self.statements: list[str] = []
        for engine in (here.engine, here.senders):
            sa.event.listen(engine, "before_cursor_execute", self._note)

    @contextmanager
    def of(self, stage: str, spent: dict[str, tuple[int, int]]) -> Iterator[None]:
        self.statements.clear()
        before = self._commands()
        yield
        cost = len(self.statements), self._commands() - before
        # Of several tries the cheapest: on a busy machine a look may get too old, and is repeated.
        spent[stage] = min(spent.get(stage, cost), cost)

    def _note(self, _conn: object, _cursor: object, statement: str, *_: object) -> None:
        # Pauses are read twice a second (test_pauses.py), whatever happens meanwhile.
        if "FROM pauses" not in statement:
            self.statements.append(statement)

    def _commands(self) -> int:
        stats = self.valkey.info("commandstats")
        # What scripts call inside the server is no round trip, and neither is our own question.
        return sum(int(stats.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("evalsha", "eval"))


def _batch(people: int) -> Batch:
    first = 2_000_000 + uuid7().int % 6_000_000
    return parse_batch(
        {
            "v": 1,
            "id": str(uuid7()),
            "content": {"push": {"title": "t", "body": "{{ n }} of many"}},
            "plan": [{"channel": "sms", "when": "not_delivered", "after_s": DELAY.total_seconds()}],
            "recipients": [
                {
                    "id": str(uuid7()),
                    "registrations": [f"silent-{n}"],
                    "phone": f"+1650{first + n}",
                    "params": {"n": n},
                }
                for n in range(people)
            ],
        }
    )


def _cost(bill: Bill, clock: Clock, people: int) -> dict[str, tuple[int, int]] | None:
    """Take a batch all the way and return what each stage cost.

    ``None``: this machine stood still, so that a push or an SMS did not leave in time and is tried again.
    """
    spent: dict[str, tuple[int, int]] = {}
    here, batch = bill.here, _batch(people)
    published: list[tuple[Task, Sequence[str]]] = []
    with bill.of("send_push", spent):
        here.pushes.send(batch)
    clock.advance(DELAY + timedelta(seconds=1))
    with bill.of("dispatch", spent):
        dispatch(here, lambda task, ids: published.append((task, ids)))
    if len(published) > 1:
        _take_back(here)
        return None
    ((_, ids),) = published
    assert len(ids) == people
    with bill.of("check_fallback", spent):
        reserved = here.fallback.check(ids)
    with bill.of("send_sms", spent):
        here.later_steps.send(reserved)
    query = "SELECT count(*) FROM notifications WHERE batch_id = :id AND state = 'texted'"
    with here.engine.connect() as conn:
        texted = conn.execute(sa.text(query), {"id": batch.id}).scalar_one()
    if texted < people:
        _take_back(here)
        return None
    return spent


def _take_back(here: Services) -> None:
    """Delete what did not go all the way: it would be due beside the next batch."""
    with here.engine.begin() as conn:
        conn.execute(sa.text("TRUNCATE notifications, deliveries, attempts"))


def _least(cost: Callable[[], dict[str, tuple[int, int]] | None]) -> dict[str, tuple[int, int]]:
    """Return the least that each stage cost in three tries; of ten, some may have come to nothing."""
    tries = list(itertools.islice((one for _ in range(10) if (one := cost())), 3))
    assert len(tries) == 3
    return {stage: min(one[stage] for one in tries) for stage in tries[0]}


def test_a_template_costs_as_much_for_five_hundred_as_for_two(working: Services, valkey: Redis) -> None:
    bill, spent = Bill(working, valkey), dict[str, tuple[int, int]]()
    one = {"push": {"title": "t", "body": "{{ n }} of many"}}
    definition = templates.check("news", {"default_locale": "en", "contents": {"en": one, "de": one}})
    with working.engine.begin() as conn:
        template_store.put(conn, "news", definition)
    for people in (1, 2, *[500] * 3):
        recipients = [{"id": str(uuid7()), "user": f"u-{n}", "params": {"n": n}} for n in range(people)]
        for n, recipient in enumerate(recipients):
            recipient |= {"locale": "de-AT"} if n % 2 else {}
        wire = {"v": 1, "id": str(uuid7()), "content": {"template": "news"}, "recipients": recipients}
        with bill.of(f"{people}", spent):
            working.pushes.send(parse_batch(wire))
    assert spent["500"] == spent["2"]


def test_five_hundred_cost_as_many_round_trips_as_two(working: Services, valkey: Redis, clock: Clock) -> None:
    bill = Bill(working, valkey)
    # All on one day: the limits of Redis's first day cost a call more.
    clock.set(NOON)
    _cost(bill, clock, 1)  # connections, credentials, the limits' script and marker
    two, many = _least(lambda: _cost(bill, clock, 2)), _least(lambda: _cost(bill, clock, 500))
    assert many == two
    assert two["send_push"][0] > 0
    # One for the inbox, one for the limits, and on Redis's first day another one with what Postgres remembers.
    assert 2 <= two["check_fallback"][1] <= 3


def test_a_step_behind_another_costs_as_many_queries_for_fifty_as_for_two(working: Services, valkey: Redis) -> None:
    bill = Bill(working, valkey)

    def cost(people: int) -> dict[str, tuple[int, int]]:
        spent: dict[str, tuple[int, int]] = {}
        steps = (
            Step("whatsapp", When.NOT_DELIVERED, timedelta(), content={"content_sid": "HX" + "0" * 32}),
            Step("sms", When.NOT_CLICKED, DELAY),
        )
        batch = replace(_batch(people), plan=steps)
        ids = [str(recipient.id) for recipient in batch.recipients]
        working.pushes.send(batch)
        with bill.of("check_fallback", spent):
            assert working.fallback.check(ids) == sorted(ids)
        with bill.of("send_sms", spent):
            assert sorted(working.later_steps.send(ids)) == sorted(ids)
        with bill.of("withdraw", spent):
            working.withdrawals.withdraw(ids)
        query = "SELECT provider_id FROM deliveries WHERE step = 1 AND notification_id = ANY(CAST(:ids AS uuid[]))"
        with working.engine.connect() as conn:
            sids = conn.execute(sa.text(query), {"ids": ids}).scalars().all()
        reports = [
            StatusReport("twilio", sid, status, datetime.now(UTC))
            for sid in sids
            for status in (ProviderState.READ, ProviderState.DELIVERED)
        ]
        with bill.of("statuses", spent), working.engine.begin() as conn:
            assert provider_statuses.record(conn, reports) == set()
        with working.engine.connect() as conn:
            reached = sa.text("SELECT count(*) FROM notifications WHERE batch_id = :id AND state = 'reached'")
            assert conn.execute(reached, {"id": batch.id}).scalar_one() == people
        return spent

    cost(1)
    assert cost(50) == cost(2)


def test_many_small_batches_cost_as_many_queries_as_one(working: Services, valkey: Redis) -> None:
    bill = Bill(working, valkey)

    def cost(batches: int) -> int:
        intakes = [store.Intake(_batch(1), {}, DELAY) for _ in range(batches)]
        spent: dict[str, tuple[int, int]] = {}
        with bill.of("accept", spent), working.engine.begin() as conn:
            assert len(store.accept(conn, intakes, lease=DELAY)) == batches
        return spent["accept"][0]

    cost(1)
    assert cost(50) == cost(1)
