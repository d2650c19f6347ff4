"""A channel that nobody has needs one module and one entry in the registry, and then works like all others."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice import ChannelStep, Push, Sms
from knocktwice.testing import RecordingClient
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, PhoneBound, TagsSet, parse_batch
from knocktwice_worker.audience import people
from knocktwice_worker.channels.reports import StatusReport
from knocktwice_worker.cli import step_options
from knocktwice_worker.content.templates import check
from knocktwice_worker.lifecycle import ProviderState
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.reporting import figures, history, rollups
from knocktwice_worker.reporting.figures import Dimension
from knocktwice_worker.reporting.history import Wanted
from knocktwice_worker.reporting.story import tell
from knocktwice_worker.webhooks import endpoints
from support import carrier_pigeon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock
    from support.sms_provider import SmsProvider

AT = datetime(2026, 11, 1, tzinfo=UTC)
NUMBER = "+16505550100"
PUSH = {"push": {"title": "The harvest", "body": "It is {{ what }}."}}
PIGEON: dict[str, Any] = {"channel": "pigeon", "when": "not_clicked", "after_s": 0, "text": "It is {{ what }}."}
SMS: dict[str, Any] = {"channel": "sms", "when": "not_clicked", "after_s": 0, "text": "Read your pigeon."}


@pytest.fixture
def here(working: Services, acme: SmsProvider) -> Iterator[Services]:
    """A worker's services with pigeons. Ada has a phone and a loft, Ben a phone, Cleo a loft."""
    with carrier_pigeon.registered(acme.url):
        with working.engine.begin() as conn:
            known = [DeviceRegistered(user, f"silent-{user}", AT) for user in ("ada", "ben", "cleo")]
            people.apply(conn, [*known, PhoneBound("ada", NUMBER, AT), PhoneBound("ben", "+16505550101", AT)])
            people.apply(conn, [TagsSet(user, {"loft": f"{user} tower"}, AT) for user in ("ada", "cleo")])
        yield working


def _send(here: Services, user: str, *plan: dict[str, Any], what: str = "in") -> str:
    id_ = str(uuid7())
    recipient = {"id": id_, "user": user, "params": {"what": what}}
    wire = {"v": 1, "id": str(uuid7()), "content": PUSH, "plan": list(plan), "recipients": [recipient]}
    here.pushes.send(parse_batch(wire))
    return id_


def _take(here: Services, id_: str) -> None:
    assert here.later_steps.send(here.fallback.check([id_])) == [id_]


def _steps(here: Services, id_: str) -> list[tuple[str, str, str | None]]:
    with here.engine.connect() as conn:
        query = "SELECT channel, state, reason FROM deliveries WHERE notification_id = :id ORDER BY step"
        return [(row.channel, row.state, row.reason) for row in conn.execute(sa.text(query), {"id": id_})]


def test_after_the_push_a_pigeon_flies_and_then_an_sms_goes(
    here: Services, acme: SmsProvider, sandbox: Sandbox
) -> None:
    id_ = _send(here, "ada", PIGEON, SMS)
    _take(here, id_)
    assert [(text["to"], text["text"]) for text in acme.texts] == [("ada tower", "It is in.")]
    said = StatusReport("loft", "loft:1", ProviderState.DELIVERED, datetime.now(UTC))
    with here.engine.begin() as conn:
        provider_reports.accept(conn, [said])
        assert provider_reports.bring(conn) == 0
    _take(here, id_)
    assert [text.body for text in sandbox.texts(NUMBER)] == ["Read your pigeon."]
    assert [step[:2] for step in _steps(here, id_)] == [("push", "sent"), ("pigeon", "sent"), ("sms", "sent")]
    with here.engine.connect() as conn:
        story = tell(conn, id_)
        (message,) = history.page(conn, Wanted(user="ada")).messages
    assert story is not None
    sentences = [moment.sentence for moment in story.moments]
    assert "loft took the pigeon as loft:1." in sentences
    assert "The pigeon was delivered." in sentences
    assert [(s.channel, s.provider) for s in message.steps] == [
        ("push", None),
        ("pigeon", "loft"),
        ("sms", "twilio"),
    ]


def test_pigeons_are_counted_and_paid_for(here: Services, clock: Clock) -> None:
    _take(here, _send(here, "ada", PIGEON))
    clock.advance(timedelta(minutes=1))
    rollups.refresh(here.engine, "UTC", everything=True)
    with here.engine.connect() as conn:
        first, last = date(2000, 1, 1), date(2100, 1, 1)
        told = figures.report(conn, by=Dimension.TEMPLATE, since=first, until=last, prices=here.channels.prices)
    figure = told.total.as_json()
    assert (figure["pigeon_sent"], figure["unpriced_pigeon"], figure["pigeon_cost"]) == (1, 1, "0.5000")
    assert (figure["cost"], figure["sms_sent"]) == ("0.5000", 0)


def test_counts_of_closed_days_are_added_up(here: Services, clock: Clock) -> None:
    # Two slices, usually of one day, which are closed one after the other.
    for what in ("in", "late"):
        _take(here, _send(here, "ada", PIGEON, what=what))
        clock.advance(timedelta(minutes=10))
        rollups.refresh(here.engine, "UTC", everything=True)
    for passed in (rollups.CLOSED_AFTER - timedelta(minutes=10), timedelta(minutes=20)):
        clock.advance(passed)
        rollups.close(here.engine, "UTC")
    with here.engine.connect() as conn:
        query = "SELECT sum(CAST(channels -> 'pigeon' ->> 'sent' AS int)), count(DISTINCT slice) FROM rollups"
        assert tuple(conn.execute(sa.text(query)).one()) == (2, 1)


def test_one_loft_does_not_get_the_same_words_twice(here: Services, acme: SmsProvider) -> None:
    _take(here, _send(here, "ada", PIGEON))
    again = _send(here, "ada", PIGEON)
    assert here.fallback.check([again]) == []
    assert _steps(here, again)[1] == ("pigeon", "skipped", "duplicate_30s")
    assert len(acme.texts) == 1


def test_without_a_loft_the_sms_goes_at_once_and_without_a_phone_the_pigeon_all_the_same(
    here: Services, acme: SmsProvider, sandbox: Sandbox
) -> None:
    ben, cleo = _send(here, "ben", PIGEON, SMS | {"after_s": 3600}), _send(here, "cleo", PIGEON)
    assert here.fallback.check([ben]) == []
    assert _steps(here, ben)[1] == ("pigeon", "skipped", "no_address")
    _take(here, ben)
    assert len(sandbox.texts("+16505550101")) == 1
    _take(here, cleo)
    assert [text["to"] for text in acme.texts] == ["cleo tower"]


def test_a_step_may_name_the_loft(here: Services, acme: SmsProvider) -> None:
    _take(here, _send(here, "ben", PIGEON | {"loft": "North tower"}))
    assert [text["to"] for text in acme.texts] == ["North tower"]


@pytest.mark.usefixtures("here")
def test_producers_templates_and_the_command_line_know_pigeons() -> None:
    client = RecordingClient()
    step = ChannelStep("pigeon", {"text": "It is in.", "loft": "North tower"}, when="not_clicked", after=timedelta(0))
    client.notify(user="ada", push=Push("The harvest", "It is in."), steps=[step, Sms(when="not_clicked")])
    with pytest.raises(InvalidMessage, match="140 at most"):
        client.notify(user="ada", push=Push("t", "b"), steps=[ChannelStep("pigeon", {"text": "x" * 141})])
    assert step_options.plan(["pigeon text=Hello loft=North when=not_clicked after=5m"], None) == [
        ChannelStep("pigeon", {"text": "Hello", "loft": "North"}, when="not_clicked", after=timedelta(minutes=5))
    ]
    words = {"push": {"title": "The harvest", "body": "It is in."}}
    fallback = [{"channel": "pigeon", "when": "not_clicked", "after": "5m", "text": "In.", "loft": "North"}]
    (written,) = check("harvest", {"default_locale": "en", "contents": {"en": words}, "fallback": fallback}).plan
    assert (written.channel, written.text, written.content) == ("pigeon", "In.", {"loft": "North"})
    assert {"pigeon.sent", "pigeon.delivered"} <= set(endpoints.types())
