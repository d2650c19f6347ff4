"""Inbound texts are kept as they were written, found again, and forgotten in time."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from knocktwice_shared.messages import PhoneBound
from knocktwice_worker.audience import inbound_texts, people
from knocktwice_worker.audience.inbound_texts import InboundText, KeptText, Wanted
from knocktwice_worker.audience.opt_out_words import Wish
from support.system import eventually

if TYPE_CHECKING:
    from knocktwice_worker.services import Services
    from support.clock import Clock

ADA, BEN = "+16505550100", "+16505550101"


def _text(id_: str, words: str | None, number: str = ADA, wish: Wish | None = None) -> InboundText:
    return InboundText(id_, number, wish, words, "twilio", "sms", "+15005550006")


def _receive(here: Services, *texts: InboundText) -> int:
    with here.engine.begin() as conn:
        return len(inbound_texts.receive(conn, texts, b"test"))


def _page(here: Services, wanted: Wanted | None = None) -> list[KeptText]:
    with here.engine.connect() as conn:
        return inbound_texts.page(conn, wanted or Wanted())


def test_a_text_is_kept_as_it_was_written_and_once(here: Services) -> None:
    assert _receive(here, _text("SM1", "Is it open on Sunday? \U0001f642")) == 1
    assert _receive(here, _text("SM1", "Is it open on Sunday? \U0001f642"), _text("SM1", "other")) == 0
    (kept,) = _page(here)
    assert (kept.number, kept.words, kept.characters, kept.keyword) == (
        ADA,
        "Is it open on Sunday? \U0001f642",
        23,
        None,
    )
    assert (kept.provider, kept.channel, kept.sender) == ("twilio", "sms", "+15005550006")


@pytest.mark.parametrize("words", ["a\0b", "half \ud83d", "", " ", "x" * 10_000])
def test_no_text_is_refused(here: Services, words: str) -> None:
    assert _receive(here, _text("SM1", words)) == 1
    (kept,) = _page(here)
    assert kept.words is not None
    assert "\0" not in kept.words
    assert len(kept.words) == min(len(words), 4_000)
    assert kept.characters == len(words)


def test_texts_are_found_by_number_person_keyword_and_time_newest_first(here: Services, clock: Clock) -> None:
    with here.engine.begin() as conn:
        now = datetime.now(UTC)
        people.apply(conn, [PhoneBound("ada", ADA, now), PhoneBound("anna", ADA, now), PhoneBound("ben", BEN, now)])
    for text in (_text("SM1", "hello"), _text("SM2", "STOP", wish=Wish.STOP), _text("SM3", "hi", BEN)):
        _receive(here, text)
        # Texts of one millisecond are in no order.
        came = time.time_ns() // 1_000_000
        eventually(lambda came=came: time.time_ns() // 1_000_000 > came)  # type: ignore[misc]
    clock.advance(timedelta(hours=1))
    _receive(here, _text("SM4", "later"))

    def ids(**wanted: object) -> list[str]:
        return [text.provider_id for text in _page(here, Wanted(**wanted))]  # type: ignore[arg-type]

    assert ids() == ["SM4", "SM3", "SM2", "SM1"]
    assert ids(number=BEN) == ["SM3"]
    assert ids(user="ada") == ids(user="anna") == ["SM4", "SM2", "SM1"]
    assert ids(user="nobody") == []
    assert ids(keyword="STOP") == ["SM2"]
    assert ids(keyword="none", user="ada") == ["SM4", "SM1"]
    assert ids(since=datetime.now(UTC) + timedelta(minutes=59)) == ["SM4"]
    first = _page(here, Wanted(limit=2))
    assert [text.provider_id for text in first] == ["SM4", "SM3", "SM2"]
    assert list(first[0].users) == ["ada", "anna"]
    assert ids(before=UUID(first[1].id)) == ["SM2", "SM1"]


def test_words_and_numbers_are_shown_only_to_who_asks_for_them(here: Services) -> None:
    _receive(here, _text("SM1", "My code is 4711"), _text("SM2", "code", "4711"))
    short, long = _page(here)
    assert (long.shown(reveal=False)["number"], long.shown(reveal=False)["text"]) == ("+1650\u2022\u2022\u202200", None)
    assert long.shown(reveal=False)["characters"] == 15
    assert (long.shown(reveal=True)["number"], long.shown(reveal=True)["text"]) == (ADA, "My code is 4711")
    assert short.shown(reveal=False)["number"] == "\u2022\u2022\u2022"


def test_words_are_forgotten_in_time_and_repeats_are_known_for_a_week(here: Services, clock: Clock) -> None:
    _receive(here, _text("SM1", "hello"))
    clock.advance(timedelta(days=3))
    with here.engine.begin() as conn:
        assert inbound_texts.forget(conn, timedelta(days=2)) == 0
    assert [text.words for text in _page(here)] == [None]
    assert _receive(here, _text("SM1", "hello")) == 0
    clock.advance(timedelta(days=5))
    with here.engine.begin() as conn:
        assert inbound_texts.forget(conn, timedelta(days=2)) == 1


def test_an_erasure_takes_number_and_words(here: Services) -> None:
    _receive(here, _text("SM1", "I am Ada"), _text("SM2", "I am Ben", BEN))
    with here.engine.begin() as conn:
        inbound_texts.forget_numbers(conn, [ADA])
    assert [(text.provider_id, text.number, text.words) for text in _page(here)] == [
        ("SM2", BEN, "I am Ben"),
        ("SM1", "", None),
    ]
    assert [text.shown(reveal=False)["number"] for text in _page(here)] == ["+1650\u2022\u2022\u202201", ""]
