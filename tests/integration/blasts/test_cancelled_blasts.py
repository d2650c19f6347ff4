"""A blast that is stopped stops what it has sent, too: at once, not when the turn of its pages comes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import Client, Push, Sms
from knocktwice_shared.names import INBOX_MESSAGES, INBOX_SUBJECTS, Task
from knocktwice_worker.blasts import states
from knocktwice_worker.channels.twilio.reports import read_callback
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.sandbox import Answer, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

PUSH = Push("Tea week", "Until Sunday.")
AFTER = timedelta(minutes=5)
SMS = Sms("Tea week. Until Sunday.", when="not_clicked", after=AFTER)
NUMBER, DEVICE = "+16505550100", "silent-ada"
EVERYBODY = {"field": "tags.likes", "op": "=", "value": "tea"}
UNREGISTERED = 30034
#: Accepted, and not taken up by any worker yet; or written by an operator's command.
HOW = ("accepted", "aborted")


class Campaign:
    """A blast to one person, which its workers carry out when they are told to."""

    def __init__(self, client: Client, here: Services) -> None:
        self.client, self.here = client, here
        self.published: list[tuple[Task, str]] = []
        client.register_device("ada", DEVICE)
        client.bind_phone("ada", NUMBER)
        client.tag_user("ada", {"likes": "tea"})
        self.take(Task.UPDATE_AUDIENCE)
        self.id = str(client.blast(EVERYBODY, key="tea", push=PUSH, sms=SMS))
        self.take(Task.BLAST)
        here.expansion.step(self.id, self._publish)

    def _publish(self, task: Task, ids: Sequence[str]) -> None:
        self.published += [(task, id_) for id_ in ids]

    def take(self, task: Task) -> None:
        """Carry out the accepted messages of a task."""
        entries: dict[bytes, bytes] = self.here.redis.hgetall(INBOX_MESSAGES)  # type: ignore[assignment]
        for id_, raw in entries.items():
            entry = json.loads(raw)
            if entry["task"] == task:
                self.here.inbox.carry_out(task, id_.decode(), entry["message"], self.here.accepted[task])

    def send(self) -> None:
        """Send the pages that were handed out."""
        for task, id_ in self.published:
            if task is Task.SEND_PAGE:
                self.here.expansion.send_page(id_, lambda *_: None)

    def stop(self, how: str) -> None:
        if how == "accepted":
            self.client.cancel(blast="tea")
            return
        with self.here.engine.begin() as conn:
            assert states.abort(conn, "tea", "a mistake")

    def rows(self, query: str) -> list[Any]:
        with self.here.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(sa.text(query))]

    @property
    def notification(self) -> str:
        ((id_,),) = self.rows("SELECT id::text FROM notifications")
        return str(id_)

    def must_be_cancelled(self) -> None:
        assert self.rows("SELECT state, reason FROM notifications") == [("cancelled", "cancelled")]
        assert self.rows("SELECT state FROM deliveries WHERE step = 1") == [("cancelled",)]


@pytest.fixture
def client(valkey_url: str) -> Iterator[Client]:
    with Client(valkey_url) as client:
        yield client


@pytest.fixture
def campaign(client: Client, working: Services, clock: Clock) -> Campaign:
    clock.set(datetime.now(UTC).replace(hour=20, minute=0) + timedelta(days=1))
    return Campaign(client, working)


@pytest.mark.parametrize("how", HOW)
def test_nobody_is_texted_whose_blast_was_stopped_before_the_decision(
    campaign: Campaign, working: Services, sandbox: Sandbox, clock: Clock, how: str
) -> None:
    campaign.send()
    clock.advance(AFTER + timedelta(seconds=1))
    campaign.stop(how)
    assert working.fallback.check([campaign.notification]) == []
    campaign.must_be_cancelled()
    assert sandbox.texts(NUMBER) == []
    with working.engine.connect() as conn:
        story = tell(conn, campaign.notification)
    assert story is not None
    assert "cancelled" in str(story)


@pytest.mark.parametrize("how", HOW)
def test_nobody_is_texted_whose_blast_was_stopped_after_the_decision(
    campaign: Campaign, working: Services, sandbox: Sandbox, clock: Clock, how: str
) -> None:
    campaign.send()
    clock.advance(AFTER + timedelta(seconds=1))
    reserved = working.fallback.check([campaign.notification])
    assert reserved == [campaign.notification]
    campaign.stop(how)
    assert working.later_steps.send(reserved) == []
    assert sandbox.texts(NUMBER) == []
    campaign.must_be_cancelled()


def test_a_page_is_not_sent_whose_blast_was_stopped_before(
    campaign: Campaign, working: Services, sandbox: Sandbox
) -> None:
    campaign.stop("accepted")
    campaign.send()
    assert sandbox.pushes() == []
    assert campaign.rows("SELECT count(*) FROM notifications") == [(0,)]
    working.expansion.step(campaign.id, lambda *_: None)
    assert campaign.rows("SELECT state, wake_at FROM blasts") == [("aborted", None)]


def test_a_page_waits_while_what_was_said_of_its_blast_cannot_be_carried_out(
    campaign: Campaign, working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    campaign.stop("accepted")
    members: Any = working.redis.zrange(INBOX_SUBJECTS, 0, -1)
    (member,) = [m for m in members if m.startswith(b"b:")]
    said = member.rpartition(b"\n")[2]
    working.redis.hset(INBOX_MESSAGES, said, json.dumps({"task": "knocktwice.newer", "message": {}}))
    campaign.send()
    assert sandbox.pushes() == []
    assert campaign.rows("SELECT count(*) FROM blast_pages WHERE users IS NOT NULL") == [(1,)]
    # Its message is parked, for instance, and it is handed out again soon.
    working.redis.zrem(INBOX_SUBJECTS, member)
    clock.advance(timedelta(seconds=2))
    campaign.published.clear()
    working.expansion.step(campaign.id, campaign._publish)
    campaign.send()
    assert [push.registration for push in sandbox.pushes()] == [DEVICE]


@pytest.mark.parametrize("how", HOW)
def test_a_push_is_not_tried_again_whose_blast_was_stopped(
    campaign: Campaign, working: Services, sandbox: Sandbox, clock: Clock, how: str
) -> None:
    sandbox.rule(Rule("push", times=1, answer=Answer(status=503)))
    campaign.send()
    assert campaign.rows("SELECT state FROM deliveries WHERE step = 0") == [("scheduled",)]
    clock.advance(timedelta(minutes=2))
    campaign.stop(how)
    working.pushes.resume([campaign.notification])
    assert sandbox.pushes() == []
    campaign.must_be_cancelled()


def test_an_sms_that_failed_later_is_not_sent_again_after_its_blast_was_stopped(
    campaign: Campaign, working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    campaign.send()
    clock.advance(AFTER + timedelta(seconds=1))
    assert working.later_steps.send(working.fallback.check([campaign.notification])) == [campaign.notification]
    campaign.stop("aborted")
    working.expansion.step(campaign.id, lambda *_: None)
    (text,) = sandbox.texts(NUMBER)
    form = {"MessageSid": text.sid, "MessageStatus": "undelivered", "ErrorCode": str(UNREGISTERED)}
    said = read_callback(form, datetime.now(UTC), (campaign.notification, 1))
    assert said is not None
    with working.engine.begin() as conn:
        provider_reports.accept(conn, [said])
    provider_reports.bring_and_take_up(working.engine, {text.sid}, working.settings.useless_after)
    assert campaign.rows("SELECT state FROM deliveries WHERE step = 1") == [("sent",)]
    assert campaign.rows("SELECT state FROM notifications") == [("texted",)]
