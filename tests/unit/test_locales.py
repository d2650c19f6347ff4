"""Somebody reads the nearest language there is: likely subtags, macro-languages and distances are CLDR's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_worker.content.locales import canonical, negotiate, plain

#: What there is | wanted=best, "-" for none. The cases are those of CLDR's own test of language matching
#: (localeMatcherTest.txt), as far as they are about one wanted language.
CLDR = """
es-419, es-ES | es-AR=es-419
es-MX, es | es-AR=es-MX
en-GB, en-US | en-AU=en-GB en-CA=en-GB en-IN=en-GB en-ZA=en-GB en=en-US en-US=en-US ja=- fr-CA=-
en-NZ, en | en-AU=en-NZ
pt-PT, pt-BR | pt-AO=pt-PT pt-US=pt-BR pt=pt-BR pt-MZ=pt-PT
pt, pt-PT | pt-AO=pt-PT pt-ES=pt-PT pt-US=pt pt-BR=pt
pt-BR, es | pt-PT=pt-BR pt=pt-BR
zh-MO, zh-TW | zh-HK=zh-MO
zh-MO, zh-CN | zh-HK=zh-MO
zh, zh-TW, zh-MO | zh-HK=zh-MO
zh, zh-TW, zh-HK | zh-MO=zh-HK
zh-CN, zh-TW, iw | zh-Hant-TW=zh-TW zh-Hant=zh-TW zh-TW=zh-TW zh-Hans-CN=zh-CN zh-CN=zh-CN zh=zh-CN zh-Hant-HK=zh-TW he-IT=iw
fr, en, en-GB, es-419, es-MX, es | en-NZ=en-GB es-ES=es es-AR=es-419 es-MX=es-MX
en, hi | sa=hi
fr, en-GB, en | en-GB=en-GB en=en fr=fr ja=- en-US=en
en, fil, ro, nn | tl=fil mo=ro nb=nn ja=-
en, en-GB, es, es-419 | es-MX=es-419 en-AU=en-GB es-ES=es es-PT=es
zh, zh-Hant | und-TW=zh-Hant
fr, en-US | en-GB-oed=en-US
en, ja | ja-Jpan-JP=ja ja-JP=ja
en, de, fr, ja | de-CH=de
fr, zh-Hans-CN, en-US | zh-TW=zh-Hans-CN zh-Hant=zh-Hans-CN zh-Hans=zh-Hans-CN
it, fr | und=-
it, en | und=-
es-AR, es | es-MX=es-AR
fr, en, en-GB | en-CA=en-GB
de-AT, de-DE, de-CH | de=de-DE
nl, en | af=nl
af, en | nl=-
es, es-MA, es-MX, es-419 | es-AR=es-419 es-EA=es
es, es-MA, es-MX | es-AR=es-MX
es-MA, es-MX, es-419 | es-EA=es-MA
en, en-GU, en-IN, en-GB | en-ZA=en-GB en-VI=en
en, en-GU, en-IN | en-ZA=en-IN
da, ru, hr | sr=-
es, es-MX | gl-ES=es es=es es-MX=es-MX es-419=es-MX es-US=es-MX es-AD=es es-PH=es es-001=es ca=-
sr | sr-ME=sr bs=- sr-Latn=sr
sr-ME | sr=sr-ME
sr-Latn | bs=- sr=sr-Latn hr=-
bs | sr-Latn=- sr=-
en, sr, nl | sr-Latn=sr hr=- bs=- nl-Cyrl=-
sr-Cyrl, sr-Latn, ro, ro-MD | sh=sr-Latn mo=ro
en, nb | nn=nb da=nb
en, nn | da=-
en, no | da=no nb=no nn=no
nl, zh, en-GB, no | cmn=zh nb=no
nl, he, en-GB | iw=he
nl, fil, en-GB | tl=fil
en, ro, ro-MD | ro=ro mo=ro ro-MD=ro-MD
af | af=af af-ZA=af af-Latn-ZA=af
nl, nl-NL, nl-BE | nl=nl nl-NL=nl-NL
es-419, es | es-MX=es-419 es-SG=es
en, fr, fr-CA, fr-CH | fr-US=fr
it, fr, zh | und-FR=fr und-CN=zh und-Hans=zh und-Hant=zh
ja, ja-JP, en, ru | ja-Jpan=ja ja-JP=ja-JP
en, en-US, en-GB, zh, zh-Hant, zh-Hant-HK | en-150=en-GB en-BE=en-GB en-HK=en-GB en-SG=en-GB en-DE=en-GB
zh | zh-TW=zh
zh-TW, en | zh-CN=zh-TW
fr-CA, fr-FR | fr=fr-FR fr-SN=fr-CA
en, fr-CA | fr-FR=fr-CA
en, fr-FR | fr=fr-FR
de, en, it | fr=-
iw, en | iw-Latn=-
iw, no | ru=-
en, uk | ru=-
ja | ru=-
de, en | de-FR-u-co-phonebk=de
"""


def _best(wanted: str, available: list[str]) -> str:
    spelt = {}
    for tag in available:
        try:
            spelt[canonical(tag)] = tag
        except ValueError:
            # CLDR has no data of that country, and such a template none either.
            spelt[tag] = tag
    return spelt.get(negotiate(wanted, frozenset(spelt)) or "", "-")


@pytest.mark.parametrize(
    ("available", "wanted", "best"),
    [
        (available.split(", "), *case.split("="))
        for available, _, cases in (line.partition(" | ") for line in CLDR.strip().splitlines())
        for case in cases.split()
    ],
)
def test_the_nearest_is_that_of_cldr(available: list[str], wanted: str, best: str) -> None:
    assert _best(wanted, available) == best


@pytest.mark.parametrize(
    ("wanted", "available", "best"),
    [
        ("zh_CN_#Hans", ["en", "zh", "zh-TW"], "zh"),
        ("zh_TW_#Hant", ["en", "zh", "zh-TW"], "zh-TW"),
        ("zh-HK", ["zh", "zh-TW"], "zh-TW"),
        ("zh-Hant-HK", ["zh-CN", "zh-TW", "en"], "zh-TW"),
        ("pt-PT", ["en", "pt-BR"], "pt-BR"),
        ("no", ["en", "nb"], "nb"),
        ("nb-NO", ["en", "no"], "no"),
        ("sr-Latn", ["en", "hr", "sr"], "sr"),
        ("sr__#Latn", ["en", "sr-Latn", "sr"], "sr-Latn"),
        ("iw_IL", ["en", "he"], "he"),
        ("in_ID", ["en", "id"], "id"),
        ("en_US@calendar=buddhist", ["en", "th"], "en"),
        ("th_TH_TH_#u-nu-thai", ["en", "th"], "th"),
        ("ja_JP_JP_#u-ca-japanese", ["en", "ja"], "ja"),
        ("de_AT.UTF-8", ["de", "de-AT"], "de-AT"),
        ("de-DE-u-co-phonebk", ["de", "en"], "de"),
        ("uk", ["ru", "en"], "-"),
        ("no_NO_NY", ["en", "nb"], "nb"),
        ("pt_BR_", ["en", "pt-BR"], "pt-BR"),
        ("en-US-variantunheardof", ["de", "en"], "en"),
        ("zh-CHT", ["zh-Hans", "zh-Hant"], "zh-Hant"),
        ("zh-CHS", ["zh-Hans", "zh-Hant"], "zh-Hans"),
        ("sr_RS@latin", ["sr", "sr-Latn"], "sr-Latn"),
        ("uz_UZ@cyrillic", ["uz-Latn", "uz-Cyrl"], "uz-Cyrl"),
        ("fr-CH, fr;q=0.9, en;q=0.8", ["en", "fr"], "fr"),
        ("de;q=1", ["en", "de"], "de"),
        ("undefined", ["en"], "-"),
        ("*", ["en"], "-"),
        ("", ["en"], "-"),
    ],
)
def test_a_locale_is_read_as_phones_write_it(wanted: str, available: list[str], best: str) -> None:
    assert _best(wanted, available) == best


@pytest.mark.parametrize(
    ("tag", "meant"),
    [
        ("cn", "zh"),
        ("jp", "ja"),
        ("kr", "ko"),
        ("dk", "da"),
        ("cz", "cs"),
        ("us", "en"),
        ("german", "de"),
        ("Chinese", "zh"),
    ],
)
def test_a_country_or_a_name_is_refused_with_the_language_that_is_meant(tag: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"is not a locale such as de or de-AT; did you mean {meant}"):
        canonical(tag)


@pytest.mark.parametrize("tag", ["und", "root", "x-piglatin", "C", "de,en", "de;q=1", "en_EN", "undefined"])
def test_no_language_is_no_locale(tag: str) -> None:
    with pytest.raises(ValueError, match="is not a locale"):
        canonical(tag)


@given(st.text(max_size=40) | st.text(alphabet="deznhHansTW-_#@.u", max_size=20))
def test_any_text_finds_a_locale_or_none(text: str) -> None:
    plain(text)
    assert negotiate(text, frozenset({"de", "zh-Hant-TW"})) in (None, "de", "zh-Hant-TW")
