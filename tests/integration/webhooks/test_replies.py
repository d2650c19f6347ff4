"""An application answers a person's text in its answer to the webhook: once, within the limits, and never a STOP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from knocktwice_worker.audience import inbound_texts, opt_outs
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.services import Services
from knocktwice_worker.webhooks import replies

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.sandbox import Sandbox

NUMBER = "+16505550100"


@pytest.fixture
def answering(working: Services) -> Iterator[Services]:
    built = Services(working.settings.model_copy(update={"inbound_replies_per_h": 2}))
    yield built
    built.close()


def _write(here: Services, id_: str, number: str = NUMBER, wish: Wish | None = None, channel: str = "sms") -> str:
    with here.engine.begin() as conn:
        inbound_texts.receive(
            conn, [InboundText(id_, number, wish, "hello", "twilio", channel, "+15005550006")], b"test"
        )
        found = conn.execute(sa.text("SELECT id FROM inbound_texts WHERE provider_id = :id"), {"id": id_})
        return str(found.scalar_one())


def _answer(here: Services, inbound: str, reply: str) -> None:
    here._reply(inbound, reply)
    here.fallback.check([inbound])
    here.later_steps.send([inbound])


def test_a_reply_is_texted_once_as_it_was_written(answering: Services, sandbox: Sandbox) -> None:
    inbound = _write(answering, "SM1")
    for _ in range(3):
        _answer(answering, inbound, "Open until six, {{ name }}. {% if %}")
    assert [text.body for text in sandbox.texts(NUMBER)] == ["Open until six, {{ name }}. {% if %}"]
    with answering.engine.connect() as conn:
        rows = conn.execute(sa.text("SELECT state, key FROM notifications")).all()
    assert [tuple(row) for row in rows] == [("texted", f"reply:{inbound}")]


def test_a_reply_to_a_projects_own_sender_is_the_projects(answering: Services) -> None:
    text = InboundText("SM1", NUMBER, None, "hello", "twilio", "sms", "+15005550016", "amber")
    with answering.engine.begin() as conn:
        inbound_texts.receive(conn, [text], b"test")
        inbound = str(conn.execute(sa.text("SELECT id FROM inbound_texts")).scalar_one())
    _answer(answering, inbound, "Yes.")
    with answering.engine.connect() as conn:
        assert conn.execute(sa.text("SELECT project FROM notifications")).scalars().all() == ["amber"]


def test_keywords_short_codes_other_channels_and_who_opted_out_get_no_reply(
    answering: Services, sandbox: Sandbox
) -> None:
    for id_, more in {
        "SM1": {"wish": Wish.START},
        "SM2": {"wish": Wish.STOP},
        "SM3": {"number": "12345"},
        "SM4": {"channel": "pigeon"},
    }.items():
        _answer(answering, _write(answering, id_, **more), "Hello")  # type: ignore[arg-type]
    with answering.engine.begin() as conn:
        opt_outs.add(conn, ["+16505550101"], "letter")
    _answer(answering, _write(answering, "SM5", "+16505550101"), "Hello")
    assert sandbox.texts(NUMBER) == sandbox.texts("+16505550101") == []


def test_two_machines_do_not_answer_each_other_for_ever(answering: Services, sandbox: Sandbox) -> None:
    for n in range(5):
        _answer(answering, _write(answering, f"SM{n}"), f"Answer {n}")
    assert [text.body for text in sandbox.texts(NUMBER)] == ["Answer 0", "Answer 1"]


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (b'{"reply": "Hi"}', "Hi"),
        (b'{"reply": " "}', None),
        (b'{"reply": {"text": "Hi"}}', None),
        (json.dumps({"reply": "x" * 2_000}).encode(), None),
        (b'["reply"]', None),
        (b"ok", None),
        (b"", None),
        (b"[" * 100_000, None),
        (b"\xff", None),
    ],
)
def test_only_an_answer_that_says_so_is_a_reply(body: bytes, reply: str | None) -> None:
    assert replies.wanted(body) == reply
