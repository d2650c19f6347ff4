"""A message that ends every worker that touches it is parked with its reason, and nothing that was with it is lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from knocktwice import Push, ReceiptEvent, Recipient, Sms
from knocktwice_shared.messages import Receipt
from knocktwice_shared.names import INBOX_BEGUN, INBOX_MESSAGES, INBOX_SUBJECTS
from oracle.judge import judge
from oracle.records import Evidence
from oracle.records_of_load import Parked, Poison
from oracle.violations import Violation
from support.poison import POISON
from support.system import PUSH, eventually

if TYPE_CHECKING:
    from uuid import UUID

    from knocktwice_worker.embedded.children import Child
    from support.system import System

#: How often a worker may die until the poison is parked: once unsuspecting, then as often as a suspect may be tried,
#: and as often again by a try that began too soon after another to count.
MOST_DEATHS = 10
PARKED = "SELECT count(*) FROM dead_letters WHERE reason LIKE 'ended its worker each time it was tried: %'"


def work_until(system: System, parked: int) -> int:
    """Start a worker whenever one has died, until so many messages are parked; return how many died."""
    for deaths in range(MOST_DEATHS):
        worker = system.start_worker("support.poisoned_worker")
        eventually(partial(_settled, system, worker, parked), why=system.logs)
        if worker.alive:
            return deaths
    raise AssertionError(f"{MOST_DEATHS} workers died\n{system.logs()}")


def _settled(system: System, worker: Child, parked: int) -> bool:
    return system.count(PARKED) == parked or not worker.alive


def put_aside(system: System) -> list[Parked]:
    """Return what was parked, as the judge knows it."""
    with system.engine.connect() as conn:
        rows = conn.exec_driver_sql(
            "SELECT extract(epoch FROM at)::float, task, reason, payload FROM dead_letters"
        ).all()
    return [Parked(*row) for row in rows]


def test_a_batch_that_kills_its_worker_is_parked_and_those_gathered_with_it_are_sent(system: System) -> None:
    def send(name: str, push: Push) -> UUID:
        return system.client.notify_many([Recipient(registrations=(f"{name}-phone",))], push=push)[0]

    before = [send(f"before-{n}", PUSH) for n in range(5)]
    send("bad", Push(POISON, "x"))
    after = [send(f"after-{n}", PUSH) for n in range(5)]
    deaths = work_until(system, parked=1)
    assert deaths >= 3
    for id_ in (*before, *after):
        assert system.ended(id_).state == "pushed", system.logs()
    (letter,) = parked = put_aside(system)
    assert letter.task == "knocktwice.send_push"
    assert POISON in letter.payload
    known = Evidence(letter.at, poisons=[Poison(letter.at, POISON, deaths)], parked=parked)
    assert judge(known) == []
    found = judge(replace(known, parked=[]))
    assert [finding.violation for finding in found] == [Violation.POISON]
    eventually(lambda: not any(map(system.redis.exists, (INBOX_MESSAGES, INBOX_BEGUN))), why=system.logs)


def test_a_receipt_that_kills_its_worker_also_in_a_decision_is_parked_and_the_decision_taken(system: System) -> None:
    system.settings["KNOCKTWICE_AWAIT_ACCEPTED_S"] = "0.5"
    (id_,) = system.client.notify_many(
        [Recipient(registrations=("silent-1",), phone="+16505550100")],
        push=PUSH,
        sms=Sms(when="not_clicked", after=timedelta(seconds=1)),
    )
    quiet = ReceiptEvent(notification=id_, kind=Receipt.DELIVERED, registration="silent-1", at=datetime.now(UTC))
    bad = ReceiptEvent(notification=id_, kind=Receipt.DELIVERED, registration=POISON, at=datetime.now(UTC))
    system.client.record_receipts([quiet])
    system.client.record_receipts([bad])
    work_until(system, parked=1)
    assert system.count("SELECT count(*) FROM dead_letters WHERE payload LIKE :bad", bad=f"%{POISON}%") == 1, (
        system.logs()
    )
    assert system.ended(id_).state == "texted", system.logs()
    assert system.count("SELECT count(*) FROM events WHERE notification_id = :id", id=id_) == 1
    eventually(lambda: not any(map(system.redis.exists, (INBOX_MESSAGES, INBOX_SUBJECTS, INBOX_BEGUN))))
