"""The validator: what is wrong is refused with the name of the field, whatever it is,
and what is right comes out whole.
"""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_shared.errors import InvalidMessage, UnsupportedVersion
from knocktwice_shared.messages import (
    JSON_BYTES_LIMIT,
    Category,
    ConsentSet,
    DeviceRegistered,
    DeviceUnregistered,
    OptOutSet,
    PhoneBound,
    Platform,
    Push,
    Receipt,
    Step,
    TagsSet,
    When,
    normalise_phone,
    parse_audience,
    parse_batch,
    parse_cancellation,
    parse_receipts,
)

ID = "019a9d3c-5a00-7000-8000-000000000001"
AT = "2026-11-21T09:30:00+00:00"
LONE = "\ud83d"
DAY = 86_400

BATCH: dict[str, Any] = {
    "v": 1,
    "id": ID,
    "content": {"push": {"title": "Hello", "body": "Hello {{ name }}", "data": {"a": "b"}}, "sms": {"text": "Hi"}},
    "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 60}],
    "category": "marketing",
    "ttl_s": 90,
    "reference": {"order": 4711},
    "recipients": [{"id": ID, "user": "u-17", "params": {"name": "Ana"}, "key": "k"}],
}
RECEIPTS: dict[str, Any] = {"v": 1, "receipts": [{"notification": ID, "kind": "clicked", "at": AT}]}
CANCEL: dict[str, Any] = {"v": 1, "ids": [ID], "keys": ["k"]}
AUDIENCE: dict[str, Any] = {
    "v": 1,
    "changes": [
        {"change": "register_device", "user": "u", "registration": "reg", "at": AT},
        {"change": "unregister_device", "registration": "reg", "at": AT},
        {"change": "bind_phone", "user": "u", "phone": "+16505550100", "at": AT},
        {"change": "set_tags", "user": "u", "tags": {"plan": "gold", "likes": ["tea", 7], "old": None}, "at": AT},
        {"change": "set_consent", "user": "u", "marketing": True, "source": "form 7", "at": AT},
        {"change": "opt_out", "phone": "+16505550100", "source": "letter", "at": AT},
        {"change": "opt_in", "phone": "+16505550100", "at": AT},
    ],
}
MISSING = object()


def steps(path: str) -> list[str | int]:
    """``recipients[0].phone`` as a list of names and places."""
    return [int(part) if part.isdecimal() else part for part in path.replace("[", ".").replace("]", "").split(".")]


def broken(message: dict[str, Any], path: str, value: object) -> Any:
    """Return a copy of the message with something else, or nothing, at the path."""
    other: Any = copy.deepcopy(message)
    inside, (*outer, last) = other, steps(path)
    for step in outer:
        inside = inside[step]
    if value is MISSING:
        del inside[last]
    else:
        inside[last] = value
    return other


def deep() -> list[Any]:
    """Return lists in lists, deeper than Python's encoder goes."""
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


PUSH, PERSON = "content.push", "recipients[0]"

BAD_BATCHES: list[tuple[str, object, str, str]] = [
    # what is broken, how, the field that the error names, words of its problem
    ("v", MISSING, "v", "is missing"),
    ("v", "1", "v", "as a number"),
    ("v", True, "v", "as a number"),
    ("v", 1.0, "v", "as a number"),
    ("id", MISSING, "id", "is missing"),
    ("id", 7, "id", "must be a UUID"),
    ("id", "x" * 36, "id", "must be a UUID"),
    ("content", MISSING, "content", "is missing"),
    ("content", "Hello", "content", "must be an object, not str"),
    ("content.push", MISSING, PUSH, "is missing"),
    ("content.sms", "Hi", "content.sms", "must be an object, not str"),
    (
        "content.pusch",
        {},
        "content.pusch",
        "not a field of the contract; known here: default_locale, push, sms, template",
    ),
    ("content", {}, PUSH, "is missing; give what to say, or the name of a template"),
    ("content.template", "order_ready", "content.template", "stands beside content.push; give one or the other"),
    ("content", {"template": "x", "sms": {}}, "content.template", "stands beside content.sms"),
    ("content", {"template": ""}, "content.template", "is empty"),
    ("content", {"template": "x" * 101}, "content.template", "100 at most"),
    ("content", {"template": 7}, "content.template", "must be text, not int"),
    ("content.push.title", MISSING, f"{PUSH}.title", "is missing"),
    ("content.push.title", 7, f"{PUSH}.title", "must be text, not int"),
    ("content.push.title", " \n", f"{PUSH}.title", "is empty"),
    ("content.push.body", "nul \0", f"{PUSH}.body", "NUL"),
    ("content.push.body", f"half {LONE}", f"{PUSH}.body", "surrogate"),
    ("content.push.body", "x" * 3_900, PUSH, "3900 at most"),
    ("content.push.body", "😀" * 1_000, PUSH, "3900 at most"),
    ("content.push.body", "x" * 5_000, f"{PUSH}.body", "3900 at most"),
    ("content.push.body", "Hello {{ nme }}", f"{PERSON}.params.nme", "is missing; content.push.body uses"),
    ("content.push.title", "{{ 1 }} for you", f"{PUSH}.title", "a number"),
    ("content.push.data", ["a"], f"{PUSH}.data", "must be an object, not list"),
    ("content.push.data", {"a": 1}, f"{PUSH}.data.a", "must be text, not int"),
    ("content.push.data", {"a": None}, f"{PUSH}.data.a", "is missing"),
    ("content.push.data", {"": "x"}, f"{PUSH}.data.", "is empty"),
    ("content.push.data", {"from": "x"}, f"{PUSH}.data.from", "choose another"),
    ("content.push.data", {"knocktwice_id": "x"}, f"{PUSH}.data.knocktwice_id", "choose another"),
    ("content.push.data", {"google.x": "x"}, f"{PUSH}.data.google.x", "choose another"),
    ("content.push.link", "javascript:alert(1)", f"{PUSH}.link", "must not be a javascript: address"),
    ("content.push.link", "https://a\nb", f"{PUSH}.link", "white space or a control character"),
    ("content.push.link", "https://a b", f"{PUSH}.link", "white space or a control character"),
    ("content.push.link", "https:///x", f"{PUSH}.link", "names no host"),
    ("content.push.link", "myapp:", f"{PUSH}.link", "must be an address"),
    ("content.push.link", "www.shop.example/{{ id }}", f"{PUSH}.link", "must be an address"),
    ("content.push.link", "/orders", f"{PUSH}.link", "must be an address"),
    ("content.push.image", "myapp://a.png", f"{PUSH}.image", "http or https"),
    ("content.push.badge", -1, f"{PUSH}.badge", "whole number"),
    ("content.push.badge", True, f"{PUSH}.badge", "whole number"),
    ("content.push.badge", "3", f"{PUSH}.badge", "whole number"),
    ("content.push.sound", 1, f"{PUSH}.sound", "must be text"),
    ("content.push.sound", " ", f"{PUSH}.sound", "is empty"),
    ("content.push.priority", "urgent", f"{PUSH}.priority", "must be one of high, normal"),
    ("content.push.color", "red", f"{PUSH}.color", "#00aa55"),
    ("content.push.subtitle", "x" * 4_000, f"{PUSH}.subtitle", "3900 at most"),
    ("content.push.channel_id", "x" * 201, f"{PUSH}.channel_id", "200 at most"),
    ("content.push.android", [], f"{PUSH}.android", "must be an object"),
    ("content.push.android", {"notificaton": {}}, f"{PUSH}.android.notificaton", "is no field of FCM's"),
    ("content.push.android", {"notification": {"tag": "x"}}, f"{PUSH}.android.notification.tag", "knocktwice's own"),
    ("content.push.android", {"ttl": "5s"}, f"{PUSH}.android.ttl", "give ttl_s"),
    ("content.push.android", {"collapseKey": "x"}, f"{PUSH}.android.collapse_key", "knocktwice's own"),
    (
        "content.push.android",
        {"notification": {"sticky": "yes"}},
        f"{PUSH}.android.notification.sticky",
        "true or false",
    ),
    (
        "content.push.android",
        {"notification": {"visibility": "ALL"}},
        f"{PUSH}.android.notification.visibility",
        "one of",
    ),
    ("content.push.android", {"priority": "urgent"}, f"{PUSH}.android.priority", "NORMAL, HIGH"),
    ("content.push.android", {"data": {"from": "x"}}, f"{PUSH}.android.data.from", "choose another"),
    (
        "content.push.android",
        {"notification": {"channel_id": "a", "channelId": "b"}},
        f"{PUSH}.android.notification.channelId",
        "is there twice",
    ),
    ("content.push.apns", {"headers": {"apns-Collapse-Id": "x"}}, f"{PUSH}.apns.headers.apns-collapse-id", "own"),
    ("content.push.apns", {"headers": {"apns-priority": 5}}, f"{PUSH}.apns.headers.apns-priority", "must be text"),
    ("content.push.apns", {"payload": {"aps": 1}}, f"{PUSH}.apns.payload.aps", "must be an object"),
    ("content.push.apns", {"payload": {"knocktwice_id": "x"}}, f"{PUSH}.apns.payload.knocktwice_id", "own"),
    ("content.push.apns", {"payload": {"x": "y" * 3_900}}, PUSH, "3900 at most"),
    ("content.push.webpush", {"headers": {"ttl": "5"}}, f"{PUSH}.webpush.headers.ttl", "give ttl_s"),
    ("content.push.webpush", {"notification": {"tag": "x"}}, f"{PUSH}.webpush.notification.tag", "own"),
    ("content.push.image", 7, f"{PUSH}.image", "must be text, not int"),
    ("content.sms.text", "x" * 5_000, "content.sms.text", "5000 characters; 1600 at most"),
    ("content.sms.text", "", "content.sms.text", "is empty"),
    ("content.sms.text", "Hi {{ code }}", f"{PERSON}.params.code", "content.sms.text uses"),
    ("plan", {}, "plan", "must be a list, not dict"),
    ("plan", [BATCH["plan"][0]] * 11, "plan", "has 11 items; 0 to 10"),
    ("plan[0]", "sms", "plan[0]", "must be an object, not str"),
    ("plan[0].channel", "pigeon", "plan[0].channel", "must be one of sms, whatsapp"),
    ("plan[0].when", MISSING, "plan[0].when", "must be one of notifications_disabled, not_delivered, not_clicked"),
    ("plan[0].when", "not_read", "plan[0].when", "must be one of"),
    ("plan[0].when", 3, "plan[0].when", "must be one of"),
    ("plan[0].when", -1, "plan[0].when", "must be one of"),
    ("plan[0].when", True, "plan[0].when", "must be one of"),
    ("plan[0].when", ["not_clicked"], "plan[0].when", "must be one of"),
    ("plan[0].after_s", MISSING, "plan[0].after_s", "is missing"),
    ("plan[0].after_s", "60", "plan[0].after_s", "must be a number of seconds"),
    ("plan[0].after_s", True, "plan[0].after_s", "must be a number of seconds"),
    ("plan[0].after_s", -1, "plan[0].after_s", "between 0 and 2592000 seconds (30 days)"),
    ("plan[0].after_s", 31 * DAY, "plan[0].after_s", "(30 days)"),
    ("plan[0].after_s", float("nan"), "plan[0].after_s", "(30 days)"),
    ("plan[0].after_s", float("inf"), "plan[0].after_s", "(30 days)"),
    ("plan[0].after_s", 10**400, "plan[0].after_s", "(30 days)"),
    ("category", "spam", "category", "must be one of transactional, marketing, critical"),
    ("category", {}, "category", "must be one of"),
    ("catgeory", "marketing", "catgeory", "not a field of the contract"),
    ("line\nbreak \0", "x", "line\\nbreak \\x00", "not a field of the contract"),
    ("ttl_s", 29 * DAY, "ttl_s", "(28 days)"),
    ("ttl_s", "90", "ttl_s", "must be a number of seconds"),
    ("reference", [], "reference", "must be an object, not list"),
    ("reference", {"a": "x" * 4_096}, "reference", "4096 at most"),
    ("reference", {"a": "\0"}, "reference", "NUL"),
    ("reference", {"a": "\\\0"}, "reference", "NUL"),
    ("reference", {"a": [LONE]}, "reference", "surrogate"),
    ("reference", {"a": float("nan")}, "reference", "JSON cannot carry"),
    ("reference", {"a": deep()}, "reference", "JSON cannot carry"),
    ("reference", {"a": datetime(2026, 1, 1, tzinfo=UTC)}, "reference", "JSON cannot carry"),
    ("reference", {"a": {"__type__": "uuid"}}, "reference", "__type__"),
    ("reference", {7: "x"}, "reference", "must have text as names"),
    ("recipients", MISSING, "recipients", "is missing"),
    ("recipients", [], "recipients", "has 0 items; 1 to 500"),
    ("recipients", BATCH["recipients"] * 501, "recipients", "has 501 items; 1 to 500"),
    ("recipients", "u-17", "recipients", "must be a list, not str"),
    ("recipients[0]", "u-17", PERSON, "must be an object, not str"),
    ("recipients[0].id", MISSING, f"{PERSON}.id", "is missing"),
    ("recipients[0].user", MISSING, PERSON, "names nobody"),
    ("recipients[0].user", 17, f"{PERSON}.user", "must be text, not int"),
    ("recipients[0].user", "x" * 201, f"{PERSON}.user", "200 at most"),
    ("recipients[0].user", "", f"{PERSON}.user", "is empty"),
    ("recipients[0].phone", "+16505550100", PERSON, "gives both"),
    ("recipients[0].registrations", ["reg"], PERSON, "gives both"),
    ("recipients[0].registrations", "reg", f"{PERSON}.registrations", "must be a list, not str"),
    ("recipients[0].email", "a@b", f"{PERSON}.email", "not a field of the contract"),
    ("recipients[0].params", MISSING, f"{PERSON}.params.name", "is missing"),
    ("recipients[0].params", "Ana", f"{PERSON}.params", "must be an object, not str"),
    ("recipients[0].params.name", "x" * 4_096, f"{PERSON}.params", "4096 at most"),
    ("recipients[0].params.name", "\0", f"{PERSON}.params", "NUL"),
    ("recipients[0].params", ["Ana"], f"{PERSON}.params", "must be an object, not list"),
    ("recipients[0].locale", 7, f"{PERSON}.locale", "must be text, not int"),
    ("recipients[0].locale", "zh_#", f"{PERSON}.locale", "must be a language tag, like de-AT"),
    ("recipients[0].locale", "de-", f"{PERSON}.locale", "must be a language tag, like de-AT"),
    ("recipients[0].locale", "de" + "-AT" * 30, f"{PERSON}.locale", "64 at most"),
    ("recipients[0].key", "x" * 201, f"{PERSON}.key", "200 at most"),
    ("recipients[0].key", LONE, f"{PERSON}.key", "surrogate"),
]

BAD_OTHERS: list[tuple[Any, dict[str, Any], str, object, str, str]] = [
    (parse_receipts, RECEIPTS, "receipts", [], "receipts", "1 to 500"),
    (parse_receipts, RECEIPTS, "receipts", RECEIPTS["receipts"] * 501, "receipts", "1 to 500"),
    (parse_receipts, RECEIPTS, "receipts[0]", None, "receipts[0]", "is missing"),
    (parse_receipts, RECEIPTS, "receipts[0].notification", "x", "receipts[0].notification", "must be a UUID"),
    (
        parse_receipts,
        RECEIPTS,
        "receipts[0].kind",
        "read",
        "receipts[0].kind",
        "must be one of delivered, clicked, seen",
    ),
    (parse_receipts, RECEIPTS, "receipts[0].at", MISSING, "receipts[0].at", "ISO 8601"),
    (parse_receipts, RECEIPTS, "receipts[0].at", "2026-11-21T09:30:00", "receipts[0].at", "with an offset"),
    (parse_receipts, RECEIPTS, "receipts[0].at", "yesterday", "receipts[0].at", "ISO 8601"),
    (parse_receipts, RECEIPTS, "receipts[0].at", 1_764_000_000, "receipts[0].at", "ISO 8601"),
    (parse_receipts, RECEIPTS, "receipts[0].at", "0001-01-01T00:00:00+14:00", "receipts[0].at", "ISO 8601"),
    (parse_receipts, RECEIPTS, "receipts[0].registration", "", "receipts[0].registration", "is empty"),
    (parse_cancellation, CANCEL, "ids", [ID] * 501, "ids", "0 to 500"),
    (parse_cancellation, CANCEL, "ids[0]", "x", "ids[0]", "must be a UUID"),
    (parse_cancellation, CANCEL, "keys[0]", 7, "keys[0]", "must be text, not int"),
    (parse_audience, AUDIENCE, "changes", [], "changes", "1 to 500"),
    (parse_audience, AUDIENCE, "changes[0].change", "delete_user", "changes[0].change", "must be one of"),
    (parse_audience, AUDIENCE, "changes[0].change", [], "changes[0].change", "must be one of"),
    (parse_audience, AUDIENCE, "changes[0].user", MISSING, "changes[0].user", "is missing"),
    (parse_audience, AUDIENCE, "changes[0].platform", "symbian", "changes[0].platform", "android, ios, web"),
    (parse_audience, AUDIENCE, "changes[0].notifications_enabled", 1, "changes[0].notifications_enabled", "true or"),
    (parse_audience, AUDIENCE, "changes[0].time_zone", "x" * 65, "changes[0].time_zone", "64 at most"),
    (parse_audience, AUDIENCE, "changes[1].locale", "de", "changes[1].locale", "not a field of the contract"),
    (parse_audience, AUDIENCE, "changes[2].phone", "0650555", "changes[2].phone", "E.164"),
    (parse_audience, AUDIENCE, "changes[2].at", MISSING, "changes[2].at", "ISO 8601"),
    (parse_audience, AUDIENCE, "changes[3].user", "", "changes[3].user", "is empty"),
    (parse_audience, AUDIENCE, "changes[3].tags", MISSING, "changes[3].tags", "is missing"),
    (parse_audience, AUDIENCE, "changes[3].tags", ["a"], "changes[3].tags", "must be an object, not list"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"a": {}}, "changes[3].tags.a", "a list of these, or null"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"a": [None]}, "changes[3].tags.a", "a list of these, or null"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"a": [["b"]]}, "changes[3].tags.a", "a list of these, or null"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"": 1}, "changes[3].tags.", "is empty"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"x" * 65: 1}, f"changes[3].tags.{'x' * 65}", "64 at most"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"a": "\0"}, "changes[3].tags", "NUL"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"a": LONE}, "changes[3].tags", "surrogate"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"a": float("nan")}, "changes[3].tags", "JSON cannot carry"),
    (parse_audience, AUDIENCE, "changes[3].tags", {"a": "x" * 4_096}, "changes[3].tags", "4096 at most"),
    (parse_audience, AUDIENCE, "changes[3].locale", 7, "changes[3].locale", "must be text, not int"),
    (parse_audience, AUDIENCE, "changes[3].time_zone", "x" * 65, "changes[3].time_zone", "64 at most"),
    (parse_audience, AUDIENCE, "changes[3].platform", "ios", "changes[3].platform", "not a field of the contract"),
    (parse_audience, AUDIENCE, "changes[4].marketing", MISSING, "changes[4].marketing", "is missing"),
    (parse_audience, AUDIENCE, "changes[4].marketing", "yes", "changes[4].marketing", "true or false"),
    (parse_audience, AUDIENCE, "changes[4].source", MISSING, "changes[4].source", "is missing"),
    (parse_audience, AUDIENCE, "changes[4].source", "x" * 201, "changes[4].source", "200 at most"),
    (parse_audience, AUDIENCE, "changes[4].at", "now", "changes[4].at", "ISO 8601"),
]


@pytest.mark.parametrize(
    ("path", "value", "field", "problem"), BAD_BATCHES, ids=lambda v: f"{v!a:.30}" if isinstance(v, str) else ""
)
def test_a_wrong_batch_is_refused_with_the_name_of_the_field(
    path: str, value: object, field: str, problem: str
) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse_batch(broken(BATCH, path, value))
    assert caught.value.field == field
    assert problem in caught.value.problem
    assert not isinstance(caught.value, UnsupportedVersion)
    str(caught.value).encode()


@pytest.mark.parametrize(("parse", "message", "path", "value", "field", "problem"), BAD_OTHERS)
def test_other_wrong_messages_are_refused_likewise(
    parse: Any, message: dict[str, Any], path: str, value: object, field: str, problem: str
) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse(broken(message, path, value))
    assert caught.value.field == field
    assert problem in caught.value.problem


@pytest.mark.parametrize("parse", [parse_batch, parse_receipts, parse_cancellation, parse_audience])
@pytest.mark.parametrize("message", [None, 7, "text", [], True])
def test_what_is_no_object_is_no_message(parse: Any, message: object) -> None:
    with pytest.raises(InvalidMessage, match=r"^message: must be a JSON object"):
        parse(message)


@pytest.mark.parametrize("parse", [parse_batch, parse_receipts, parse_cancellation, parse_audience])
@pytest.mark.parametrize("version", [0, 2, -1, 10**400])
def test_an_unknown_version_says_which_side_is_old(parse: Any, version: int) -> None:
    with pytest.raises(UnsupportedVersion, match=r"this side speaks version 1\. Upgrade the older side"):
        parse({"v": version, "something": "new"})


@pytest.mark.parametrize("empty", [{}, {"ids": [], "keys": []}, {"ids": None}])
def test_a_cancellation_of_nothing_is_refused(empty: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage, match=r"^ids: is empty and so is keys"):
        parse_cancellation({"v": 1} | empty)


@pytest.mark.parametrize(
    "number",
    [
        *("", "+", "6505550100", "+06505550100", "+123456", "+1234567890123456", "+1650555O100"),
        *("+16505550100 ext. 7", "++16505550100"),
        *("+1650\x005550100", 16505550100, None, [], {}),
    ],
)
def test_what_is_no_number_in_e164_is_refused_and_not_quoted(number: object) -> None:
    with pytest.raises(InvalidMessage) as caught:
        normalise_phone(number, "recipients[0].phone")
    assert str(caught.value).startswith("recipients[0].phone: ")
    assert str(caught.value).endswith(" (E.164, like +16505550100)")
    assert "555O" not in str(caught.value)


@pytest.mark.parametrize(
    "number",
    ["+16505550100", "+1 (650) 555-0100", " +1.650.555.0100\n", "\u202a+1\u00a0650\u2011555\u20130100\u202c"],
)
def test_a_number_may_be_decorated_and_comes_out_bare(number: str) -> None:
    assert normalise_phone(number) == "+16505550100"


@pytest.mark.parametrize(
    ("number", "when"), [(0, When.NOTIFICATIONS_DISABLED), (1, "not_delivered"), (2, "not_clicked")]
)
def test_tencents_numbers_name_the_conditions(number: int, when: str) -> None:
    (step,) = parse_batch(broken(BATCH, "plan[0].when", number)).plan or ()
    assert step.when is When(when)


@pytest.mark.parametrize(
    "text",
    [
        "{{ name | default: 'you' }}",
        "{% if other %}{{ other }}{% endif %}",
        "{{ true }}",
        "{{ 'literal' }}",
        "{ name }",
    ],
)
def test_only_a_plain_placeholder_asks_for_its_value(text: str) -> None:
    valueless = broken(BATCH, "recipients.0.params", {})
    parse_batch(broken(valueless, "content.push.body", text))


@pytest.mark.parametrize("text", ["{{ name }}", "{{- name -}}", "{{ name.first }}", "{{ name | upcase }}"])
def test_a_value_that_a_text_needs_has_to_be_there(text: str) -> None:
    valueless = broken(BATCH, "recipients.0.params", {})
    with pytest.raises(InvalidMessage, match=r"params\.name: is missing"):
        parse_batch(broken(valueless, "content.push.body", text))


TEMPLATE: dict[str, Any] = {
    "v": 1,
    "id": ID,
    "content": {"template": "order_ready"},
    "recipients": [{"id": ID, "user": "u-17", "params": ["Ana", 2], "locale": "de_AT"}],
}


def test_what_a_template_decides_may_be_left_out() -> None:
    batch = parse_batch(TEMPLATE)
    assert (batch.template, batch.push, batch.sms_text) == ("order_ready", None, None)
    assert (batch.plan, batch.category) == (None, None)
    assert parse_batch(TEMPLATE | {"plan": [], "category": "critical"}).plan == ()
    assert parse_batch(TEMPLATE | {"plan": [], "category": "critical"}).category is Category.CRITICAL


def test_a_list_of_params_names_them_by_their_place() -> None:
    (person,) = parse_batch(TEMPLATE).recipients
    assert person.params == ["Ana", 2]
    assert person.values == {"1": "Ana", "2": 2}
    assert person.locale == "de_AT"
    for wrong, problem in (("Ana", "must be an object"), (["\0"], "NUL"), (["x" * 4_096], "4096 at most")):
        with pytest.raises(InvalidMessage, match=problem):
            parse_batch(broken(TEMPLATE, "recipients[0].params", wrong))


def test_a_whole_batch_comes_out_as_it_went_in() -> None:
    batch = parse_batch(json.loads(json.dumps(BATCH)))
    assert batch.id == UUID(ID)
    assert batch.push == Push("Hello", "Hello {{ name }}", {"a": "b"})
    assert (batch.sms_text, batch.template) == ("Hi", None)
    assert batch.plan == (Step("sms", When.NOT_CLICKED, timedelta(minutes=1)),)
    assert (batch.category, batch.ttl, batch.reference) == (Category.MARKETING, timedelta(seconds=90), {"order": 4711})
    person = batch.recipients[0]
    assert (person.id, person.user, person.params, person.key) == (UUID(ID), "u-17", {"name": "Ana"}, "k")


@pytest.mark.parametrize("field", ["plan", "category", "ttl_s", "reference", "content.sms", "content.push.data"])
def test_null_is_the_same_as_leaving_a_field_out(field: str) -> None:
    assert parse_batch(broken(BATCH, field, None)) == parse_batch(broken(BATCH, field, MISSING))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("plan[0].after_s", 0),
        ("plan[0].after_s", 30 * DAY),
        ("ttl_s", 28 * DAY),
        ("recipients", [{"id": ID, "user": "u", "params": {"name": None}}] * 500),
        ("recipients[0].user", "Zoë 😀 \u202e"),
        ("content.sms.text", "😀" * 1_600),
        ("content.push.body", "x" * 3_800),
        ("content.push.data", {"empty": ""}),
        ("reference", {"text": "\\u0000 spelt out", "big": 10**300, "nested": [{"a": None}]}),
    ],
)
def test_the_utmost_is_accepted(path: str, value: object) -> None:
    parse_batch(broken(BATCH, path, value))


def test_receipts_come_out_in_utc() -> None:
    (receipt,) = parse_receipts(broken(RECEIPTS, "receipts[0].at", "2026-11-21T10:30:00+01:00"))
    assert (receipt.notification, receipt.kind) == (UUID(ID), Receipt.CLICKED)
    assert receipt.at == datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    assert receipt.at.tzinfo is UTC


def test_each_change_of_the_audience_has_its_type() -> None:
    moment = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    message = broken(AUDIENCE, "changes[0].platform", "ios")
    assert parse_audience(message) == (
        DeviceRegistered("u", "reg", moment, platform=Platform.IOS),
        DeviceUnregistered("reg", moment),
        PhoneBound("u", "+16505550100", moment),
        TagsSet("u", {"plan": "gold", "likes": ("tea", 7), "old": None}, moment),
        ConsentSet("u", True, "form 7", moment),
        OptOutSet("+16505550100", True, "letter", moment),
        OptOutSet("+16505550100", False, "application", moment),
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=10), inner, max_size=4)
    ),
    max_leaves=20,
)
PLACES = [
    (parse, message, path)
    for parse, message, paths in (
        (parse_batch, BATCH, [row[0] for row in BAD_BATCHES if row[1] is not MISSING]),
        (parse_receipts, RECEIPTS, [row[2] for row in BAD_OTHERS if row[0] is parse_receipts]),
        (parse_cancellation, CANCEL, ["ids", "keys", "ids[0]", "keys[0]"]),
        (parse_audience, AUDIENCE, [row[2] for row in BAD_OTHERS if row[0] is parse_audience]),
    )
    for path in paths
]


@given(st.sampled_from(PLACES), JSON)
def test_any_json_anywhere_in_a_message_is_accepted_or_refused_by_name(
    place: tuple[Any, dict[str, Any], str], value: object
) -> None:
    parse, message, path = place
    try:
        parse(broken(message, path, value))
    except InvalidMessage as error:
        refused = error
    else:
        return
    assert refused.field
    str(refused).encode()
    assert "\0" not in str(refused)


@given(
    st.dictionaries(
        st.text(max_size=8) | st.just("__type__"), st.text() | st.integers() | st.none() | st.floats(), max_size=25
    )
)
def test_params_that_are_accepted_can_be_stored(params: dict[str, Any]) -> None:
    try:
        (recipient,) = parse_batch(
            {
                **BATCH,
                "content": {"push": {"title": "t", "body": "b"}},
                "recipients": [{"id": ID, "user": "u", "params": params}],
            }
        ).recipients
    except InvalidMessage:
        return
    encoded = json.dumps(recipient.params, ensure_ascii=False, allow_nan=False).encode()
    assert len(encoded) <= JSON_BYTES_LIMIT
    assert "\0" not in "".join([*params, *(v for v in params.values() if isinstance(v, str))])
    assert "__type__" not in params


@given(JSON)
def test_any_json_as_a_message_is_refused_by_name(value: object) -> None:
    for parse in (parse_batch, parse_receipts, parse_cancellation, parse_audience):
        with pytest.raises(InvalidMessage):
            parse(value)
        with pytest.raises(InvalidMessage):
            parse({"v": 1, "x": value})


SPOKEN: dict[str, Any] = {
    **BATCH,
    "content": {
        "push": {"title": {"en": "Hello", "de": "Hallo"}, "body": "{{ name }}", "link": {"en": "a://b", "de": "a://c"}},
        "sms": {"text": {"en": "Hi", "de": "Na"}},
    },
    "plan": [{"channel": "sms", "when": "not_clicked", "after_s": 60, "text": {"de": "Na", "en": "Hi {{ name }}"}}],
}


def _spoken(**content: Any) -> dict[str, Any]:
    return {**SPOKEN, "content": {**SPOKEN["content"], **content}}


def test_texts_may_be_by_language() -> None:
    batch = parse_batch(SPOKEN)
    assert (batch.locales, batch.default_locale) == (("en", "de"), "en")
    push, sms = batch.spoken("de")
    assert push is not None
    assert (push.title, push.body, push.link, sms) == ("Hallo", "{{ name }}", "a://c", "Na")
    assert [step.spoken("de").text for step in batch.plan or ()] == ["Na"]


def test_the_language_of_all_others_is_the_one_that_is_named_or_the_only_one() -> None:
    assert parse_batch(_spoken(default_locale="DE")).default_locale == "de"
    alone = {"push": {"title": {"fr": "Bonjour"}, "body": "b"}}
    assert parse_batch({**BATCH, "content": alone}).default_locale == "fr"


@pytest.mark.parametrize(
    ("message", "field", "problem"),
    [
        (_spoken(default_locale="fr"), "content.default_locale", "has no texts"),
        (_spoken(push={"title": {"fr": "a", "de": "b"}, "body": "b"}, sms=None) | {"plan": []}, "content.default_locale", "say which of fr, de"),
        (_spoken(sms={"text": {"en": "Hi"}}), "content.sms.text", "has nothing for de"),
        (_spoken(sms={"text": {}}), "content.sms.text", "no language"),
        (_spoken(sms={"text": {"en": "Hi", "de": ""}}), "content.sms.text.de", "is empty"),
        (_spoken(sms={"text": {"en": "Hi", "de": "x" * 1_601}}), "content.sms.text.de", "1600 at most"),
        (_spoken(sms={"text": {"en": "Hi", "de": "Na", "DE": "Na"}}), "content.sms.text.DE", "the same language as de"),
        (_spoken(sms={"text": {"en": "Hi", "9": "Na"}}), "content.sms.text.9", "language tag"),
        (_spoken(push={"title": {"en": "a", "de": "b"}, "body": {"en": "a", "de": "x" * 3_900}}), "content.push", "bytes"),
        (_spoken(push={"title": {"en": "a", "de": "b"}, "body": "b", "link": {"en": "a://b", "de": "no"}}), "content.push.link.de", "must be an address"),
        ({**SPOKEN, "content": {"template": "t"}}, "plan", "beside a template"),
        ({**BATCH, "content": {"template": "t", "default_locale": "de"}}, "content.default_locale", "the template's own"),
        ({**BATCH, "content": {**BATCH["content"], "default_locale": "de"}}, "content.default_locale", "there are none"),
    ],
)  # fmt: skip
def test_wrong_languages_are_named(message: dict[str, Any], field: str, problem: str) -> None:
    with pytest.raises(InvalidMessage, match=problem) as raised:
        parse_batch(message)
    assert field in [one.field for one in raised.value.problems]


def test_a_value_is_missing_only_if_every_language_needs_it() -> None:
    nobody = [{"id": ID, "user": "u"}]
    push = {"title": {"en": "Hello {{ a }}", "de": "Hallo"}, "body": {"en": "{{ b }}", "de": "{{ b }}!"}}
    with pytest.raises(InvalidMessage) as raised:
        parse_batch({**BATCH, "content": {"push": push}, "recipients": nobody})
    assert [one.field for one in raised.value.problems] == ["recipients[0].params.b"]
