"""Servers that stop, forget or lie: nothing is lost, nobody gets two SMS, and nobody restarts a worker by hand."""

from __future__ import annotations

import json
import signal
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from knocktwice import Push, Recipient, Sms
from knocktwice_shared.names import INBOX_BEGUN, INBOX_MESSAGES, Queue
from knocktwice_worker.runtime.publishing import AGAIN
from knocktwice_worker.sandbox import Answer, Rule
from support.system import PUSH, eventually, verdicts

if TYPE_CHECKING:
    from knocktwice_worker.embedded.servers import EmbeddedServers
    from support.system import System

NUMBERS = [f"+1650555{n:04}" for n in range(300, 340)]
PEOPLE = [Recipient(registrations=(f"silent-{number}",), phone=number) for number in NUMBERS]
SOON = Sms(when="not_delivered", after=timedelta(seconds=1))
AT_ONCE = Sms(when="not_delivered", after=timedelta())


def _all_texted_once(system: System, ids: list[UUID]) -> None:
    for id_, number in zip(ids, NUMBERS, strict=True):
        assert system.ended(id_).state == "texted", system.logs()
        assert len(system.sandbox.texts(number)) == 1


def _knock(system: System) -> list[UUID]:
    """Forty people in four batches; returns when they are in Postgres."""
    ids: list[UUID] = []
    for first in range(0, len(PEOPLE), 10):
        ids += system.client.notify_many(PEOPLE[first : first + 10], push=PUSH, sms=SOON)
    written = "SELECT count(*) FROM notifications"
    eventually(lambda: system.count(written) == len(PEOPLE), why=system.logs)
    return ids


def test_valkey_killed_and_started_again(system: System, doomed: EmbeddedServers) -> None:
    system.start_worker()
    ids = _knock(system)
    doomed.valkey.kill()
    doomed.valkey.start()
    _all_texted_once(system, ids)
    assert len(system.workers) == 1


def test_valkey_emptied(system: System) -> None:
    system.start_worker()
    ids = _knock(system)
    system.redis.flushall()
    _all_texted_once(system, ids)


def test_postgres_stopped_at_once_and_started_again(system: System, doomed: EmbeddedServers) -> None:
    system.start_worker()
    ids = _knock(system)
    doomed.postgres.restart(by=signal.SIGQUIT)
    _all_texted_once(system, ids)
    assert all(worker.alive for worker in system.workers)


def test_postgres_stopped_before_a_message_is_written(system: System, doomed: EmbeddedServers) -> None:
    worker = system.start_worker()
    eventually(lambda: "ready" in worker.log_tail(50), why=system.logs)
    doomed.postgres.stop(by=signal.SIGQUIT)
    ids = system.client.notify_many(PEOPLE, push=PUSH, sms=SOON)
    eventually(lambda: "task failed" in worker.log_tail(200), why=system.logs)
    doomed.postgres.start()
    _all_texted_once(system, ids)


def test_a_message_lost_between_queue_and_worker_comes_from_the_inbox(system: System) -> None:
    ids = system.client.notify_many(PEOPLE, push=PUSH, sms=SOON)
    # What Celery on Redis does when it is killed between taking a message and noting that it did.
    assert system.redis.rpop("knocktwice.push")
    system.start_worker()
    _all_texted_once(system, ids)


def test_what_comes_again_after_an_outage_is_carried_out_together(system: System) -> None:
    ids = [str(system.client.notify(registrations=[f"silent-again-{n}"], push=PUSH)) for n in range(60)]
    queue, redis = Queue.PUSH.value, system.redis
    for _ in ids:
        message = json.loads(redis.rpop(queue))  # type: ignore[arg-type]
        message["headers"][AGAIN] = True
        redis.lpush(queue, json.dumps(message))
    system.start_worker()
    for id_ in ids:
        assert system.ended(UUID(id_)).state == "pushed", system.logs()
    assert system.count("SELECT count(DISTINCT xmin::text) FROM batches") < len(ids) / 2
    eventually(lambda: not any(map(redis.exists, (INBOX_MESSAGES, INBOX_BEGUN))), why=system.logs)


def test_a_broker_that_was_looked_for_in_vain_is_found_again(system: System, doomed: EmbeddedServers) -> None:
    worker = system.start_worker()
    _all_texted_once(system, _knock(system))
    doomed.valkey.stop()
    # The fourth attempt, after 1, 2 and 3 seconds; from then on there is one every three seconds.
    eventually(lambda: "Trying again in 3.00 seconds... (4/" in worker.log_tail(5000), why=system.logs)
    assert worker.alive, system.logs()
    doomed.valkey.start()
    id_ = system.notify("+16505550399", sms=AT_ONCE)
    assert system.ended(id_).state == "texted"
    assert worker.alive


@pytest.mark.parametrize(
    "answer",
    [Answer(status=500, accept=True), Answer(drop=True, accept=True), Answer(hang=True, accept=True)],
    ids=["answers 500", "closes the connection", "never answers"],
)
@pytest.mark.parametrize("lag", [0, 2], ids=["listed at once", "listed late"])
def test_a_provider_that_takes_the_sms_and_does_not_say_so(system: System, answer: Answer, lag: int) -> None:
    number = NUMBERS[0]
    system.sandbox.rule(Rule("sms", times=1, answer=answer))
    if lag:
        system.sandbox.rule(Rule("list", times=lag, answer=Answer(empty=True)))
    system.settings["KNOCKTWICE_SMS_UNKNOWN_GRACE_S"] = "30"
    system.start_worker()
    told = system.ended(system.notify(number, sms=AT_ONCE))
    assert told.state == "texted", system.logs()
    assert "adopted" in verdicts(told)
    assert told.steps[1].provider_id == system.sandbox.texts(number)[0].sid
    assert len(system.sandbox.texts(number)) == 1


@pytest.mark.parametrize(
    "answer",
    [Answer(status=500), Answer(drop=True), Answer(hang=True)],
    ids=["answers 500", "closes the connection", "never answers"],
)
def test_an_sms_that_the_list_lacks_is_sent_again(system: System, answer: Answer) -> None:
    system.sandbox.rule(Rule("sms", times=1, answer=answer))
    system.start_worker()
    told = system.ended(system.notify(NUMBERS[0], sms=AT_ONCE))
    assert told.state == "texted", system.logs()
    assert "sent_again" in verdicts(told)
    assert len(system.sandbox.texts(NUMBERS[0])) == 1


def test_a_provider_that_asks_for_patience_gets_it(system: System) -> None:
    system.sandbox.rule(Rule("sms", times=2, answer=Answer(error_code=20429, status=429, retry_after=1)))
    system.sandbox.rule(Rule("push", times=2, answer=Answer(error_code="QUOTA_EXCEEDED", retry_after=1)))
    system.start_worker()
    told = system.ended(system.notify(NUMBERS[0], sms=Sms(when="not_clicked", after=timedelta(seconds=8))))
    assert told.state == "texted", system.logs()
    assert len(system.sandbox.pushes(f"silent-{NUMBERS[0][1:]}")) == 1
    assert len(system.sandbox.texts(NUMBERS[0])) == 1
    assert system.sandbox.requests("sms") == 3


def test_who_opted_out_at_the_provider_is_not_texted_again(system: System) -> None:
    system.sandbox.rule(Rule("sms", times=1, answer=Answer(error_code=21610)))
    system.start_worker()
    first = system.ended(system.notify(NUMBERS[0], sms=AT_ONCE))
    assert (first.state, first.reason) == ("suppressed", "opted_out")
    (id_,) = system.client.notify_many(PEOPLE[:1], push=Push("b", "another text"), sms=AT_ONCE)
    assert (system.ended(id_).state, system.sandbox.requests("sms")) == ("suppressed", 1)


def test_the_daily_limit_outlives_an_emptied_valkey(system: System) -> None:
    system.start_worker()
    number = NUMBERS[0]
    for n in range(14):
        if n in (4, 9, 12):
            system.redis.flushall()
        (id_,) = system.client.notify_many(PEOPLE[:1], push=Push("t", f"text {n}"), sms=AT_ONCE)
        told = system.ended(id_)
        assert told.state == ("texted" if n < 10 else "suppressed"), system.logs()
    assert told.reason == "capped_daily"
    assert len(system.sandbox.texts(number)) == 10
