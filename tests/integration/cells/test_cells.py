"""Three installations that share people: who gets what, what is counted where, and what a cell that is away changes."""

from __future__ import annotations

import asyncio
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import redis

from knocktwice import AsyncClient, BrokerUnavailable, Client, InvalidMessage, Push, Recipient, Sms
from knocktwice_shared import cells as naming
from knocktwice_shared.ids import uuid7
from knocktwice_worker import services
from knocktwice_worker.cells import agreement
from knocktwice_worker.cells.neighbours import Neighbours
from knocktwice_worker.limits.asks import TAG
from knocktwice_worker.services import process
from support.cell_system import CellSystem, RunningCell, described, running_cells
from support.http_gateway import HttpGateway
from support.system import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from knocktwice_worker.embedded.servers import Servers
    from support.commands import CommandOutput

PUSH = Push("Hello", "there")
AT_ONCE = timedelta()
NUMBER = "+16505550177"


@pytest.fixture(scope="module")
def cells(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CellSystem]:
    with running_cells(servers, tmp_path_factory.mktemp("cells"), ("north", "south", "west")) as running:
        yield running


@pytest.fixture
def system(cells: CellSystem) -> CellSystem:
    cells.begin()
    return cells


@pytest.fixture
def client(system: CellSystem) -> Iterator[Client]:
    with Client(cells=system.file, timeout=2) as made:
        yield made


def text_to(client: Client, user: str, number: str, words: str, **more: Any) -> UUID:
    """Text somebody at once."""
    return client.notify(user=user, phone=number, sms=Sms(words), **more)


def states(system: CellSystem) -> dict[str, int]:
    """Return how many messages are in each state, in all cells together."""
    found: dict[str, int] = {}
    for cell in system.running:
        for row in cell.rows("SELECT state, count(*) AS n FROM deliveries WHERE step > 0 GROUP BY 1"):
            found[row.state] = found.get(row.state, 0) + row.n
    return found


def listed(cell: RunningCell) -> set[str]:
    return {row.number for row in cell.rows("SELECT number FROM opt_outs")}


def test_each_person_is_in_one_cell_and_the_id_says_which(system: CellSystem, client: Client) -> None:
    people = [f"person-{n}" for n in range(60)]
    ids = client.notify_many(
        [Recipient(user=p, registrations=(f"phone-of-{p}-registered",)) for p in people], push=PUSH
    )
    system.work()
    for person, id_ in zip(people, ids, strict=True):
        own = system.of(person)
        assert [str(row.id) for row in own.rows("SELECT id FROM notifications WHERE user_id = :u", u=person)] == [
            str(id_)
        ]
        cell = system.cells.of_id(id_)
        assert cell is not None
        assert cell.name == own.name
    counts = [cell.rows("SELECT count(*) AS n FROM notifications")[0].n for cell in system.running]
    assert sum(counts) == 60
    assert min(counts) > 5


def test_asyncio_routes_alike_and_a_cell_that_is_away_fails_only_its_own_people(system: CellSystem) -> None:
    away, *others = system.running
    away.valkey.kill()

    async def call() -> list[Any]:
        async with AsyncClient(cells=system.file, timeout=1) as client:
            people = [system.users(cell, 1)[0] for cell in system.running]
            calls = (client.notify(user=p, push=PUSH) for p in people)
            return list(await asyncio.gather(*calls, return_exceptions=True))

    outcomes = asyncio.run(call())
    assert isinstance(outcomes[0], BrokerUnavailable)
    assert [cell.accept() for cell in others] == [1, 1]
    assert all(isinstance(one, UUID) for one in outcomes[1:])


def test_a_key_notifies_once_and_the_others_of_a_failed_call_are_not_notified_twice(
    system: CellSystem, client: Client
) -> None:
    people = [Recipient(user=system.users(cell, 1)[0], key=f"key-{cell.name}") for cell in system.running]
    system.running[1].valkey.kill()
    with pytest.raises(BrokerUnavailable):
        client.notify_many(people, push=PUSH)
    system.running[1].valkey.start()
    ids = client.notify_many(people, push=PUSH)
    assert [id_.duplicate for id_ in ids] == [True, False, True]  # type: ignore[attr-defined]
    system.work()
    assert [cell.rows("SELECT count(*) AS n FROM notifications")[0].n for cell in system.running] == [1, 1, 1]


def test_a_cell_that_is_silent_is_not_asked_twice_while_the_texts_of_others_wait(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.setblocking(False)
        file = tmp_path / "cells.toml"
        file.write_text(described(["north"], [f"redis://127.0.0.1:{silent.getsockname()[1]}/0"], ["postgresql://"]))
        cells = naming.read(file)
        with pytest.raises(redis.TimeoutError):
            Neighbours(cells, "north").redis(cells.all[0]).ping()
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_an_id_of_the_callers_own_is_refused_because_it_would_not_say_whose_it_is(client: Client) -> None:
    with pytest.raises(InvalidMessage, match=r"recipients\[1\].id"):
        client.notify_many(["u-1", Recipient(user="u-2", id=uuid7())], push=PUSH)


def test_receipts_and_cancellations_find_the_cell_by_the_id_or_ask_all(system: CellSystem, client: Client) -> None:
    people = [system.users(cell, 1)[0] for cell in system.running]
    late = Sms("too late?", when="not_clicked", after=timedelta(hours=1))
    ids = [client.notify(user=p, registrations=[f"silent-{p}"], push=PUSH, sms=late, key=f"key of {p}") for p in people]
    system.work()
    client.record_clicked(ids[0])
    client.cancel(ids[1])
    assert [cell.accept() for cell in system.running] == [1, 1, 0]
    client.cancel(key=f"key of {people[2]}")
    system.work()
    found = [cell.rows("SELECT state FROM notifications")[0].state for cell in system.running]
    assert found == ["reached", "cancelled", "cancelled"]


def test_one_number_in_all_cells_gets_ten_texts_a_day(system: CellSystem, client: Client) -> None:
    system.count_as_on_any_later_day()
    people = [user for cell in system.running for user in system.users(cell, 6)]
    for n, person in enumerate(people):
        text_to(client, person, NUMBER, f"text {n}")
    system.work()
    assert states(system) == {"sent": 10, "skipped": 8}


def test_one_text_goes_to_a_number_once_in_30_seconds_whatever_cell_sends_it(
    system: CellSystem, client: Client
) -> None:
    system.count_as_on_any_later_day()
    for cell in system.running:
        text_to(client, system.users(cell, 1)[0], NUMBER, "the same")
    system.work()
    assert states(system) == {"sent": 1, "skipped": 2}


def test_while_the_home_of_a_number_is_away_its_texts_wait_and_other_numbers_get_theirs(
    system: CellSystem, client: Client
) -> None:
    home = system.home(NUMBER)
    sender = next(cell for cell in system.running if cell is not home)
    other = next(f"+165055501{n}" for n in range(10, 99) if system.home(f"+165055501{n}") is sender)
    one, two = system.users(sender, 2)
    text_to(client, one, NUMBER, "waits", category="critical")
    text_to(client, two, other, "goes")
    home.valkey.kill()
    sender.work()
    assert {row.number: row.state for row in sender.rows("SELECT number, state FROM deliveries WHERE step > 0")} == {
        None: "scheduled",
        other: "sent",
    }
    assert not [text for text in system.sandbox.texts(NUMBER) if text.body == "waits"]
    home.valkey.start()
    sender.again()
    sender.work()
    assert states(system) == {"sent": 2}


def test_a_wiped_home_counts_what_all_cells_have_sent(system: CellSystem, client: Client) -> None:
    home = system.home(NUMBER)
    first, second = (cell for cell in system.running if cell is not home)
    for n, person in enumerate(system.users(first, 9)):
        text_to(client, person, NUMBER, f"before {n}")
    system.work()
    assert states(system) == {"sent": 9}
    home.valkey.client.flushall()
    for n, person in enumerate(system.users(second, 3, "later")):
        text_to(client, person, NUMBER, f"after {n}")
    second.work()
    assert states(system) == {"sent": 9, "scheduled": 3}, "a wiped home does not know yet by which file it goes"
    neighbours = home.here.neighbours
    assert neighbours is not None
    agreement.restore(neighbours, home.here.agreement)
    second.again()
    second.work()
    assert states(system) == {"sent": 10, "skipped": 2}


def test_nobody_counts_by_another_file_until_it_is_adopted(system: CellSystem, client: Client) -> None:
    system.count_as_on_any_later_day()
    for cell in system.running:
        cell.valkey.client.set(agreement.AGREEMENT, "of an older file")
    text_to(client, system.users(system.running[0], 1)[0], NUMBER, "waits")
    system.work()
    assert states(system) == {"scheduled": 1}
    system.adopt()
    assert not system.home(NUMBER).valkey.client.exists(f"{TAG}:complete"), "the numbers have other homes"
    for cell in system.running:
        cell.again()
    system.work()
    assert states(system) == {"sent": 1}


def test_an_opt_out_holds_in_all_cells_and_one_that_is_away_is_told_when_it_is_back(
    system: CellSystem, client: Client
) -> None:
    *there, away = system.running
    away.valkey.kill()
    client.opt_out(NUMBER, source="letter of 3 May")
    for cell in there:
        cell.accept()
        assert listed(cell) == {NUMBER}
        settle(cell)
        with pytest.raises(BrokerUnavailable):
            cell.tell()
    away.valkey.start()
    there[0].tell()
    away.accept()
    assert listed(away) == {NUMBER}
    found = away.rows("SELECT source, opted_out FROM opt_out_changes")
    assert [(row.source, row.opted_out) for row in found] == [("letter of 3 May", True)]


def test_what_one_cell_was_told_by_a_person_all_learn_and_it_does_not_come_back(system: CellSystem) -> None:
    first, *others = system.running
    with first.here.engine.begin() as conn:
        conn.exec_driver_sql(
            "WITH listed AS (INSERT INTO opt_outs (number, source) VALUES (%(n)s, 'sms')) "
            "INSERT INTO opt_out_changes (number, opted_out, source, changed) VALUES (%(n)s, true, 'sms', true)",
            {"n": NUMBER},
        )
    for _ in range(3):
        for cell in system.running:
            settle(cell)
            cell.tell()
            cell.accept()
    assert [listed(cell) for cell in others] == [{NUMBER}, {NUMBER}]
    assert [len(cell.rows("SELECT FROM opt_out_changes")) for cell in system.running] == [1, 1, 1]


def test_an_opt_in_that_overtook_its_opt_out_wins_in_every_cell(system: CellSystem, client: Client) -> None:
    first, second, _ = system.running
    second.valkey.kill()
    client.opt_out(NUMBER)
    first.accept()
    second.valkey.start()
    client.opt_in(NUMBER)
    for cell in system.running:
        cell.accept()
    for cell in system.running:
        settle(cell)
        cell.tell()
    for cell in system.running:
        cell.accept()
        assert listed(cell) == set()


def test_without_any_cell_an_opt_out_is_not_accepted(system: CellSystem, client: Client) -> None:
    for cell in system.running:
        cell.valkey.kill()
    with pytest.raises(BrokerUnavailable):
        client.opt_out(NUMBER)


def test_a_device_on_which_somebody_of_another_cell_logs_in_is_theirs_alone(system: CellSystem, client: Client) -> None:
    one, two = (system.users(cell, 1)[0] for cell in system.running[:2])
    registration = "the-registration-of-a-shared-phone"
    client.register_device(one, registration)
    system.work()
    client.notify(user=two, registrations=[registration], push=PUSH)
    system.work()
    owners = [
        {row.user_id for row in cell.rows("SELECT user_id FROM devices WHERE registration = :r", r=registration)}
        for cell in system.running
    ]
    assert owners[1] == {two}
    assert one not in owners[0]


def test_a_blast_starts_in_all_cells_once_and_its_ids_say_whose_they_are(system: CellSystem, client: Client) -> None:
    for cell in system.running:
        for person in system.users(cell, 2, "member"):
            client.tag_user(person, {"club": True})
    system.work()
    for _ in range(2):
        client.blast({"field": "tags.club", "op": "=", "value": True}, key="club-evening", push=PUSH)
        system.work()
    for cell in system.running:
        ids = [UUID(str(row.id)) for row in cell.rows("SELECT id FROM notifications")]
        assert len(ids) == 2
        assert {of.name for id_ in ids if (of := system.cells.of_id(id_)) is not None} == {cell.name}


def test_any_gateway_takes_everybody_and_a_request_that_is_sent_again_notifies_nobody_twice(
    system: CellSystem,
) -> None:
    people = [system.users(cell, 1)[0] for cell in system.running]
    body = {"recipients": [{"user": person} for person in people], "push": {"title": "Hello", "body": "there"}}
    answers = []
    with HttpGateway(system.running[1].here) as gateway:
        caller = gateway.client()
        for _ in range(2):
            answer = caller.post("/v1/notifications", json=body, headers={"Idempotency-Key": "order-1"})
            assert answer.status_code == 202, answer.text
            answers.append(answer.json()["ids"])
    assert answers[0] == answers[1]
    assert [system.cells.of_id(UUID(id_)) for id_ in answers[0]] == list(system.cells.all)
    system.work()
    found = [[str(row.id) for row in cell.rows("SELECT id FROM notifications")] for cell in system.running]
    assert found == [[id_] for id_ in answers[0]]


def test_a_gateway_serves_the_people_of_other_cells_while_one_is_away(system: CellSystem) -> None:
    own, away, other = system.running
    away.valkey.kill()
    with HttpGateway(own.here) as gateway:
        caller = gateway.client()
        codes = {
            cell.name: caller.post(
                "/v1/notifications", json={"user": system.users(cell, 1)[0], "push": {"title": "t", "body": "b"}}
            ).status_code
            for cell in system.running
        }
        assert codes == {own.name: 202, away.name: 503, other.name: 202}
        assert caller.post("/v1/blasts", json={"segment": "all", "key": "b", "template": "t"}).status_code == 422
        assert caller.post("/onesignal/notifications", json={}).status_code == 404


def test_operators_see_the_notifications_of_all_cells_together(
    system: CellSystem, client: Client, run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [user for cell in system.running for user in system.users(cell, 3)]
    ids = [client.notify(user=person, registrations=[f"silent-{person}"], push=PUSH) for person in people]
    system.work()
    own = system.running[0].here.settings
    monkeypatch.setenv("KNOCKTWICE_SECRET", "test")
    monkeypatch.setenv("KNOCKTWICE_DATABASE_URL", str(own.database_url))
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL", str(own.broker_url))
    monkeypatch.setenv("KNOCKTWICE_CELLS_FILE", str(system.file))
    monkeypatch.setenv("KNOCKTWICE_CELL", "north")
    services.services().close()
    process._services.clear()
    shown: list[str] = []
    before: list[str] = []
    while len(shown) < 9:
        page = run("history", "--json", "--limit", "4", *before).json
        shown += [one["id"] for one in page["messages"]]
        before = ["--before", str(page["next"])]
    assert shown == sorted(map(str, ids), reverse=True)
    # Changes of the last second are counted by the next look.
    eventually(lambda: run("stats", "--json", "--fresh").json["total"]["accepted"] == 9)
    assert run("status", str(ids[8]), "--json").json["user"] == people[8]
    assert run("cells", "where", "--user", people[8]).out.strip() == "west"
    assert run("cells", "where", "--notification", str(ids[4])).out.strip() == "south"
    assert run("cells", "check").code == 0
    system.running[2].valkey.client.delete(agreement.AGREEMENT)
    checked = run("cells", "check", "--json")
    assert checked.code == 1
    assert [one["file"] for one in checked.json["cells"]] == ["in force", "in force", "none"]
    assert run("cells", "adopt").code == 0
    assert run("cells", "check").code == 0


def settle(cell: RunningCell) -> None:
    """Let the log of opt-outs be old enough to be read by those who follow it, and be read once more."""
    with cell.here.engine.begin() as conn:
        conn.exec_driver_sql("UPDATE opt_out_changes SET noted_at = noted_at - interval '1 minute'")
        conn.exec_driver_sql("UPDATE followers SET seen_until = seen_until - interval '1 hour'")
