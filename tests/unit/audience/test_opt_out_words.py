"""What counts as asking for no more texts."""

from __future__ import annotations

import pytest

from knocktwice_worker.audience.opt_out_words import Wish, wish


@pytest.mark.parametrize(
    "text",
    [
        "STOP",
        " stop. ",
        "Stop!",
        "STOPALL",
        "STOP ALL",
        "Arrêt",
        "ARRET",
        "СТОП",
        "停止",
        "退订",
        "Dur",
        "\uff33\uff34\uff2f\uff30",
        "TD",
    ],
)
def test_people_stop_in_their_own_words(text: str) -> None:
    assert wish(text) is Wish.STOP


@pytest.mark.parametrize("text", ["please stop sending me this", "don't stop", "", "yes", "Yes!", "🙂", "stopped"])
def test_other_texts_change_nothing(text: str) -> None:
    assert wish(text) is None


def test_people_come_back_and_ask_for_help() -> None:
    assert wish("Start") is Wish.START
    assert wish("UNSTOP") is Wish.START
    assert wish("HILFE") is Wish.HELP


def test_twilios_own_reading_goes_before_ours() -> None:
    assert wish("lass mich in ruhe", "STOP") is Wish.STOP
    assert wish("stop", "START") is Wish.START
    assert wish("stop", "something new") is Wish.STOP
