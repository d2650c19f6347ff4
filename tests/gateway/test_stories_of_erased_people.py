"""Whatever became of a person since, what is asked about their notifications has an answer, and none names them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice import Client, Push, Sms
from knocktwice_shared.names import INBOX_MESSAGES, Task
from support.http_gateway import HttpGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from knocktwice_worker.services import Services
    from support.commands import CommandOutput

    Run = Callable[..., CommandOutput]

NUMBER, DEVICE = "+16505550100", "silent-device-of-ada"
BLAST = """
WITH b AS (
  INSERT INTO blasts (id, key, filter, message, state, finished_at)
  VALUES (gen_random_uuid(), 'week-47', '{}', '{}', 'finished', now()) RETURNING id
)
INSERT INTO blast_pages (id, last_id, blast_id, count)
SELECT n.batch_id, n.id, b.id, 1 FROM notifications n, b WHERE n.id = :id
"""


@pytest.fixture
def client(valkey_url: str) -> Iterator[Client]:
    with Client(valkey_url) as client:
        yield client


def take(here: Services, task: Task) -> None:
    entries: dict[bytes, bytes] = here.redis.hgetall(INBOX_MESSAGES)  # type: ignore[assignment]
    for id_, raw in sorted(entries.items()):
        entry = json.loads(raw)
        if entry["task"] == task:
            here.inbox.carry_out(task, id_.decode(), entry["message"], here.accepted[task])


def _texted(client: Client, here: Services, *, to: str, texted: bool = True) -> UUID:
    client.register_device("ada", DEVICE)
    client.bind_phone("ada", NUMBER)
    take(here, Task.UPDATE_AUDIENCE)
    sms = Sms("Ready.", when="not_clicked", after=timedelta() if texted else timedelta(hours=1))
    who = {"user": {"user": "ada"}, "device": {"registrations": [DEVICE]}, "number": {"phone": NUMBER}}[to]
    push = None if to == "number" else Push("t", "b")
    id_ = client.notify(**who, push=push, sms=sms, key=f"order of {NUMBER}")  # type: ignore[arg-type]
    take(here, Task.SEND_PUSH)
    if texted:
        here.later_steps.send(here.fallback.check([str(id_)]))
    return id_


def _erased(client: Client, here: Services) -> None:
    client.erase_user("ada")
    take(here, Task.UPDATE_AUDIENCE)


def _unbound(client: Client, here: Services) -> None:
    client.bind_phone("ada", None)
    take(here, Task.UPDATE_AUDIENCE)


@pytest.mark.parametrize("become", [_erased, _unbound])
@pytest.mark.parametrize(("to", "texted"), [("user", True), ("user", False), ("device", True), ("number", True)])
@pytest.mark.parametrize("blast", [False, True])
def test_every_door_answers(
    client: Client,
    working: Services,
    run: Run,
    become: Callable[[Client, Services], None],
    to: str,
    texted: bool,
    blast: bool,
) -> None:
    id_ = _texted(client, working, to=to, texted=texted)
    if blast:
        with working.engine.begin() as conn:
            conn.execute(sa.text(BLAST), {"id": id_})
    become(client, working)
    with HttpGateway(working) as running:
        asked = running.client()
        told = asked.get(f"/v1/notifications/{id_}")
        history = asked.get("/v1/messages")
        blasts = [asked.get(f"/v1/blasts/{key}") for key in ("week-47",) if blast]
    explained = run("explain", str(id_))
    assert [a.status_code for a in (told, history, *blasts)] == [200] * (2 + blast)
    assert [run("status", str(id_)).code, run("explain", str(id_), "--json").code, explained.code] == [0, 0, 0]
    (entry,) = history.json()["messages"]
    assert (
        told.json()["state"]
        == entry["state"]
        == ("texted" if texted else "cancelled" if become is _erased else "active")
    )
    said = told.text + history.text + explained.out
    assert NUMBER not in said or become is _unbound
    if become is _erased:
        assert entry["user"] is entry["key"] is None
        assert DEVICE[-6:] not in told.text


@pytest.mark.usefixtures("configured")
@pytest.mark.parametrize("wanted", ["", " ", "nobody", "order/1", "ünï 💬", "x" * 5_000, "{}", "-- ", "[bold]"])
def test_what_is_unknown_is_said_in_a_line(run: Run, wanted: str) -> None:
    for command in ("status", "explain"):
        said = run(command, "--", wanted)
        assert (said.code, said.err.count("\n")) == (1, 1), said.err
        assert "no notification" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "\udcff"),
        ("status", "a\udc80b"),
        ("user", "show", "\udcff"),
        ("cancel", "--key", "\udcff"),
        ("opt-out", "add", "\udcff"),
        ("blast", "status", "\udcff"),
        ("notify", "--user", "\udcff", "--title", "t", "--body", "b"),
        ("notify", "--user", "u", "--title", "t\udcff", "--body", "b"),
    ],
)
def test_words_that_are_no_utf_8_are_refused(run: Run, words: tuple[str, ...]) -> None:
    said = run(*words)
    assert (said.code, said.err.count("\n"), "is not UTF-8" in said.err) == (2, 1, True)


@pytest.mark.parametrize(
    ("wanted", "status"),
    [("019a9d3c-5a00-7000-8000-000000000001", 404), ("1", 422), ("%FF", 422), ("%00", 422), ("..%2F", 422)],
)
def test_what_is_unknown_is_a_problem(gateway: HttpGateway, wanted: str, status: int) -> None:
    answer = gateway.client().get(f"/v1/notifications/{wanted}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
