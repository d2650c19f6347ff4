"""Short links: the same wherever a text is filled in, nobody else's, and never to a place that is no web address."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Push, Step, When
from knocktwice_worker.channels.registry import wording_of
from knocktwice_worker.channels.twilio.whatsapp import template_of
from knocktwice_worker.content import plans, sms_parts
from knocktwice_worker.content.links.short_links import (
    LINKS_LIMIT,
    TARGET_LIMIT,
    RefusedTarget,
    ShortLinks,
    Tracker,
    checked,
    is_token,
)
from knocktwice_worker.content.rendering import fingerprint, render_sms
from knocktwice_worker.content.templates import check
from support.rendered import render

BASE = "https://k2.example"
LINKS = ShortLinks(BASE, b"secret")
TARGET = "https://shop.example/orders/4711?from=sms#pay"
LINK = re.compile(r"https://k2\.example/l/([0-9A-Za-z]{12})")
SID = "HX" + "1" * 32


def tracker(step: int = 1) -> Tracker:
    return LINKS.of(str(uuid7()), step)


def sms(text: str, links: Tracker | None, **params: Any) -> str:
    return render(Push("t", "b"), text, params, links).sms


def test_an_address_becomes_a_link_that_stands_for_it() -> None:
    links = tracker()
    said = sms("Pay here: {{ url | track }}.", links, url=TARGET)
    found = LINK.search(said)
    assert found
    assert said == f"Pay here: {found[0]}."
    assert links.targets == {found[1]: TARGET}
    assert is_token(found[1])
    assert sms("{{ 'https://a.example/' | append: id | track }}", links, id="7") != said


def test_where_nobody_could_open_a_link_the_address_stays() -> None:
    assert sms("Pay here: {{ url | track }}", None, url="https://x.example/ä") == "Pay here: https://x.example/ä"


def test_the_push_keeps_the_address_and_the_sms_that_repeats_it_has_a_link() -> None:
    texts = render(Push("t", "See {{ url | track }}"), None, {"url": TARGET}, tracker())
    assert texts.body == f"See {TARGET}"
    assert LINK.fullmatch(texts.sms.removeprefix("See "))


@pytest.mark.parametrize(
    "target",
    [
        "",
        "shop.example",
        "//evil.example",
        "/orders",
        "javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://shop.example/",
        "https:shop.example",
        "https:/shop.example",
        "https:///shop.example",
        "https://",
        "https://?x",
        "https://#x",
        " https://shop.example",
        "https://shop.example/a b",
        "https://shop.example/\r\nSet-Cookie: a=b",
        "https://shop.example/\0",
        "https://shop.example/\x7f",
        "https://shop.example/\x85",
        "https://shop.example/\u2028x",
        "https://shop.example/\u200bx",
        "https://shop.example/\u202egpj.exe",
        "https://shop.example/\ud800",
        "https:\\\\evil.example",
        "https://shop.example\\@evil.example",
        "https://shop.example@evil.example",
        "https://user:pass@shop.example",
        "https://shop.example:99999/",
        "https://shop.example:x/",
        "https://[::1/",
        "https://shop%2eexample/",
        "https://shоp.example/",  # noqa: RUF001 - a Cyrillic letter
        "https://shop.example／evil",  # noqa: RUF001
        "https://shop.example/" + "x" * TARGET_LIMIT,
    ],
)
def test_what_is_no_web_address_gets_no_link(target: str) -> None:
    with pytest.raises(RefusedTarget) as refused:
        checked(target)
    assert "evil" not in str(refused.value)
    for links in (tracker(), None):
        with pytest.raises(InvalidMessage, match="track") as caught:
            sms("{{ url | track }}", links, url=target)
        assert caught.value.field == "content.sms.text"
        assert "evil" not in caught.value.problem


@pytest.mark.parametrize("value", [4711, 1.5, True, None, ["https://a.example"], {"url": "https://a.example"}])
def test_a_value_that_is_no_text_gets_no_link(value: object) -> None:
    with pytest.raises(InvalidMessage):
        sms("{{ url | track }}", tracker(), url=value)


def test_a_missing_address_is_refused_by_its_name() -> None:
    with pytest.raises(InvalidMessage, match="'url' is undefined"):
        sms("{{ url | track }}", tracker())


@given(
    st.text(), st.sampled_from(["https://shop.example/", "HTTP://shop.example:8080/?q=", "https://[::1]/#", "https://"])
)
def test_an_address_that_is_taken_can_stand_in_a_header_and_keeps_its_host(rest: str, start: str) -> None:
    try:
        target = checked(start + rest)
    except RefusedTarget:
        return
    assert re.fullmatch(r"(?i)https?://[!-~]+", target)
    assert target == checked(target)
    if start != "https://":
        assert urlsplit(target).netloc == urlsplit(start).netloc


def test_escapes_stay_and_other_letters_are_escaped() -> None:
    assert checked("https://shop.example/%C3%A4?q=a%20b&c=[d]#e") == "https://shop.example/%C3%A4?q=a%20b&c=[d]#e"
    assert checked("https://shop.example/ä") == "https://shop.example/%C3%A4"


def test_a_hundred_thousand_tokens_are_all_different_and_look_like_nothing() -> None:
    id_ = str(uuid7())
    tokens = {LINKS.of(id_, n % 10).link(f"https://shop.example/{n}") for n in range(50_000)}
    tokens |= {LINKS.of(str(uuid7()), 1).link(TARGET) for _ in range(50_000)}
    assert len(tokens) == 100_000
    assert {len(token) for token in tokens} == {len(BASE) + 3 + 12}
    # Each place takes all letters, about equally often.
    for place in range(-12, 0):
        letters = [token[place] for token in tokens]
        counts = [letters.count(letter) for letter in set(letters)]
        assert len(counts) == 62
        assert max(counts) < 1.3 * min(counts)


def test_another_secret_another_step_or_another_person_has_other_links() -> None:
    id_ = str(uuid7())
    made = {
        ShortLinks(BASE, b"secret").of(id_, 1).link(TARGET),
        ShortLinks(BASE, b"another").of(id_, 1).link(TARGET),
        ShortLinks(BASE, b"secret").of(id_, 2).link(TARGET),
        ShortLinks(BASE, b"secret").of(str(uuid7()), 1).link(TARGET),
    }
    assert len(made) == 4
    assert ShortLinks(f"{BASE}/", b"secret").of(id_.upper(), 1).link(TARGET) in made


@given(
    st.lists(st.sampled_from(["{{ a | track }} ", "{{ b | track }}", "€", "{{ n }}", "see "]), max_size=8).map("".join)
)
def test_the_text_that_is_checked_is_the_text_that_is_sent(text: str) -> None:
    # Nothing empty is sent.
    text = f"x{text}"
    id_, params = str(uuid7()), {"a": "https://a.example/x", "b": "https://b.example/y", "n": "N"}
    step = Step("sms", When.NOT_CLICKED, timedelta(hours=1), text or "x")
    made = {
        render(Push("t", "b"), text, params, LINKS.of(id_, 1)).sms,
        render_sms(None, text, params, links=LINKS.of(id_, 1)),
        plans.words({"channel": "sms", "text": text}, None, None, None, params, links=LINKS.of(id_, 1)).text,
    }
    assert len(made) == 1
    links = lambda n: LINKS.of(id_, n)  # noqa: E731 - it is short
    assert plans.problems([step], None, None, None, params, links, wording_of=wording_of) == {}
    # What a preview shows is somebody else's, and exactly as long.
    shown = render(Push("t", "b"), text, params, ShortLinks(BASE, b"example").of(str(uuid7()), 0)).sms
    (sent,) = made
    assert (len(shown), sms_parts.count(shown), sms_parts.encoding(shown)) == (
        len(sent),
        sms_parts.count(sent),
        sms_parts.encoding(sent),
    )


def test_whatsapp_variables_have_links_and_a_button_the_token_alone() -> None:
    links = tracker(2)
    step = {
        "channel": "whatsapp",
        "content_sid": SID,
        "variables": {"1": "{{ url | track }}", "2": "{{ url | track | remove: 'https://k2.example/l/' }}"},
    }
    said = plans.words(step, None, None, None, {"url": TARGET}, links=links, wording=wording_of("whatsapp"))
    _, variables = template_of(said.text)
    (token,) = links.targets
    assert variables == {"1": f"{BASE}/l/{token}", "2": token}


def test_texts_that_differ_in_nothing_but_their_tokens_are_the_same() -> None:
    def same(target: str) -> bytes:
        links = tracker()
        return fingerprint(links.content(sms("Pay: {{ url | track }}", links, url=target)))

    assert same(TARGET) == same(TARGET)
    assert same(TARGET) != same(TARGET + "2")


def test_one_address_twice_is_one_link_and_a_loop_cannot_make_thousands() -> None:
    links = tracker()
    sms("{{ url | track }} {{ url | track }}", links, url=TARGET)
    assert len(links.targets) == 1
    with pytest.raises(InvalidMessage, match="10 links in a message at most"):
        sms("{% for i in (1..11) %}{{ url | append: i | track }}{% endfor %}", links, url="https://a.example/")
    assert len(links.targets) == LINKS_LIMIT


def test_a_template_may_track_and_is_told_of_what_does_not_exist() -> None:
    def definition(text: str) -> Any:
        content = {"push": {"title": "t", "body": "b"}, "sms": text}
        return check("order", {"default_locale": "en", "contents": {"en": content}})

    assert definition("Pay: {{ url | track }}").parameters == ["url"]
    with pytest.raises(InvalidMessage, match=r"unknown filter 'trakc'; there are .*track"):
        definition("Pay: {{ url | trakc }}")
