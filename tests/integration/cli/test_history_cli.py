"""The history and the parked messages on the command line."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import PhoneBound, parse_batch
from knocktwice_shared.names import INBOX_MESSAGES, Task
from knocktwice_worker.audience import people
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.switches import audit
from support.crowd import Crowd
from support.store_book import AT

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput

WHY = ("--reason", "the template exists now")
NUMBER = "+16505550100"


def _batch(**recipient: Any) -> dict[str, Any]:
    recipients = [{"id": str(uuid7()), **recipient}]
    return {
        "v": 1,
        "id": str(uuid7()),
        "content": {"sms": {"text": f"Hi {uuid7()}"}},
        "only": "sms",
        "recipients": recipients,
    }


def _sent(here: Services, **recipient: Any) -> str:
    wire = _batch(**recipient)
    here.pushes.send(parse_batch(wire))
    id_: str = wire["recipients"][0]["id"]
    here.later_steps.send(here.fallback.check([id_]))
    return id_


def _ids(said: CommandOutput) -> list[str]:
    return [one["id"] for one in json.loads(said.out)["messages"]]


def test_the_history_is_asked_by_person_number_key_and_provider_id_page_by_page(
    working: Services, run: Callable[..., CommandOutput]
) -> None:
    with working.engine.begin() as conn:
        people.apply(conn, [PhoneBound("ada", NUMBER, AT)])
    first, second = _sent(working, user="ada"), _sent(working, phone=NUMBER, key="order 1")
    other = _sent(working, phone="+16505550101")
    assert _ids(run("history", "--json")) == [other, second, first]
    assert _ids(run("history", "--phone", "+1 650 555-0100", "--json")) == [second, first]
    assert _ids(run("history", "--user", "ada", "--json")) == [first]
    assert _ids(run("history", "--key", "order 1", "--json")) == [second]
    assert _ids(run("history", "--state", "texted", "--since", "1h", "--json")) == [other, second, first]
    page = json.loads(run("history", "--limit", "1", "--json").out)
    assert _ids(run("history", "--limit", "1", "--before", page["next"], "--json")) == [second]
    with working.engine.connect() as conn:
        sid = conn.exec_driver_sql(f"SELECT provider_id FROM deliveries WHERE notification_id = '{other}'").scalar_one()  # noqa: S608
    assert _ids(run("history", "--provider-id", sid, "--json")) == [other]
    assert _ids(run("history", "--provider-id", "SMnone", "--json")) == []
    assert _ids(run("history", "--blast", "none", "--json")) == []
    said = run("history", "--phone", NUMBER)
    assert "a number: texted" in said.out
    assert NUMBER not in said.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reported", "lost"), "reported: must be one of "),
        (("--since", "soon"), "since: must be a day"),
        (("--before", "x"), "before: must be the id"),
        (("--phone", "12"), "phone: "),
    ],
)
def test_a_filter_that_means_nothing_is_refused(
    run: Callable[..., CommandOutput], words: tuple[str, ...], said: str
) -> None:
    refused = run("history", *words)
    assert refused.code == 1
    assert said in refused.err


def test_a_parked_message_is_shown_masked_replayed_once_and_dropped(
    working: Services, run: Callable[..., CommandOutput], valkey: Redis
) -> None:
    wire = _batch(phone=NUMBER)
    with working.engine.begin() as conn:
        for task, payload in ((Task.SEND_PUSH, json.dumps(wire)), (Task.CHECK_FALLBACK, "[[[]], {}, {}]"), (None, "x")):
            dead_letters.park(conn, message_id=None, task=task, reason=f"wrong: {NUMBER}", payload=payload)
    listed = json.loads(run("dead", "list", "--json").out)
    assert [(one["id"], one["reason"]) for one in listed] == [(1, "wrong"), (2, "wrong"), (3, "wrong")]
    assert "knocktwice.send_push: the field wrong is wrong" in run("dead", "list").out
    for found, *words in (
        ([1], "--queue", "knocktwice.push"),
        ([2], "--task", "knocktwice.check_fallback", "--error", "WRONG", "--since", "1h"),
        ([], "--user", "u-17"),
        ([], "--until", "1h"),
    ):
        assert [one["id"] for one in json.loads(run("dead", "list", *map(str, words), "--json").out)] == found
    assert NUMBER not in run("dead", "list").out + run("dead", "show", "1").out
    assert NUMBER in run("dead", "show", "1", "--payload").out
    for number in ("2", "3"):
        assert "drop it" in run("dead", "replay", number, *WHY).err
    assert run("dead", "replay", "1", *WHY).code == 0
    assert "no parked message 1" in run("dead", "replay", "1", *WHY).err
    assert valkey.hlen(INBOX_MESSAGES) == 1
    handed: list[tuple[Task, object, str]] = []
    # The next sweep of any worker hands it over; the row is written once.
    working.inbox.sweep(lambda task, message, id_: handed.append((task, message, id_)))
    ((task, message, id_),) = handed
    for _ in range(2):
        working.inbox.carry_out(task, id_, message, working.accepted[task])
    assert _ids(run("history", "--phone", NUMBER, "--json")) == [wire["recipients"][0]["id"]]
    assert valkey.hlen(INBOX_MESSAGES) == 0
    assert run("dead", "drop", "2", "--yes", *WHY).code == 0
    assert "reason: say why" in run("dead", "drop", "3", "--yes").err
    assert [one["id"] for one in json.loads(run("dead", "list", "--json").out)] == [3]
    with working.engine.connect() as conn:
        assert [line.action for line in audit.lines(conn)] == ["drop", "replay"]


def test_a_message_in_the_body_of_a_celery_message_is_replayed_too(
    working: Services, run: Callable[..., CommandOutput]
) -> None:
    wire = _batch(phone=NUMBER)
    with working.engine.begin() as conn:
        body = json.dumps([[wire], {}, {"callbacks": None}])
        dead_letters.park(conn, message_id="m-1", task=Task.SEND_PUSH, reason="message cannot be read", payload=body)
    assert run("dead", "replay", "1", *WHY).code == 0
    handed: list[object] = []
    working.inbox.sweep(lambda _, message, id_: handed.append((message, id_)))
    assert handed == [(wire, "m-1")]


def test_a_parked_message_is_not_lost_by_a_replay_without_a_broker(
    working: Services, run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    with working.engine.begin() as conn:
        dead_letters.park(conn, message_id="m", task=Task.SEND_PUSH, reason="wrong", payload=json.dumps(_batch()))
        (one,) = dead_letters.page(conn)

    def gone(*_: object, **__: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(working.redis, "time", gone)
    with pytest.raises(ConnectionError):
        working.inbox.replay(one)
    assert len(json.loads(run("dead", "list", "--json").out)) == 1


def test_a_blast_has_a_history_and_a_cost_so_far(
    working: Services, clock: Clock, run: Callable[..., CommandOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KNOCKTWICE_SMS_PRICES", '{"*": 0.02}')
    crowd = Crowd(working, clock)
    ids = crowd.push(3, blast="sale", after=timedelta(minutes=2))
    crowd.push(1)
    clock.advance(timedelta(minutes=5))
    assert len(working.later_steps.send(working.fallback.check(sorted(ids)[:2]))) == 2
    assert sorted(_ids(run("history", "--blast", "sale", "--json"))) == sorted(ids)
    clock.advance(timedelta(minutes=5))
    told = json.loads(run("blast", "cost", "sale", "--json").out)
    assert (told["sms_sent"], told["cost"], told["state"]) == (2, "0.0400", "finished")
    assert "cost so far             0.0400" in run("blast", "cost", "sale").out
    assert run("pause", "sms", *WHY).code == 0
    assert "paused: sms since" in run("stats").out
