"""A file is read as it looks, and all of its mistakes are named with their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from knocktwice_worker.declarations import apply
from knocktwice_worker.declarations.apply import InvalidFile
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
        apply.read(str(file))
    return str(caught.value).replace(str(file), "FILE")


def test_a_file_declares_templates_by_name(file: Path) -> None:
    file.write_text(TEMPLATE)
    push = {"title": "Hello", "body": "{{ name }}"}
    assert apply.read(str(file)) == {
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
    contents = apply.read(str(file))["templates"]["order"]["contents"]
    assert contents["fr"] == contents["en"]
    assert contents["de"] == contents["en"] | {"sms": "Hallo"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "FILE: must have templates"),
        ("[]", "FILE: must have templates"),
        ("tempaltes: {}", "FILE: tempaltes: is not known; there is templates"),
        ("templates: []", "FILE: templates: must have a name for each template"),
        ("templates: {a b: {}}", "FILE: templates.a b: a name has letters, digits, _ . and -, 100 at most"),
        ("templates:\n  a: [", "FILE:2:7: expected the node content, but found '<stream end>'"),
        ("templates:\n  a: {}\n  a: {}", "FILE:3:3: a is there twice"),
        ("templates: !!python/object:os.system {}", "FILE:1:12: could not determine a constructor for the tag"),
        ("\0", "FILE: is not YAML (ReaderError)"),
    ],
)
def test_a_file_that_declares_nothing_says_why(file: Path, content: str, said: str) -> None:
    assert complaint(file, content).startswith(said)


def test_every_template_with_a_mistake_is_named(file: Path) -> None:
    wrong = TEMPLATE.replace("title: Hello", "title: 7") + "  other:\n    default_locale: en\nsegment: {}\n"
    assert complaint(file, wrong).splitlines() == [
        "FILE: segment: is not known; there is templates, segments, blasts",
        "FILE: templates.order.contents.en.push.title: must be text; put it in quotes",
        "FILE: templates.other.contents: is missing",
    ]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"nothing\.yaml: No such file"):
        apply.read(str(tmp_path / "nothing.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    with pytest.raises(InvalidFile, match=r"latin\.yaml: is not text in UTF-8"):
        apply.read(str(tmp_path / "latin.yaml"))


def test_what_is_shown_can_be_read_again(file: Path) -> None:
    value = {"no": "no", "a": "12:30", "b": "{{ x }}: 1", "c": "ünï\nzwei", "d": "010"}
    file.write_text(declared_yaml.dump(value))
    assert declared_yaml.load(str(file)) == value
