"""The words by which people opt out of a sender's messages, and opt in again.

Some providers read texts themselves and report the meaning. For all others the whole text must be one of these words,
with nothing but courtesies around it. Texts such as "Don't stop" and "stop by at 5" are left to human readers.
docs/opt-out-words.md lists the words.
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum


class Wish(StrEnum):
    """The wish of a text's sender."""

    STOP = "STOP"
    START = "START"
    #: Lifts a STOP, as it does at providers that block numbers themselves. It may answer another question, so it lifts
    #: nothing else.
    YES = "YES"
    HELP = "HELP"


_SPANISH = "AR BO CL CO CR CU DO EC ES GQ GT HN MX NI PA PE PR PY SV US UY VE"
#: Language → its words. In a word an underscore is a blank.
STOP = {
    "English": "stop stopall unsubscribe unsubscribe_me cancel end quit revoke optout opt_me_out remove_me "
    "stop_texting stop_texting_me stop_messaging_me stop_sending_texts stop_sending_me_texts stop_sending_messages "
    "stop_sending_me_messages stop_texts stop_messages stop_sms no_more_texts no_more_messages stop_it stop_this "
    "stop_contacting_me dont_text_me do_not_text_me dont_message_me do_not_message_me take_me_off_your_list "
    "remove_me_from_your_list",
    "German": "stopp abmelden abbestellen beenden austragen",
    "French": "arret arreter arretez desabonner desinscrire desinscription",
    "Spanish": "parar baja darme_de_baja dame_de_baja dar_de_baja cancelar detener",
    "Portuguese": "pare parar sair fim remover descadastrar",
    "Italian": "annulla disiscrivi disiscrivimi cancella",
    "Dutch": "stoppen afmelden",
    "Nordic": "avsluta avregistrera stopp lopeta afmeld avmeld",
    "Polish": "koniec rezygnuje wypisz",
    "Czech, Hungarian, Romanian": "zrusit leiratkozas dezabonare",
    "Russian, Ukrainian": "стоп отписаться отписка відписатися",
    "Greek": "στοπ διακοπη διαγραφη",
    "Turkish": "iptal durdur",
    "Hebrew": "הסר הסירו להסרה",
    "Arabic": "توقف ايقاف الغاء",
    "Hindi": "रोकें रोको बंद_करें",
    "Indonesian, Malay": "berhenti henti",
    "Vietnamese": "huy_dang_ky tu_choi",
    "Thai": "ยกเลิก หยุด",
    "Chinese": "停止 请停止 請停止 退订 退訂 取消订阅 取消訂閱",
    "Japanese": "停止 配信停止",
    "Korean": "거부 수신거부 중지",
}
#: Words that are ordinary in another language: they count from numbers of these countries, and where none is known.
SCOPED = {
    "alto": _SPANISH,
    "dur": "TR CY",
    "ret": "TR CY",
    "ferma": "IT SM CH",
    "huy": "VN",
    "td": "CN TW HK MO",
}
START = (
    "start unstop starten anmelden demarrer commencer comenzar iniciar inizia avvia aanmelden starta aloita wznow старт "
    "εναρξη basla התחל शुरू mulai bat_dau 開始 配信開始 订阅 訂閱 시작 ابدا"
)
HELP = "help info hilfe aide ayuda ajuda aiuto hulp hjalp apua pomoc помощь yardim 帮助 幫助 ヘルプ 도움말 مساعدة"

#: What people put before and behind the word, and what says nothing of it.
_COURTESIES = """
please pls plz thanks thank_you thank_you_very_much thanks_a_lot thx ty many_thanks hi hello hey dear_sir now kindly sir
bitte danke vielen_dank hallo jetzt merci svp sil_vous_plait bonjour por_favor gracias hola ya
obrigado obrigada per_favore grazie ciao alstublieft aub bedankt dank_je tack takk tak prosze dziekuje
пожалуйста спасибо lutfen tesekkurler ευχαριστω παρακαλω תודה בבקשה شكرا من_فضلك कृपया धन्यवाद tolong terima_kasih 谢谢 謝謝 请 請 ありがとう お願いします 감사합니다
"""


def wish(text: str, opt_out_type: str | None = None, country: str | None = None) -> Wish | None:
    """Return what a text asks for; ``None``: something else, for people to read.

    Args:
        text: the text as it came.
        opt_out_type: the provider's own reading of it, which goes before ours.
        country: the ISO code of the sender's number, as far as it is known.
    """
    if opt_out_type in set(Wish):
        return Wish(opt_out_type)
    said = "".join(_without_courtesies(_words(text)))
    scope = _SCOPES.get(said)
    if scope is not None:
        return Wish.STOP if country is None or country in scope else None
    return _MEANINGS.get(said)


def _words(text: str) -> list[str]:
    """Return the words of a text without case and accents; vowel signs of other scripts are letters."""
    # Turkish has an i without a dot, which the other case does not tell apart.
    decomposed = unicodedata.normalize("NFKD", text.casefold()).replace("\u0131", "i")
    plain = "".join(c for c in decomposed if not _ACCENT.match(c))
    return "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in plain).split()


def _without_courtesies(words: list[str]) -> list[str]:
    while words:
        for courtesy in _COURTESY_WORDS:
            size = len(courtesy)
            if tuple(words[:size]) == courtesy:
                words = words[size:]
                break
            if tuple(words[-size:]) == courtesy:
                words = words[:-size]
                break
        else:
            break
    return [word for place, word in enumerate(words) if not place or word != words[place - 1]]


#: Accents of Latin, Greek and Cyrillic, points of Hebrew and Arabic, and apostrophes: people leave them out.
_ACCENT = re.compile("[\u0300-\u036f\u0591-\u05c7\u064b-\u065f'\u2019`]")
_COURTESY_WORDS = sorted((tuple(_words(each.replace("_", " "))) for each in _COURTESIES.split()), key=len, reverse=True)
_SCOPES = {word: frozenset(countries.split()) for word, countries in SCOPED.items()}
_MEANINGS = {
    "".join(_words(word.replace("_", " "))): meaning
    for words, meaning in (
        (HELP, Wish.HELP),
        (START, Wish.START),
        ("yes", Wish.YES),
        (" ".join(STOP.values()), Wish.STOP),
    )
    for word in words.split()
}
