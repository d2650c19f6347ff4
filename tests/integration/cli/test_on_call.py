"""Questions at night: an operator has one command for each, and the answer stands in the first lines
of what it says.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import parse_batch
from knocktwice_shared.names import Queue, Task
from knocktwice_worker.channels.outcomes import Retry
from knocktwice_worker.fleet import members
from knocktwice_worker.fleet.members import Member
from knocktwice_worker.notifications.inbox import dead_letters
from support.crowd import Crowd

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.commands import CommandOutput

NUMBER = "+16505550100"

#: Question → the one command, and words of its answer. They are asked in this order, of one installation.
QUESTIONS = {
    "Are SMS going out, and what do they cost?": ("stats --fresh --since 1d", ("sms sent", "0.0400")),
    "Which provider fails, and what is wrong?": ("doctor", ("refusals", "Twilio 401")),
    "What did this person get?": ("history --user ada", ("ada: suppressed",)),
    "And this number?": (f"history --phone {NUMBER}", ("a number: texted",)),
    "And everybody, lately?": ("history --limit 5", ("LOST", "ADA")),
    "Why did she get no SMS?": ("explain ADA", ("No phone number is known: no SMS.",)),
    "What has this blast cost so far?": ("blast cost sale", ("cost so far             0.0400",)),
    "Stop everything, now.": ("pause all WHY", ("pause 1 is on: all channels",)),
    "What is paused?": ("switches", ("all channels since", "a bad night")),
    "Who did that?": ("audit", ("pause 1", "a bad night")),
    "Go on.": ("resume all WHY", ("ended: pause 1",)),
    "Stop all SMS.": ("pause sms WHY", ("pause 2 is on: sms",)),
    "SMS may go again.": ("resume sms WHY", ("ended: pause 2",)),
    "What could nobody process?": ("dead list", ("knocktwice.cancel: failed 5 times",)),
    "What is wrong with it?": ("dead show 1", ("failed 5 times",)),
    "Try it again.": ("dead replay 1 WHY", ("1 is handed to the workers again",)),
    "Forget the other one.": ("dead drop 2 --yes WHY", ("2 is forgotten",)),
    "Of which does nobody know whether they went out?": ("unknown list", ("LOST",)),
    "Send these again.": ("unknown send --all WHY", ("1",)),
}

_LOSE = (
    "UPDATE deliveries SET state = 'unknown' WHERE notification_id = :id AND step = 1",
    "UPDATE notifications SET state = 'unknown' WHERE id = :id",
)


@pytest.fixture
def ids(working: Services, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An installation on a bad night; word in capitals → the id that stands there."""
    monkeypatch.setenv("KNOCKTWICE_SMS_PRICES", '{"*": 0.02}')
    crowd = Crowd(working, clock)
    sale = sorted(crowd.push(3, blast="sale", after=timedelta(minutes=2)))
    clock.advance(timedelta(minutes=5))
    assert len(working.later_steps.send(working.fallback.check(sale[:2]))) == 2
    said: dict[str, Any] = {"v": 1, "content": {"sms": {"text": "Hello"}}, "only": "sms"}
    ada, numbers, lost = (str(uuid7()) for _ in range(3))
    for id_, who in ((ada, {"user": "ada"}), (numbers, {"phone": NUMBER}), (lost, {"phone": "+16505550101"})):
        working.pushes.send(parse_batch({**said, "id": str(uuid7()), "recipients": [{"id": id_, **who}]}))
    assert sorted(working.later_steps.send(working.fallback.check([ada, numbers, lost]))) == sorted([numbers, lost])
    with working.engine.begin() as conn:
        for statement in _LOSE:
            conn.execute(sa.text(statement), {"id": lost})
        payload = json.dumps({"v": 1, "notifications": []})
        for _ in range(2):
            dead_letters.park(conn, message_id=None, task=Task.CANCEL, reason="failed 5 times", payload=payload)
    working.troubles.note("twilio", [Retry("Twilio 401", operators=True)])
    members.announce(working.redis, Member("w", "worker", "1", queues=[Queue.PUSH.value]))
    return {"ADA": ada, "LOST": lost}


def test_each_question_of_an_operator_on_call_has_one_command(
    run: Callable[..., CommandOutput], ids: dict[str, str]
) -> None:
    for question, (command, answer) in QUESTIONS.items():
        words = [ids.get(word, word) for word in command.replace("WHY", "--reason WHY").split()]
        done = run(*["a bad night" if word == "WHY" else word for word in words])
        # Looking tells by its code whether it found something wrong.
        assert done.code == (command == "doctor"), (question, done.err)
        assert [word for word in answer if ids.get(word, word) not in done.out] == [], (question, done.out)
