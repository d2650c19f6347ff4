"""What people write, and who opts out or in, is told to the application: once, in order,
and about whom only where it may be.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.messages import PhoneBound, UserErased
from knocktwice_worker.audience import inbound_texts, opt_outs, people
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish
from knocktwice_worker.privacy.erasure import Unsettled
from knocktwice_worker.webhooks import endpoints, events
from support.webhook_receiver import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.services import Services
    from support.clock import Clock

ADA, BEN = "+16505550100", "+16505550101"
OURS = "+15005550006"


@pytest.fixture
def application() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as built:
        yield built


def _listen(here: Services, application: WebhookReceiver, *wanted: str, personal: bool = False) -> None:
    with here.engine.begin() as conn:
        people.apply(conn, [PhoneBound(user, ADA, datetime.now(UTC)) for user in ("ada", "anna")])
        endpoints.add(conn, application.url, wanted, personal=personal, private=False)


def _write(here: Services, id_: str, words: str, number: str = ADA, wish: Wish | None = None) -> None:
    with here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText(id_, number, wish, words, "twilio", "sms", OURS)], b"test")


def _tell(here: Services, clock: Clock) -> None:
    clock.advance(timedelta(minutes=1))
    events.follow(here.engine)
    while here.webhooks.send():
        pass


def _data(application: WebhookReceiver) -> list[tuple[str, dict[str, Any]]]:
    return [(told["type"], dict(told["data"])) for _, told in application.taken]


def test_a_text_is_told_with_the_people_who_have_the_number_and_without_number_and_words(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    _listen(here, application)
    _write(here, "SM1", "Is it open on Sunday?")
    _tell(here, clock)
    ((type_, data),) = _data(application)
    assert type_ == "inbound.text"
    assert len(data.pop("inbound")) == 36
    assert data == {
        "provider": "twilio",
        "channel": "sms",
        "keyword": None,
        "project": None,
        "notification": None,
        "number": "+1650\u2022\u2022\u202200",
        "users": ["ada", "anna"],
        "to": OURS,
        "characters": 21,
    }
    for _, body in application.seen:
        assert b"Sunday" not in body
        assert ADA.encode() not in body


def test_an_endpoint_that_may_know_people_is_told_number_and_words(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    _listen(here, application, personal=True)
    _write(here, "SM1", "Is it open on Sunday?", BEN)
    _tell(here, clock)
    ((_, data),) = _data(application)
    assert (data["phone"], data["text"], data["users"]) == (BEN, "Is it open on Sunday?", [])


def test_stop_and_start_are_told_once_in_order_whatever_comes_again(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    _listen(here, application)
    for _ in range(3):
        _write(here, "SM1", "Stop!", wish=Wish.STOP)
    _write(here, "SM2", "stop", wish=Wish.STOP)
    _write(here, "SM3", "Yes", wish=Wish.YES)
    for _ in range(2):
        _tell(here, clock)
    told = _data(application)
    assert [(type_, data["keyword"]) for type_, data in told] == [
        ("inbound.text", "STOP"),
        ("number.opted_out", "STOP"),
        ("inbound.text", "STOP"),
        ("inbound.text", "START"),
        ("number.opted_in", "START"),
    ]
    out = told[1][1]
    assert (out["source"], out["provider"], out["channel"]) == ("sms", "twilio", "sms")
    assert out["inbound"] == told[0][1]["inbound"]
    assert out["users"] == ["ada", "anna"]
    assert len({id_ for id_, _ in application.taken}) == 5


def test_events_of_a_number_wait_for_the_one_before(here: Services, application: WebhookReceiver, clock: Clock) -> None:
    _listen(here, application, "number.opted_out", "number.opted_in")
    application.answer = lambda _: 500
    _write(here, "SM1", "Stop", wish=Wish.STOP)
    _tell(here, clock)
    _write(here, "SM2", "Start", wish=Wish.START)
    clock.advance(timedelta(minutes=1))
    events.follow(here.engine)
    application.seen.clear()
    application.answer = lambda told: 500 if told["type"] == "number.opted_out" else 204
    _tell(here, clock)
    assert application.taken == []
    application.answer = lambda _: 204
    for _ in range(3):
        clock.advance(timedelta(hours=1))
        _tell(here, clock)
    assert application.types() == ["number.opted_out", "number.opted_in"]


def test_what_the_application_an_operator_or_a_provider_says_is_told_and_what_is_imported_is_not(
    here: Services, application: WebhookReceiver, clock: Clock
) -> None:
    _listen(here, application)
    with here.engine.begin() as conn:
        opt_outs.add(conn, [ADA], "letter")
        opt_outs.add(conn, [BEN], "provider")
        opt_outs.bring(conn, [opt_outs.OptOut("+16505550102", "import", None)])
    with here.engine.begin() as conn:
        opt_outs.add(conn, [ADA], "letter again")
    with here.engine.begin() as conn:
        opt_outs.remove(conn, [ADA], b"test", "support")
    _tell(here, clock)
    told = sorted((type_, data["source"], data["users"]) for type_, data in _data(application))
    assert told == [
        ("number.opted_in", "support", ["ada", "anna"]),
        ("number.opted_out", "letter", ["ada", "anna"]),
        ("number.opted_out", "provider", []),
    ]


def test_an_erased_person_is_not_told_of_any_more(here: Services, application: WebhookReceiver, clock: Clock) -> None:
    with here.engine.begin() as conn:
        people.apply(conn, [PhoneBound("ada", ADA, datetime.now(UTC))])
        endpoints.add(conn, application.url, personal=True, private=False)
    _write(here, "SM1", "I am Ada, please stop", wish=Wish.STOP)
    clock.advance(timedelta(minutes=1))
    events.follow(here.engine)
    with suppress(Unsettled):
        here.erasure.erase_all([UserErased("ada", datetime.now(UTC) + timedelta(minutes=2))])
    _tell(here, clock)
    assert application.types() == ["inbound.text", "number.opted_out"]
    for _, body in application.seen:
        assert b"Ada" not in body
        assert b"+1650" not in body
        assert b'"ada"' not in body
