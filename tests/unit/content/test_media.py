"""Media of an SMS: what is taken, what is refused, and how text and media are kept as one."""

from __future__ import annotations

from typing import Any

import pytest

from knocktwice import Sms, WhatsApp
from knocktwice.testing import RecordingClient
from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import parse_batch
from knocktwice_worker.channels.registry import CHANNELS, wording_of
from knocktwice_worker.content import media, plans, resolution
from knocktwice_worker.content.rendering import fingerprint
from knocktwice_worker.content.templates import InvalidDefinition, check

PICTURE = "https://shop.example/parcels/4711.png"
SID = "HX" + "0a" * 16


def _wire(given: object, params: dict[str, Any] | None = None, **step: object) -> dict[str, Any]:
    return {
        "v": 1,
        "id": "019a9d3c-5a00-7000-8000-000000000001",
        "content": {},
        "plan": [{"channel": "sms", "text": "Your parcel", "media": given, **step}],
        "recipients": [
            {"id": "019a9d3c-5a00-7000-8000-000000000002", "phone": "+16505550100", "params": params or {}},
        ],
    }


@pytest.mark.parametrize("given", [PICTURE, [PICTURE], (PICTURE,)], ids=type)
def test_one_address_or_several_are_taken(given: object) -> None:
    (step,) = parse_batch(_wire(given)).plan or ()
    assert step.content == {"media": [PICTURE]}
    assert not step.plain
    assert plans.stored_plan([step]) is not None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("http://shop.example/a.png", "must be an https address"),
        ("ftp://shop.example/a.png", "must be an https address"),
        ("shop.example/a.png", "must be an https address"),
        ("https://", "names no host"),
        ("https:///a.png", "names no host"),
        ("https://shop.example:99999/a.png", "names no host"),
        ("https://shop.example\\@evil.example/a.png", "names no host"),
        ("https://shop.example/a b.png", "white space"),
        ("https://shop.example/é.png", "outside ASCII"),
        ("https://shop.example/" + "x" * 2_000, "2000 at most"),
        ("http://shop.example/{{ id }}.png", "must be an https address"),
        (7, "must be a list"),
        ([], "1 to 10 are allowed"),
        ([PICTURE] * 11, "1 to 10 are allowed"),
        ({}, "has no language"),
    ],
)
def test_what_no_provider_could_fetch_is_refused(given: object, problem: str) -> None:
    with pytest.raises(InvalidMessage, match=problem) as caught:
        parse_batch(_wire(given))
    assert caught.value.field.startswith("plan[0].media")


def test_all_wrong_addresses_are_named_at_once() -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse_batch(_wire([PICTURE, "http://a.example/b", "x"], text=7))
    named = {problem.field for problem in caught.value.problems}
    assert named == {"plan[0].media[1]", "plan[0].media[2]", "plan[0].text"}


def test_a_placeholder_is_filled_in_and_then_judged() -> None:
    given = ["https://shop.example/{{ id }}.png"]
    parse_batch(_wire(given, {"id": "47 11"}))
    with pytest.raises(InvalidMessage, match=r"plan\[0\]\.media\[0\] uses \{\{ id \}\}"):
        parse_batch(_wire(given))
    with pytest.raises(InvalidMessage, match=r"fill in plan\[0\]\.media\[0\] to what must be an https address"):
        parse_batch(_wire("{{ url }}", {"url": "http://a.example"}))
    batch = parse_batch(_wire(["https://shop.example/{{ id | upcase }}.png"], {"id": "a b"}))
    step = plans.written((batch.plan or ())[0])
    said = plans.words(step, None, None, None, {"id": "a b/../é"}, wording=wording_of("sms"))
    assert media.parted(said.text) == ("Your parcel", ["https://shop.example/A%20B%2F..%2F%C3%89.png"])
    # What only Liquid can tell is judged when the step is written.
    with pytest.raises(InvalidMessage, match="must be an https address"):
        plans.words({"media": ["{{ url }}"], "text": "x"}, None, None, None, {"url": "http://a.example"})


def test_each_language_has_its_own_media() -> None:
    other = "https://shop.example/de.png"
    wire = _wire({"en": PICTURE, "de": [other, PICTURE]}, text={"en": "Your parcel", "de": "Ihr Paket"})
    batch = parse_batch(wire)
    assert batch.locales == ("en", "de")
    (step,) = resolution.spoken(batch, None).plan
    said = plans.words(plans.written(step), None, None, "de", {}, wording=wording_of("sms"))
    assert media.parted(said.text) == ("Ihr Paket", [other, PICTURE])
    with pytest.raises(InvalidMessage, match="has nothing for de"):
        parse_batch(_wire({"en": PICTURE}, text={"en": "a", "de": "b"}))


def test_whatsapp_is_told_how_its_templates_take_media() -> None:
    step: dict[str, Any] = {"channel": "whatsapp", "content_sid": SID, "text": None}
    with pytest.raises(InvalidMessage, match="a picture's path among them") as caught:
        parse_batch(_wire(PICTURE, **step))
    assert caught.value.field == "plan[0].media"


def test_a_template_declares_media_once_or_by_language() -> None:
    words = {"push": {"title": "Your parcel", "body": "It is here."}}
    step = {"when": "not_clicked", "after": "5m", "media": {"en": "https://a.example/{1}.png", "de": [PICTURE]}}
    made = check("t", {"default_locale": "en", "contents": {"en": words, "de": words}, "fallback": step})
    assert made.parameters == ["1"]
    said = plans.words(plans.written(made.plan[0]), *made.content("en"), "en", {"1": "7"}, wording=wording_of("sms"))
    assert media.parted(said.text) == ("It is here.", ["https://a.example/7.png"])
    assert check("t", made.as_json()).as_json() == made.as_json()
    for wrong, problem in (({"en": PICTURE}, "has nothing for de"), ("http://a.example/b", "must be an https address")):
        with pytest.raises(InvalidDefinition, match=problem):
            check(
                "t",
                {"default_locale": "en", "contents": {"en": words, "de": words}, "fallback": {**step, "media": wrong}},
            )


@pytest.mark.parametrize("text", ["Hello", "\x1e", '\x1e["a","https://b.example"]', "line\nline", ""])
@pytest.mark.parametrize("addresses", [[], [PICTURE], [PICTURE, PICTURE]], ids=len)
def test_text_and_media_come_apart_again(text: str, addresses: list[str]) -> None:
    kept = media.joined(text, addresses)
    assert media.parted(kept) == (text, addresses)
    assert (kept == text) == (not addresses and not text.startswith("\x1e"))


@pytest.mark.parametrize("text", ["\x1e", "\x1e5", '\x1e"abc"', "\x1e[]", "\x1e[1]", "\x1e{}"])
def test_a_text_that_nobody_joined_is_its_own(text: str) -> None:
    assert media.parted(text) == (text, [])


def test_other_media_are_another_content() -> None:
    plain, one = fingerprint("Your  PARCEL"), fingerprint(media.joined("your parcel", [PICTURE]))
    assert plain == fingerprint("your parcel")
    assert one == fingerprint(media.joined("Your parcel ", [PICTURE]))
    assert len({plain, one, fingerprint(media.joined("your parcel", [PICTURE.upper()]))}) == 3


def test_media_count_as_three_parts_or_as_the_parts_of_the_text() -> None:
    sms = CHANNELS["sms"]
    sizes = [sms.size(media.joined(text, [PICTURE])) for text in ("x", "x" * 459, "x" * 460)]
    assert sizes == [3, 3, 4]
    assert sms.size("x") == 1
    shown = sms.shown(media.joined("x", [PICTURE]))
    assert shown == {"text": "x", "encoding": "GSM-7", "sms_parts": 3, "media": [PICTURE]}


def test_the_library_writes_media_into_the_step() -> None:
    client = RecordingClient()
    client.notify(phone="+16505550100", sms=Sms("Your parcel", media=(PICTURE,)))
    client.notify(phone="+16505550100", steps=[WhatsApp(SID), Sms("Your parcel", media={"en": (PICTURE,)})])
    with pytest.raises(InvalidMessage) as caught:
        client.notify(phone="+16505550100", sms=Sms("Your parcel", media="http://a.example/b"))
    assert caught.value.field == "sms.media"
    with pytest.raises(InvalidMessage, match="template's own"):
        client.notify(phone="+16505550100", template="t", push=False, sms=Sms(media=PICTURE))
