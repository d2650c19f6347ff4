"""A file is read as it looks, and all of its mistakes are named with their place."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knocktwice_worker.declarations import files
from knocktwice_worker.declarations.files import InvalidFile
from knocktwice_worker.notation import declared_yaml

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = """
templates:
  order:
    default_locale: en
    contents:
      en: &en
        push: {title: Hello, body: "{{ name }}"}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.yaml"


def complaint(file: Path, content: str) -> str:
    """Return what is said about a file, without its path."""
    file.write_text(content)
    with pytest.raises(InvalidFile) as caught:
        files.read(str(file))
    return str(caught.value).replace(str(file), "FILE")


def test_a_file_declares_templates_by_name(file: Path) -> None:
    file.write_text(TEMPLATE)
    push = {"title": "Hello", "body": "{{ name }}"}
    assert files.read(str(file)) == {
        "templates": {"order": {"default_locale": "en", "contents": {"en": {"push": push}}}}
    }


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        *(("no", "no"), ("yes", "yes"), ("on", "on"), ("12:30", "12:30"), ("2026-11-21", "2026-11-21"), ("010", "010")),
        *(("0x1f", "0x1f"), ("1_000", "1_000"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None)),
        *(("10", 10), ("-3", -3), ("1.5", 1.5), ("'10'", "10"), ("5m", "5m"), ("=", "=")),
    ],
)  # fmt: skip
def test_a_word_is_what_it_looks_like(file: Path, scalar: str, value: object) -> None:
    file.write_text(f"a: {scalar}\nno: 1")
    assert declared_yaml.load(str(file)) == {"a": value, "no": 1}


def test_parts_may_be_shared(file: Path) -> None:
    file.write_text(TEMPLATE + "      de:\n        <<: *en\n        sms: Hallo\n      fr: *en\n")
    contents = files.read(str(file))["templates"]["order"]["contents"]
    assert contents["fr"] == contents["en"]
    assert contents["de"] == contents["en"] | {"sms": "Hallo"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "FILE:1:1: must have templates"),
        ("[]", "FILE:1:1: must have templates"),
        ("tempaltes: {}", "FILE:1:1: tempaltes: is not known; there is templates"),
        ("templates: []", "FILE:1:1: templates: must have a name for each template"),
        ("templates: {a b: {}}", "FILE:1:13: templates.a b: a name has letters, digits, _ . and -, 100 at most"),
        ("templates:\n  a: [", "FILE:2:7: expected the node content, but found '<stream end>'"),
        ("templates:\n  a: {}\n  a: {}", "FILE:3:3: a is there twice"),
        ("templates: !!python/object:os.system {}", "FILE:1:12: could not determine a constructor for the tag"),
        ("a: 1\nb: \0", "FILE:2:4: holds a control character; remove it"),
    ],
)
def test_a_file_that_declares_nothing_says_why(file: Path, content: str, said: str) -> None:
    assert complaint(file, content).startswith(said)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a:\n  title: {{ name }}\n", "FILE:2:11: a text with {{ or {% is not in quotes; put it in quotes"),
        ("title: {{ name }} is here\n", "FILE:1:19: a text with {{ or {% is not in quotes; put it in quotes"),
        ("a:\n  b: Hello {{ name }}: you\n", "FILE:2:22: a text with {{ or {% is not in quotes; put it in quotes"),
        ("b: {% if x %}a{% endif %}", "FILE:1:5: a text with {{ or {% is not in quotes; put it in quotes"),
        ("a: '{{ x }}'\nb: c: d", "FILE:2:5: mapping values are not allowed here; if it is a text with a colon, put"),
        (
            "a:\n\tb: 1",
            "FILE:2:1: found character '\\t' that cannot start any token; indent with blanks, not with tabs",
        ),
        (
            "a: @all",
            "FILE:1:4: found character '@' that cannot start any token; if a text begins with it, put the text",
        ),
        ("a: *sale", "FILE:1:4: found an undefined alias; if a text begins with * or &, put the text in quotes"),
        ("a: !secret x", "FILE:1:4: could not determine a constructor for the tag; if a text begins with !, put"),
        ("a: 1\n---\nb: 2", "FILE:2:1: but found another document; a file is one document"),
        ("? [a, b]\n: 1", "FILE:1:3: a key must be a word; put the text in quotes"),
        ("a: {b: {{c: 1}: 2}}", "FILE:1:9: a text with {{ or {%"),
        ("a: 'x\nb: 1\n", "FILE:1:4: found unexpected end of stream; a quote is opened and not closed"),
        ("a: &a [*a]", "FILE:1:4: holds itself; remove the alias"),
        (BOMB, "FILE:5:4: aliases make over 100000 values of it; write fewer"),
        ('a: "\\ud800"', "FILE:1:4: holds a character that cannot be stored; leave it out"),
        ("a: " + "9" * 5000, "FILE:1:4: is not what its tag says; put the text in quotes"),
        ("a: !!bool x", "FILE:1:4: is not what its tag says; put the text in quotes"),
        ("a: !!timestamp x", "FILE:1:4: could not determine a constructor for the tag"),
        ("[" * 3000, "FILE:1:1: is nested too deeply"),
        ("# nothing", "FILE:1:1: must have templates"),
        ("~: 1", "FILE:1:1: None: is not known; there is templates"),
        ("segments:\n  1: {filter: {everyone: true}}", "FILE:2:3: segments.1: must be text; put quotes around it"),
        ("blasts:\n  x.y:\n    segment: a\n    schedule: 1", "FILE:2:3: blasts.x.y.template: is missing"),
        ("blasts: {x: {segment: a, template: b, schedule: '1'}}", "FILE:1:39: blasts.x.schedule: must be five fields"),
    ],
)
def test_a_mistake_has_its_place_and_its_remedy(file: Path, content: str, said: str) -> None:
    assert complaint(file, content).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: ü".encode("utf-16"), "FILE:1:1: is UTF-16; save it as UTF-8"),
        ("a: 1\nb: ü".encode("latin-1"), "FILE:2:4: is not text in UTF-8; save it as UTF-8"),
        (b"\x1f\x8b\x08", "FILE:1:2: is not text in UTF-8"),
    ],
)
def test_another_encoding_is_named(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(InvalidFile) as caught:
        files.read(str(file))
    assert str(caught.value).replace(str(file), "FILE").startswith(said)


def test_windows_may_have_written_it(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + TEMPLATE.replace("\n", "\r\n").encode())
    assert list(files.read(str(file))["templates"]) == ["order"]


@given(st.text(alphabet="ab{}[]:-,&*!|>'\"%@`#?~ \n\t<.01", max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_taken_or_refused_with_a_place(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(InvalidFile) as caught:
        files.read(str(file))
    for line in str(caught.value).splitlines():
        assert re.match(r"FILE:[0-9]+:[0-9]+: ", line.replace(str(file), "FILE"))


def test_every_template_with_a_mistake_is_named(file: Path) -> None:
    wrong = TEMPLATE.replace("title: Hello", "title: 7") + "  other:\n    default_locale: en\nsegment: {}\n"
    assert complaint(file, wrong).splitlines() == [
        "FILE:10:1: segment: is not known; there is templates, segments, blasts",
        "FILE:7:16: templates.order.contents.en.push.title: must be text; put it in quotes",
        "FILE:8:3: templates.other.contents: is missing",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"nothing\.yaml: No such file"):
        files.read(str(tmp_path / "nothing.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    with pytest.raises(InvalidFile, match=r"latin\.yaml:1:4: is not text in UTF-8; save it as UTF-8"):
        files.read(str(tmp_path / "latin.yaml"))


def test_what_is_shown_can_be_read_again(file: Path) -> None:
    value = {"no": "no", "a": "12:30", "b": "{{ x }}: 1", "c": "ünï\nzwei", "d": "010"}
    file.write_text(declared_yaml.dump(value))
    assert declared_yaml.load(str(file)) == value
