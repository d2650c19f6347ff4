"""``knocktwice notify``: the steps of a plan from the command line, and what is said of a wrong one."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_shared.names import INBOX_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from support.commands import CommandOutput

HX = "HX0123456789abcdef0123456789abcdef"
SAY = ("notify", "--registration", "reg", "--phone", "+16505550100", "--title", "t", "--body", "b")


def _plan(valkey: redis.Redis) -> list[dict[str, Any]]:
    (kept,) = valkey.hvals(INBOX_MESSAGES)
    plan: list[dict[str, Any]] = json.loads(kept)["message"]["plan"]
    return plan


def test_each_step_is_an_option_of_its_own(run: Callable[..., CommandOutput], valkey: redis.Redis) -> None:
    steps = [
        f'whatsapp:{HX} variables.1=Ana "variables.2=a b=c" after=5m',
        "sms when=not_clicked after=7200 text='Ready, Ana'",
    ]
    done = run(*SAY, "--step", steps[0], "--step", steps[1], "--json")
    assert (done.code, list(done.json)) == (0, ["id"])
    assert _plan(valkey) == [
        {"channel": "whatsapp", "when": "not_delivered", "after_s": 300.0, "content_sid": HX,
         "variables": {"1": "Ana", "2": "a b=c"}},
        {"channel": "sms", "when": "not_clicked", "after_s": 7200.0, "text": "Ready, Ana"},
    ]  # fmt: skip


def test_media_of_a_step_are_given_one_by_one(run: Callable[..., CommandOutput], valkey: redis.Redis) -> None:
    one, two = "https://a.example/1.png", "https://a.example/{{ n }}.png"
    assert run(*SAY, "--step", f"sms media={one} 'media={two}'", "--param", "n=2").code == 0
    assert _plan(valkey)[0]["media"] == [one, two]
    refused = run(*SAY, "--step", f"sms media=http://a.example media.en={one}")
    assert refused.code != 0
    assert "steps[0].media.en: stands beside media" in refused.err
    assert "steps[0].media[0]: must be an https address" in run(*SAY, "--step", "sms media=http://a.example").err


def test_without_a_push_the_first_step_goes_at_once(run: Callable[..., CommandOutput], valkey: redis.Redis) -> None:
    assert run("notify", "--phone", "+16505550100", "--step", f"whatsapp:{HX}", "--step", "sms text=x").code == 0
    assert [(s["channel"], "after_s" in s) for s in _plan(valkey)] == [("whatsapp", False), ("sms", True)]


def test_a_file_holds_steps_as_a_template_does(
    run: Callable[..., CommandOutput], valkey: redis.Redis, tmp_path: Path
) -> None:
    file = tmp_path / "steps.yaml"
    file.write_text(
        f'- {{channel: whatsapp, content_sid: {HX}, variables: {{"1": "{{{{ name }}}}"}}, after: 90s}}\n'
        "- when: not_clicked\n  after: 2h\n  text: Grüße, Ana\n"
    )
    assert run(*SAY, "--param", "name=Ana", "--steps", str(file)).code == 0
    first, second = _plan(valkey)
    assert (first["after_s"], first["variables"]) == (90.0, {"1": "{{ name }}"})
    assert (second["channel"], second["text"]) == ("sms", "Grüße, Ana")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("", "steps[0]: is empty; write it like 'sms when=not_clicked"),
        ("sms text='x", "steps[0]: has No closing quotation; write it like"),
        ("fax text=x", "steps[0].channel: must be sms or whatsapp"),
        ("sms hello there", "steps[0]: 'hello' must be NAME=VALUE"),
        ("sms text=x text=y", "steps[0].text: is there twice"),
        ("sms colour=red", "steps[0].colour: is no field of a step by sms; there are when, after, sender, text"),
        ("sms:HX1", "steps[0].content_sid: is no field of a step by sms"),
        ("whatsapp text=x", "steps[0].text: is no field of a step by whatsapp"),
        ("whatsapp after=5m", "steps[0].content_sid: is missing; write whatsapp:HX…"),
        ("whatsapp:HX1", "steps[0].content_sid: "),
        ("sms after=soon", 'steps[0].after: must be seconds or a time like "90s", "5m", "2h" or "1d"'),
        ("sms after=-5", "steps[0].after: must be"),
        ("sms after=31d", "steps[0].after: must be between 0 and 30 days"),
        ("sms when=later", "steps[0].when: "),
    ],
)
def test_a_wrong_step_is_told_its_field(
    run: Callable[..., CommandOutput], valkey: redis.Redis, step: str, said: str
) -> None:
    done = run(*SAY, "--step", step)
    assert (done.code, done.out) == (1, "")
    assert said in done.err
    assert valkey.hlen(INBOX_MESSAGES) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "steps: cannot be read: "),
        ("a: 1", "must hold a list of steps, as a template's fallback is written"),
        ("[]", "must hold a list of steps"),
        ("- [1]", "steps[0]: must be fields with values"),
        ("- {1: x}", "steps[0]: must be fields with values"),
        ("- {after: 5m}\n- {channel: [sms]}", "steps[1].channel: must be sms or whatsapp"),
        ("- {after: true}", "steps[0].after: must be seconds or a time"),
        ("- {text: [x]}", "steps[0].text: must be"),
        ("- {channel: whatsapp, content_sid: 7}", "steps[0].content_sid: must be"),
        (f"- {{channel: whatsapp, content_sid: {HX}, variables: [1]}}", "steps[0].variables: must be"),
        ("- {sender: 7}", "steps[0].sender: must be"),
    ],
)
def test_a_wrong_file_is_told_its_field(
    run: Callable[..., CommandOutput], tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "steps.yaml"
    if content is not None:
        file.write_text(content)
    done = run(*SAY, "--steps", str(file))
    assert (done.code, done.out) == (1, "")
    assert said in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--step", "sms", "--sms", "x"), "--sms"),
        (("--step", "sms", "--when", "never"), "--when"),
        (("--step", "sms", "--after", "5"), "--after"),
    ],
)
def test_a_plan_is_told_in_one_way(run: Callable[..., CommandOutput], options: tuple[str, ...], said: str) -> None:
    done = run(*SAY, *options)
    assert done.code == 2
    assert said in done.err
    assert "belongs into a step" in done.err
    assert "give one of them" in run(*SAY, "--step", "sms", "--steps", "x.yaml").err


def test_the_example_of_the_document_is_accepted(run: Callable[..., CommandOutput], valkey: redis.Redis) -> None:
    document = (Path(__file__).parents[3] / "docs" / "plans.md").read_text()
    (example,) = re.findall(r"^```console\n\$ knocktwice (.*?)\n```", document, re.DOTALL | re.MULTILINE)
    assert run(*shlex.split(example.replace("\\\n", ""))).code == 0
    assert [step["channel"] for step in _plan(valkey)] == ["whatsapp", "sms"]


def test_a_file_says_it_by_language(run: Callable[..., CommandOutput], valkey: redis.Redis, tmp_path: Path) -> None:
    file = tmp_path / "contents.yaml"
    file.write_text("en: {push: {title: Hello, body: b}, sms: Hi}\nde: {push: {title: Hallo, body: c}, sms: Na}\n")
    whom = ("notify", "--registration", "reg", "--phone", "+16505550100")
    step = "sms text.en=First text.de=Erste"
    assert run(*whom, "--contents", str(file), "--default-locale", "de", "--sound", "none").code == 0
    assert run(*whom, "--contents", str(file), "--step", step).code == 0
    said = [json.loads(kept)["message"] for kept in valkey.hvals(INBOX_MESSAGES)]
    first, second = sorted(said, key=lambda message: "text" in message["plan"][0] if message["plan"] else False)
    assert first["content"] == {
        "push": {"title": {"en": "Hello", "de": "Hallo"}, "body": {"en": "b", "de": "c"}, "sound": "none"},
        "sms": {"text": {"en": "Hi", "de": "Na"}},
        "default_locale": "de",
    }
    assert second["plan"][0]["text"] == {"en": "First", "de": "Erste"}
    refused = run(*whom, "--contents", str(file), "--title", "Hello")
    assert (refused.code, "--contents" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--param", "a=1", "--param", "a=2"), "a is given twice"),
        (("--param", "=1"), "'=1' must be NAME=VALUE"),
        (("--params", '{"a": 1, "a": 2}'), "a stands twice in one object"),
        (("--params", '{"a": NaN}'), "NaN is not JSON"),
        (("--params", "[" * 100_000), "must be a JSON object or list"),
        (("--data", "k=1", "--data", "k=2"), "k is given twice"),
        (("--apns", '{"headers": {}, "headers": {}}'), "headers stands twice in one object"),
        (("--sms", "x", "--when", "never"), "--when never sends none"),
        (("--after", "5m", "--when", "never"), "--when never sends none"),
    ],
)
def test_what_can_be_meant_in_two_ways_is_refused(
    run: Callable[..., CommandOutput], valkey: redis.Redis, options: tuple[str, ...], said: str
) -> None:
    done = run("notify", "--user", "ada", "--title", "t", "--body", "b", *options)
    assert done.code == 2
    assert said in " ".join(done.err.split())
    assert not valkey.hlen(INBOX_MESSAGES)
