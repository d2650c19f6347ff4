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
    "remove_me_from_your_list take_me_off_this_list remove_me_from_this_list remove remove_my_number delete_my_number "
    "no_more no_more_sms no_more_texting stop_msgs stop_msg sms_stop stop_texting_this_number stop_messaging_this_number "
    "stop_these_texts stop_these_messages stop_all_texts stop_all_messages stop_spamming_me stop_spam stop_spamming "
    "leave_me_alone dont_contact_me do_not_contact_me dont_text_me_again do_not_text_me_again dont_text_me_anymore "
    "do_not_text_me_anymore do_not_contact_me_again dont_contact_me_again stop_texting_me_anymore i_want_to_opt_out "
    "i_want_to_unsubscribe i_wish_to_unsubscribe i_want_out unsubcribe unsuscribe unsubscibe "
    "dont_text do_not_text unsubscribe_me_from_this_list unsubscribe_me_from_your_list unsubscribe_from_this_list opting_out "
    "cancel_texts cancel_messages cancel_sms cancel_subscription end_texts end_messages",
    "German": "stopp abmelden abbestellen beenden austragen abbestellung bitte_nicht_mehr_schreiben nicht_mehr_schreiben "
    "keine_sms_mehr keine_nachrichten_mehr keine_weiteren_sms keine_weiteren_nachrichten hor_auf aufhoren hort_auf "
    "ich_mochte_mich_abmelden ich_will_mich_abmelden melden_sie_mich_ab",
    "French": "arret arreter arretez desabonner desinscrire desinscription desabonnement desabonnez_moi desinscrivez_moi "
    "me_desabonner me_desinscrire je_veux_me_desabonner je_veux_me_desinscrire plus_de_sms plus_de_messages "
    "arretez_de_menvoyer_des_sms arretez_de_menvoyer_des_messages ne_plus_recevoir retirez_moi_de_la_liste se_desabonner se_desinscrire cessez stopper",
    "Spanish": "parar baja darme_de_baja dame_de_baja dar_de_baja cancelar detener quiero_darme_de_baja quiero_la_baja "
    "no_mas no_mas_mensajes no_mas_sms no_quiero_mas no_quiero_mas_mensajes no_quiero_recibir_mas_mensajes "
    "dejar_de_recibir dejen_de_enviarme_mensajes dejen_de_enviar_mensajes basta_de_mensajes",
    "Portuguese": "pare parar sair fim remover descadastrar descadastre quero_sair nao_quero_mais nao_quero_mais_receber "
    "nao_quero_mais_mensagens nao_quero_receber_mais me_remova remova_me remova_meu_numero cancelar_inscricao "
    "parem_de_enviar_mensagens pare_de_enviar_mensagens pare_de_me_mandar_mensagens",
    "Italian": "annulla disiscrivi disiscrivimi cancella cancellami cancellatemi basta_sms basta_messaggi "
    "non_voglio_piu_messaggi non_voglio_piu_sms non_scrivetemi_piu toglietemi_dalla_lista",
    "Dutch": "stoppen afmelden uitschrijven geen_sms_meer geen_berichten_meer meld_me_af",
    "Nordic": "avsluta avregistrera stopp lopeta afmeld avmeld sluta sluta_skicka sluta_skicka_sms inga_fler_sms "
    "meld_meg_av ikke_flere_sms afmeld_mig peruuta_tilaus "
    "avslutt avregistrer afslut peruuta lopettakaa",
    "Polish": "koniec rezygnuje wypisz wypisz_mnie o_wypisanie wypisanie nie_chce_wiecej_sms rezygnacja zrezygnuj zatrzymaj",
    "Czech, Hungarian, Romanian": "zrusit odhlasit leiratkozas leiratkozom leiratkozni zrus odhlasit_odber dezabonare dezaboneaza_ma",
    "Russian, Ukrainian": "стоп отписаться отписка отпишите_меня хватит не_пишите_мне не_пишите_мне_больше больше_не_пишите "
    "відписатися відписатись відпишіть_мене "
    "отпишите отписать_меня отмена_подписки прекратите зупинити",
    "Greek": "στοπ διακοπη διαγραφη",
    "Turkish": "iptal durdur durdurun aboneligi_iptal_et abonelikten_cik mesaj_istemiyorum sms_istemiyorum istemiyorum",
    "Hebrew": "הסר הסירו להסרה הסר_אותי הסירו_אותי תסירו_אותי תפסיקו הפסק",
    "Arabic": "توقف ايقاف الغاء الغاء_الاشتراك الغي_الاشتراك ايقاف_الرسائل اوقف",
    "Hindi": "रोकें रोको बंद_करें बंद_करो बंद band_karo",
    "Indonesian, Malay": "berhenti henti berhenti_berlangganan hentikan",
    "Vietnamese": "huy_dang_ky tu_choi",
    "Thai": "ยกเลิก หยุด",
    "Chinese": "停止 请停止 請停止 退订 退訂 取消订阅 取消訂閱 取消 不要再发了 不要再發了 别再发了",
    "Japanese": "停止 配信停止 解除 登録解除 もう送らないで 配信不要 停止希望",
    "Korean": "거부 수신거부 중지 그만보내",
}
#: Words that are ordinary in another language: they count from numbers of these countries, and where none is known.
SCOPED = {
    "alto": _SPANISH,
    "dur": "TR CY",
    "ret": "TR CY",
    "ferma": "IT SM CH",
    "basta": "IT SM CH " + _SPANISH,
    "huy": "VN",
    "ende": "DE AT CH LI LU",
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
ok okay just sorry already immediately asap right_now fucking
bitte danke vielen_dank hallo jetzt merci svp sil_vous_plait bonjour por_favor gracias hola ya
bye goodbye sent_from_my_iphone sent_from_my_ipad sent_from_my_android sent_from_my_phone dong
obrigado obrigada per_favore grazie ciao alstublieft aub graag bedankt dank_je tack takk tak prosze dziekuje
пожалуйста спасибо lutfen tesekkurler ευχαριστω παρακαλω תודה בבקשה شكرا من_فضلك कृपया धन्यवाद tolong terima_kasih 谢谢 謝謝 请 請 ありがとう お願いします 감사합니다
"""
#: Courtesies of scripts that put no blanks between words.
_UNSPACED = (
    "谢谢",
    "謝謝",
    "请",
    "請",
    "してください",
    "して下さい",
    "お願いします",
    "ありがとう",
    "ครับ",
    "ค่ะ",
    "해주세요",
    "해줘",
    "합니다",
    "세요",
    "して",
    "부탁드립니다",
)


def wish(text: str, opt_out_type: str | None = None, country: str | None = None) -> Wish | None:
    """Return what a text asks for; ``None``: something else, for people to read.

    Args:
        text: the text as it came.
        opt_out_type: the provider's own reading of it, which goes before ours.
        country: the ISO code of the sender's number, as far as it is known.
    """
    if opt_out_type in set(Wish):
        return Wish(opt_out_type)
    words = _without_courtesies(_words(text))
    said = _without_endings("".join(words))
    if said not in _SCOPES and said not in _MEANINGS:
        # "STOPPPP": nobody writes a letter three times, except to be heard.
        said = "".join(_without_courtesies([_DRAWN_OUT.sub(r"\1", word) for word in words]))
    scope = _SCOPES.get(said)
    if scope is not None:
        return Wish.STOP if country is None or country in scope else None
    return _MEANINGS.get(said)


def names_stop(text: str) -> bool:
    """Return whether a text to people names one of the words of STOP, so that they know how to opt out.

    Words that any sentence may have, such as "end", count in capitals only.
    """
    parted = _UNSPACED_RUN.sub(r" \g<0> ", text)
    words = _words(parted)
    said, unspaced = f" {' '.join(words)} ", "".join(words)
    capitals = {"".join(_words(word)) for word in _LETTERS.findall(parted) if word.isupper()}
    return (
        any(f" {word} " in said for word in _NAMED)
        or any(word in unspaced for word in _NAMED_UNSPACED)
        or not capitals.isdisjoint(_ORDINARY)
    )


def _words(text: str) -> list[str]:
    """Return the words of a text without case and accents; vowel signs of other scripts are letters."""
    # Turkish has an i without a dot, which the other case does not tell apart.
    # Bold, squared and full-width letters have no other case before they are decomposed.
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold()).replace("\u0131", "i")
    plain = "".join(c for c in decomposed if not _ACCENT.match(c))
    # A zero-width character parts nothing.
    shown = (c for c in plain if unicodedata.category(c) != "Cf")
    return "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in shown).split()


def _without_endings(said: str) -> str:
    for courtesy in _UNSPACED_PLAIN:
        said = said.removeprefix(courtesy) or said
        said = said.removesuffix(courtesy) or said
    return said


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
#: Letters of scripts that put no blanks between words: Thai, kana, Chinese, and Korean, which puts endings behind
#: words.
_UNSPACED_RUN = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+")
_LETTERS = re.compile(r"[^\W\d_]+")
_DRAWN_OUT = re.compile(r"(.)\1{2,}")
_UNSPACED_PLAIN = ["".join(_words(each)) for each in _UNSPACED]
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
_STOP_WORDS = [word.replace("_", " ") for words in STOP.values() for word in words.split()]
#: Words of STOP that an advertisement has in other meanings, too.
_ORDINARY = {
    *("end", "cancel", "quit", "remove", "revoke", "fim", "koniec", "cancelar", "stopper", "cessez", "zatrzymaj"),
    *("peruuta", "avslutt", "afslut", "прекратите", "зупинити", *SCOPED),
}
_NAMED_UNSPACED = {"".join(_words(word)) for word in _STOP_WORDS if _UNSPACED_RUN.search(word)}
_NAMED = {" ".join(_words(word)) for word in _STOP_WORDS if not _UNSPACED_RUN.search(word)} - _ORDINARY
