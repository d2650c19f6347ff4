"""``shared/CONTRACT.md`` says what the parsers do: its examples are parsed, its fields,
limits and names are compared.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from knocktwice.broker import KEY_LIFETIME
from knocktwice_shared import messages, names
from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.audience import forgetting, tags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCUMENT = (Path(__file__).parents[2] / "shared" / "CONTRACT.md").read_text()

PARSERS: dict[str, Callable[[object], object]] = {
    "send_push": messages.parse_batch,
    "record_events": messages.parse_receipts,
    "cancel": messages.parse_cancellation,
    "update_audience": messages.parse_audience,
    "blast": messages.parse_blast,
}

#: What one message has from another, whose section describes what is inside.
INHERITED = {"blast": {"content", "plan", "send_at"}}

#: Objects whose fields are FCM's, which describes them.
FCMS = {"android", "apns", "webpush"}

#: Where in a decoded message something stands: names and places, from the outside in.
Where = tuple[str | int, ...]


def section(title: str) -> str:
    """Return the text under a heading of the second level."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert found, f"no section {title}"
    return found[1]


def examples(title: str) -> list[Any]:
    """Return the decoded JSON examples of a section."""
    return [json.loads(text) for text in re.findall(r"^```json\n(.*?)^```", section(title), re.DOTALL | re.MULTILINE)]


def at(message: Any, where: Where) -> Any:
    """Return what stands there."""
    for step in where:
        message = message[step]
    return message


def changed(message: Any, where: Where, value: object) -> Any:
    """Return a copy with something else there."""
    other = copy.deepcopy(message)
    at(other, where[:-1])[where[-1]] = value
    return other


def walk(value: Any, where: Where = ()) -> Iterator[tuple[Where, Any]]:
    """Yield everything inside a message, and where it stands."""
    yield where, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, part in parts:
        yield from walk(part, (*where, step))


def known_fields(title: str, message: Any, where: Where) -> set[str]:
    """Return the fields that the parser knows in the object there; none if any name will do."""
    try:
        PARSERS[title](changed(message, (*where, "no_such_field"), "x"))
    except InvalidMessage as error:
        return set(error.problem.partition("known here: ")[2].split(", ")) - {""}
    return set()


@pytest.mark.parametrize("title", PARSERS)
def test_each_example_is_what_the_parser_takes(title: str) -> None:
    assert examples(title)
    for message in examples(title):
        PARSERS[title](message)


@pytest.mark.parametrize("title", PARSERS)
def test_each_field_that_the_parser_knows_has_a_row_and_an_example(title: str) -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", section(title), re.MULTILINE)) | {"push", "sms", "text"}
    known: set[str] = set()
    shown: set[str] = set()
    for message in examples(title):
        for where, value in walk(message):
            if isinstance(value, dict) and not (INHERITED.get(title, set()) & set(where[:1]) or FCMS & set(where)):
                fields = known_fields(title, message, where)
                known |= fields
                shown |= fields & value.keys()
    assert known <= rows, f"not documented: {known - rows}"
    assert known <= shown, f"no example shows: {known - shown}"
    assert rows - {"push", "sms", "text"} <= known, f"documented, but unknown to the parser: {rows - known}"


@pytest.mark.parametrize("title", PARSERS)
def test_each_length_in_a_row_is_the_parsers(title: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*?at most (\d+) characters", section(title), re.MULTILINE)
    for field, limit in rows:
        message, where = next((m, w) for m in examples(title) for w, _ in walk(m) if w and w[-1] == field)
        where = (*where, 0) if isinstance(at(message, where), list) else where
        # What must look like an address or a language goes on looking like one.
        start, more = "https://" if str(at(message, where)).startswith("https://") else "", "x"
        if field == "locale":
            start, more = "de", "-a"
        PARSERS[title](changed(message, where, (start + more * (int(limit) + 1))[: int(limit)]))
        with pytest.raises(InvalidMessage, match=f"{limit} at most"):
            PARSERS[title](changed(message, where, (start + more * (int(limit) + 1))[: int(limit) + 1]))


@pytest.mark.parametrize("title", PARSERS)
def test_each_list_takes_as_many_items_as_its_row_says(title: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| list of (\d+) to (\d+)", section(title), re.MULTILINE)
    assert rows
    for field, least, most in rows:
        message, where = next((m, w) for m in examples(title) for w, _ in walk(m) if w and w[-1] == field)
        item = at(message, where)[0]
        PARSERS[title](changed(message, where, [item] * int(most)))
        for wrong in ([item] * (int(most) + 1), [] if int(least) else None):
            if wrong is not None:
                with pytest.raises(InvalidMessage, match=f"{least} to {most} are allowed"):
                    PARSERS[title](changed(message, where, wrong))


@pytest.mark.parametrize(
    "words",
    [
        f"has at most {messages.PUSH_BYTES_LIMIT} bytes",
        f"at most {messages.SMS_CHARS_LIMIT} characters, also when filled in",
        f"0 to {messages.TTL_LIMIT.total_seconds():.0f} ({messages.TTL_LIMIT.days} days)",
        f"0 to {messages.AFTER_LIMIT.total_seconds():.0f} ({messages.AFTER_LIMIT.days} days)",
        f"your own ids, at most {messages.JSON_BYTES_LIMIT} bytes of JSON",
        f"name of 1 to {messages.TAG_NAME_LIMIT} characters",
        f"At most {messages.JSON_BYTES_LIMIT} bytes of JSON in one change",
        f"at most {tags.TAGS_LIMIT} tags of {tags.TAGS_BYTES_LIMIT} bytes together",
        f"at most {tags.TAG_NAMES_LIMIT} names of tags within {forgetting.TRACE.days} days",
        f"values for the placeholders, at most {messages.JSON_BYTES_LIMIT} bytes of JSON",
        f"Notify 1 to {names.BATCH_LIMIT} people",
        f"Report 1 to {names.BATCH_LIMIT} receipts",
        f"Tell 1 to {names.BATCH_LIMIT} changes",
        f"What an application puts on the wire, version {names.VERSION}.",
        f"kept for {KEY_LIFETIME.days} days",
    ],
)
def test_limits_named_are_the_constants(words: str) -> None:
    assert words in DOCUMENT


def test_every_task_queue_and_key_is_named_with_its_route() -> None:
    for name in (
        names.INBOX_MESSAGES,
        names.INBOX_ACCEPTED,
        names.INBOX_FAILURES,
        names.INBOX_SUBJECTS,
        names.KEY_PREFIX,
        *names.Queue,
    ):
        assert f"`{name}`" in DOCUMENT
    for task in names.Task:
        assert f"| `{task}` | `{names.ROUTES[task]}` |" in DOCUMENT
    for title in PARSERS:
        assert f"](#{title}) | `knocktwice.{title}` |" in DOCUMENT


@pytest.mark.parametrize("choices", [messages.When, messages.Category, messages.Receipt, messages.Platform])
def test_every_choice_is_named(choices: type[messages.When]) -> None:
    for choice in choices:
        assert f"`{choice}`" in DOCUMENT or f'`"{choice}"`' in DOCUMENT


def test_tencents_numbers_stand_beside_their_conditions() -> None:
    for number, when in enumerate(messages.TENCENT_CONDITIONS):
        assert f'| `"{when}"` | `{number}` |' in DOCUMENT


def test_names_reserved_in_data_are_the_parsers() -> None:
    reserved = re.search(r"Reserved names: (.*?), and all that begin with (.*?) \|", DOCUMENT)
    assert reserved
    message = examples("send_push")[0]
    where = ("content", "push", "data")
    for name in re.findall(r"`(.+?)`", reserved[1]) + [f"{start}x" for start in re.findall(r"`(.+?)`", reserved[2])]:
        with pytest.raises(InvalidMessage, match="choose another"):
            messages.parse_batch(changed(message, where, {name: "x"}))
