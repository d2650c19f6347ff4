"""The list of numbers that must not be texted: who says what, and what counts of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.messages import OptOutSet
from knocktwice_worker.audience import inbound_texts, opt_out_log, opt_outs
from knocktwice_worker.audience.inbound_texts import InboundText
from knocktwice_worker.audience.opt_out_words import Wish

if TYPE_CHECKING:
    from collections.abc import Callable

    from knocktwice_worker.services import Services
    from support.clock import Clock

ADA, BEN = "+16505550100", "+16505550101"
SECRET = b"test"
NOW = datetime.now(UTC)


def _said(number: str, opted_out: bool, seconds_ago: float, source: str = "application") -> OptOutSet:
    return OptOutSet(number, opted_out, source, NOW - timedelta(seconds=seconds_ago))


def _say(here: Services, *said: OptOutSet) -> None:
    with here.engine.begin() as conn:
        opt_out_log.say(conn, said, SECRET)


def _listed(here: Services) -> dict[str, str]:
    with here.engine.connect() as conn:
        return {one.number: one.source for one in opt_outs.every(conn)}


def _log(here: Services) -> list[tuple[Any, ...]]:
    query = "SELECT number, opted_out, source, changed FROM opt_out_changes ORDER BY at, opted_out"
    with here.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query))]


def _write(here: Services, id_: str, wish: Wish, number: str = ADA) -> None:
    with here.engine.begin() as conn:
        inbound_texts.receive(conn, [InboundText(id_, number, wish)], SECRET)


def test_of_what_is_said_the_latest_counts_in_whatever_order_it_comes(here: Services) -> None:
    _say(here, _said(ADA, True, 20), _said(ADA, False, 10), _said(BEN, False, 20), _said(BEN, True, 10))
    assert _listed(here) == {BEN: "application"}
    _say(here, _said(ADA, True, 15), _said(BEN, False, 15))
    assert _listed(here) == {BEN: "application"}
    _say(here, _said(ADA, True, 5, "letter"), _said(BEN, False, 5))
    assert _listed(here) == {ADA: "letter"}


def test_a_message_that_comes_again_does_not_undo_what_was_said_since(here: Services) -> None:
    before = _said(ADA, True, 10)
    _say(here, before)
    with here.engine.begin() as conn:
        assert opt_outs.remove(conn, [ADA], SECRET, "support") == [ADA]
    _say(here, before)
    assert _listed(here) == {}
    _write(here, "SM1", Wish.STOP)
    _say(here, _said(ADA, False, 5))
    assert _listed(here) == {ADA: "sms"}


def test_a_time_from_a_wrong_clock_shuts_nobody_out(here: Services) -> None:
    _say(here, _said(ADA, True, -86_400))
    _write(here, "SM1", Wish.START)
    assert _listed(here) == {}


def test_who_said_what_is_logged_also_where_it_changes_nothing(here: Services) -> None:
    with here.engine.begin() as conn:
        assert opt_outs.add(conn, [ADA, BEN], "letter") == [ADA, BEN]
    with here.engine.begin() as conn:
        assert opt_outs.add(conn, [ADA], "another letter") == []
    with here.engine.begin() as conn:
        assert opt_outs.remove(conn, [ADA], SECRET, "support") == [ADA]
    assert _listed(here) == {BEN: "letter"}
    assert sorted(_log(here)) == [
        (ADA, False, "support", True),
        (ADA, True, "another letter", False),
        (ADA, True, "letter", True),
        (BEN, True, "letter", True),
    ]


@pytest.mark.parametrize(
    ("first", "then", "left"),
    [
        ("sms", Wish.YES, False),
        ("provider", Wish.YES, False),
        ("letter", Wish.YES, True),
        ("letter", Wish.START, False),
        ("sms", Wish.START, False),
        ("sms", Wish.HELP, True),
    ],
)
def test_yes_lifts_a_stop_and_start_lifts_everything(here: Services, first: str, then: Wish, left: bool) -> None:
    with here.engine.begin() as conn:
        opt_outs.add(conn, [ADA], first)
    _write(here, "SM1", then)
    assert (ADA in _listed(here)) is left


def test_yes_without_a_stop_is_an_ordinary_word(here: Services) -> None:
    _write(here, "SM1", Wish.YES)
    _write(here, "SM2", Wish.STOP)
    _write(here, "SM3", Wish.YES)
    with here.engine.connect() as conn:
        kept = conn.execute(sa.text("SELECT provider_id, wish FROM inbound_texts ORDER BY 1")).all()
    assert [tuple(row) for row in kept] == [("SM1", None), ("SM2", "STOP"), ("SM3", "START")]


def test_start_after_an_erasure_lets_the_number_be_texted_when_it_is_bound_again(here: Services) -> None:
    _write(here, "SM1", Wish.STOP)
    with here.engine.begin() as conn:
        opt_outs.forget(conn, [ADA], SECRET)
    _write(here, "SM2", Wish.START)
    with here.engine.begin() as conn:
        opt_outs.restore(conn, [ADA], SECRET)
        assert opt_outs.find(conn, [ADA], SECRET) == {}


def test_the_log_forgets_numbers_of_erased_people_and_what_is_old(here: Services, clock: Clock) -> None:
    with here.engine.begin() as conn:
        opt_outs.add(conn, [ADA, BEN], "letter")
        opt_out_log.forget_numbers(conn, [ADA])
    assert sorted(number for number, *_ in _log(here)) == ["", BEN]
    clock.advance(timedelta(days=91))
    with here.engine.begin() as conn:
        assert opt_out_log.forget_old(conn) == 2


def test_a_page_begins_where_the_one_before_ended(here: Services) -> None:
    numbers = [f"+165055501{n:02}" for n in range(25)]
    with here.engine.begin() as conn:
        opt_outs.add(conn, numbers, "letter")
        assert [one.number for one in opt_outs.every(conn, 10)] == numbers


RACES: dict[str, Callable[[Services], None]] = {
    "stop": lambda here: _write(here, "SM1", Wish.STOP),
    "said": lambda here: _say(here, _said(ADA, True, 1)),
}


@pytest.mark.parametrize("again", RACES.values(), ids=RACES)
def test_a_number_is_listed_once_whoever_says_it(here: Services, again: Callable[[Services], None]) -> None:
    with here.engine.begin() as conn:
        opt_outs.add(conn, [ADA], "letter")
    again(here)
    assert _listed(here) == {ADA: "letter"}
