"""What people write to a sender to be left alone, and to be written to again.

Some providers read texts themselves and say what they mean; elsewhere the whole text must be one of these words. "YES" alone is not taken for consent: it may answer some
other question.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum


class Wish(StrEnum):
    """What the sender of a text wants."""

    STOP = "STOP"
    START = "START"
    HELP = "HELP"


_STOP = """
stop stopall unsubscribe cancel end quit revoke optout
stopp abmelden abbestellen beenden
arret arreter desabonner desinscrire
alto parar baja cancelar detener
sair remover descadastrar
ferma annulla disiscrivi cancella
stoppen afmelden
avsluta avregistrera lopeta afmeld avmeld
koniec rezygnuje wypisz
zrusit leiratkozas dezabonare
стоп отписаться отписка
dur iptal ret
停止 配信停止 退订 退訂 取消订阅 td
수신거부 중지
توقف ايقاف
"""
_START = """
start unstop
starten anmelden demarrer commencer comenzar iniciar inizia avvia aanmelden starta aloita wznow старт basla
開始 配信開始 订阅 訂閱 시작 ابدا
"""
_HELP = "help info hilfe aide ayuda ajuda aiuto hulp hjalp apua pomoc помощь yardim 帮助 幫助 ヘルプ 도움말 مساعدة"


def wish(text: str, opt_out_type: str | None = None) -> Wish | None:
    """Return what a text asks for; ``None``: something else, for people to read.

    Args:
        text: the text as it came.
        opt_out_type: the provider's own reading of it, which goes before ours.
    """
    if opt_out_type in set(Wish):
        return Wish(opt_out_type)
    return _WORDS.get(_plain(text))


def _plain(text: str) -> str:
    """Return the letters of a text: accents, case, spaces and signs do not count."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if c.isalnum())


_WORDS = {
    _plain(word): meaning
    for words, meaning in ((_HELP, Wish.HELP), (_START, Wish.START), (_STOP, Wish.STOP))
    for word in words.split()
}
