"""What counts as asking for no more texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_worker.audience import opt_out_words
from knocktwice_worker.audience.opt_out_words import Wish, wish

DOC = (Path(__file__).parents[3] / "docs" / "opt-out-words.md").read_text()


@pytest.mark.parametrize(
    "text",
    [
        *("STOP", " stop. ", "Stop!", "STOPALL", "STOP ALL", "Arrêt", "ARRET", "СТОП", "停止", "退订", "TD", "Dur"),
        *("\uff33\uff34\uff2f\uff30", "PARE", "Fim", "הסר", "BERHENTI", "HUY", "ยกเลิก", "ΣΤΟΠ", "στόπ", "रोकें", "거부"),
        *(
            "Please stop texting me",
            "Stop. Thank you",
            "STOP STOP",
            "stop stop stop!",
            "Darme de baja",
            "Stop, please!",
        ),
        *("Hi, please stop. Thanks!", "Bitte stopp, danke", "baja por favor", "STOP now", "Unsubscribe me", "opt out"),
        *("Stop, thank you very much", "Don\u2019t text me!", "Please take me off your list", "stop it", "Arrêtez SVP"),
        *(
            "\u0131ptal",
            "\u0130PTAL",
            "IPTAL",
            "退订\uff0c谢谢",
            "请停止",
            "S.T.O.P.",
            "STOP\u200b \U0001f6d1",
            "\u200eSTOP\u200f",
        ),
        *(
            "pls stop!!",
            "Stop 🛑",
            "Não quero mais",
            "arrêtez svp",
            "S\u200bT\u200bO\u200bP",
            "\u201eStopp\u201c",
            "\ufeffSTOP",
        ),
        *("no more", "Remove my number", "UNSUBCRIBE", "stop spamming me", "I want to opt out", "OK, stop", "STOPPPP"),
        *(
            "Don't contact me",
            "leave me alone",
            "STOP SMS",
            "SMS STOP",
            "stop immediately",
            "ARRETEZ DE M'ENVOYER DES SMS",
        ),
        *("Désinscrivez-moi svp", "quero sair", "no quiero más mensajes", "keine SMS mehr", "geen sms meer", "хватит!"),
        *(
            "停止してください",
            "配信停止お願いします",
            "退订谢谢",
            "\U0001d5e6\U0001d5e7\U0001d5e2\U0001d5e3",
            "\uff53\uff54\uff4f\uff50\uff01",
        ),
        *(
            "STOP\nSent from my iPhone",
            "Stop, thanks, bye",
            "please unsubscribe me from this list",
            "dont text",
            "Me désabonner, merci",
            "se désabonner",
            "Zrezygnuj",
            "Zruš",
            "הסר אותי",
            "إلغاء الاشتراك",
            "बंद करो",
            "band karo please",
            "berhenti dong",
            "停止して",
            "수신거부합니다",
            "그만 보내세요",
            "отпишите",
        ),
    ],
)
def test_people_stop_in_their_own_words(text: str) -> None:
    assert wish(text) is Wish.STOP


@pytest.mark.parametrize(
    "text",
    [
        *(
            "please stop sending me this",
            "don't stop",
            "Don\u2019t stop",
            "please don't stop",
            "stop by at 5",
            "",
            "🙂",
        ),
        *("stopped", "Thanks", "thank you!", "please", "no thanks", "Cancel my order please", "the end", "bus stop"),
        *("I quit smoking", "stop and start", "yes we can", "end of May", "non-stop", "stop?no"),
        *(
            "When does it stop raining?",
            "The bus stop is closed",
            "I can't stop laughing",
            "Can I cancel?",
            "never stop",
        ),
        *("cancel order 4711", "please do not unsubscribe me", "How do I unsubscribe?", "If I text stop will it end?"),
        *("baja el precio", "annulla ordine", "Bitte nicht abmelden", "ne pas arrêter", "Fim de semana", "não parar"),
        *(
            "no puedo parar",
            "remove milk from my order",
            "Ok",
            "just",
            "sorry",
            "谢谢",
            "请",
            "お願いします",
            "取消订单4711",
        ),
    ],
)
def test_other_texts_change_nothing(text: str) -> None:
    assert wish(text) is None


@pytest.mark.parametrize(
    ("word", "means_it", "does_not"),
    [
        ("Dur", "TR", "FR"),
        ("ret", "TR", "NL"),
        ("alto", "MX", "IT"),
        ("Alto", "ES", "BR"),
        ("Huy", "VN", "RU"),
        ("TD", "CN", "US"),
        ("ferma", "IT", "RO"),
        ("Ende", "DE", "NO"),
    ],
)
def test_a_word_that_is_ordinary_elsewhere_counts_where_it_means_stop(word: str, means_it: str, does_not: str) -> None:
    assert wish(word, None, means_it) is Wish.STOP
    assert wish(word, None, does_not) is None
    assert wish(word) is Wish.STOP
    assert wish("stop", None, does_not) is Wish.STOP


def test_people_come_back_and_ask_for_help() -> None:
    assert wish("Start") is Wish.START
    assert wish("UNSTOP") is Wish.START
    assert wish("Yes!") is Wish.YES
    assert wish("HILFE") is Wish.HELP
    assert wish("Help, please") is Wish.HELP
    assert wish("ok start") is Wish.START
    assert wish("Basta", None, "IT") is Wish.STOP
    assert wish("Basta", None, "DE") is None


def test_twilios_own_reading_goes_before_ours() -> None:
    assert wish("lass mich in ruhe", "STOP") is Wish.STOP
    assert wish("stop", "START") is Wish.START
    assert wish("stop", "something new") is Wish.STOP


def test_the_document_lists_the_words() -> None:
    rows = dict(re.findall(r"^\| ([^|]+) \| `([^|]+)` \|", DOC, re.MULTILINE))
    written = {name: words.replace("`, `", " ").replace("_", " ") for name, words in rows.items()}
    for name, words in {**opt_out_words.STOP, "START": opt_out_words.START, "HELP": opt_out_words.HELP}.items():
        assert written[name] == words.replace("_", " "), name
    for word, countries in opt_out_words.SCOPED.items():
        assert written[word] == countries


@given(st.text(max_size=60))
def test_any_text_means_something_or_nothing(text: str) -> None:
    assert wish(text) in {None, *Wish}
