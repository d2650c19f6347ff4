"""What an application sees: ids come back, mistakes are named in the caller's own words,
and importing costs nothing.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest

import knocktwice
from knocktwice import (
    Client,
    InvalidMessage,
    KnocktwiceError,
    NotificationId,
    Push,
    Receipt,
    ReceiptEvent,
    Recipient,
    Sms,
    WhatsApp,
    When,
)
from knocktwice.testing import RecordingClient
from knocktwice_shared.ids import blast_id, created_at
from knocktwice_shared.messages import TagsSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PUSH = Push("Hello", "World")
UNKNOWN = "019a9d3c-5a00-7000-8000-000000000009"


@pytest.fixture
def client() -> RecordingClient:
    return RecordingClient()


def test_notify_returns_the_id_of_what_is_sent(client: RecordingClient) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    id_ = client.notify(user="u-17", push=PUSH, params={"a": 1}, reference={"order": 4711}, ttl=timedelta(minutes=1))
    sent = client.assert_notified("u-17")
    assert sent.id == id_
    assert id_.version == 7
    assert before <= created_at(id_)
    assert (sent.push, sent.sms, sent.recipient.params) == (PUSH, None, {"a": 1})
    assert (sent.batch.reference, sent.batch.ttl) == ({"order": 4711}, timedelta(minutes=1))


def test_an_id_says_whether_its_key_was_used_before_and_for_something_else(client: RecordingClient) -> None:
    first = client.notify(user="u", push=PUSH, key="k")
    assert (first.duplicate, first.differs) == (False, False)
    again = client.notify(user="u", push=PUSH, key="k", reference={"try": 2})
    assert (again, again.duplicate, again.differs) == (first, True, False)
    people: list[Recipient | str] = [Recipient("u", key="k"), Recipient("v", key="k2"), "w"]
    ids = client.notify_many(people, push=Push("Hello", "Mars"))
    several = [id_ for id_ in ids if isinstance(id_, NotificationId)]
    assert [(one.duplicate, one.differs) for one in several] == [(True, True), (False, False), (False, False)]
    assert several[0] == first
    kept = pickle.loads(pickle.dumps(several[0]))  # noqa: S301 - our own
    assert (kept, kept.duplicate, kept.differs, {first: 1}[kept]) == (first, True, True, 1)
    assert len(client.notifications) == 3


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"push": Push("{{ a ", "World")}, "push.title"),
        ({"push": Push("Hello", "World", data={"a": "{% if a"})}, "push.data.a"),
        ({"push": PUSH, "sms": Sms("{{ a }")}, "sms.text"),
        ({"steps": [Sms("Hi"), Sms("{% if a %}{{ a")]}, "steps[1].text"),
    ],
)
def test_braces_that_are_never_closed_are_refused_at_once(
    client: RecordingClient, said: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidMessage, match="never closed") as refused:
        client.notify(user="u", params={"a": 1}, **said)
    assert refused.value.field == field
    with pytest.raises(InvalidMessage, match="never closed") as refused:
        client.blast("everybody", key="k", params={"a": 1}, **said)
    assert refused.value.field == field
    assert (client.notifications, client.blasts) == ([], [])


def test_an_sms_follows_in_the_words_of_the_call(client: RecordingClient) -> None:
    sms = Sms("Hi", when="not_clicked", after=timedelta(minutes=2))
    client.notify(registrations=["reg"], phone="+1 (650) 555-0100", push=PUSH, sms=sms, category="critical")
    sent = client.notifications[0]
    assert sent.sms is not None
    assert (sent.sms.channel, sent.sms.when, sent.sms.after) == ("sms", When.NOT_CLICKED, timedelta(minutes=2))
    assert (sent.batch.sms_text, sent.batch.category) == ("Hi", "critical")
    assert (sent.recipient.phone, sent.recipient.registrations) == ("+16505550100", ("reg",))


def test_a_template_is_named_and_decides_what_the_call_leaves_open(client: RecordingClient) -> None:
    client.notify(user="u-17", template="order_ready", params=("Ana", 2), locale="de-AT")
    sent = client.assert_notified("u-17")
    assert (sent.template, sent.recipient.params, sent.recipient.locale) == ("order_ready", ["Ana", 2], "de-AT")
    assert (sent.sms, sent.batch.plan, sent.batch.category) == (None, None, None)
    with pytest.raises(AssertionError, match="the push is the template's, order_ready"):
        _ = sent.push
    client.notify_many(["u-18"], template="order_ready", sms=Sms(after=timedelta(hours=1)), category="critical")
    sent = client.assert_notified("u-18")
    assert sent.sms is not None
    assert (sent.sms.after, sent.batch.category) == (timedelta(hours=1), "critical")


def test_a_repeated_key_returns_the_first_id_and_notifies_nobody(client: RecordingClient) -> None:
    first = client.notify(user="u-17", push=PUSH, key="order-4711")
    assert client.notify(user="u-17", push=PUSH, key="order-4711") == first
    assert client.notify(user="u-17", push=PUSH, key="order-4712") != first
    assert len(client.notifications) == 2


@pytest.mark.parametrize("between", [1, 700])
def test_a_key_used_twice_in_one_call_is_refused_by_name_and_nobody_is_dropped(
    client: RecordingClient, between: int
) -> None:
    others = [Recipient(f"u-{n}") for n in range(between)]
    people = [Recipient("a", key="k"), *others, Recipient("c", key="k")]
    with pytest.raises(InvalidMessage, match=rf"^recipients\[{between + 1}\]\.key: is that of recipients\[0\], too"):
        client.notify_many(people, push=PUSH)
    client.assert_nobody_notified()


def test_many_travel_in_batches_of_500_and_their_ids_come_back_in_order(client: RecordingClient) -> None:
    ids = client.notify_many([f"u-{i}" for i in range(1_201)], push=PUSH)
    assert len(set(ids)) == 1_201
    assert [(n.recipient.user, n.id) for n in client.notifications] == [(f"u-{i}", ids[i]) for i in range(1_201)]
    batches = [n.batch.id for n in client.notifications]
    assert [batches.count(batch) for batch in dict.fromkeys(batches)] == [500, 500, 201]


def test_a_list_with_a_mistake_sends_nothing_and_a_generator_what_came_before(client: RecordingClient) -> None:
    people = [Recipient(f"u-{i}") for i in range(700)] + [Recipient(registrations=["reg"], phone="0650")]
    with pytest.raises(InvalidMessage, match=r"^recipients\[700\]\.phone: has no country code"):
        client.notify_many(people, push=PUSH)
    client.assert_nobody_notified()
    with pytest.raises(InvalidMessage, match=r"^recipients\[700\]\.phone: has no country code"):
        client.notify_many((person for person in people), push=PUSH)
    assert len(client.notifications) == 500


def test_a_generator_is_not_drawn_ahead_of_what_is_sent(client: RecordingClient) -> None:
    seen: list[int] = []

    def people() -> Iterator[str]:
        for i in range(1_001):
            seen.append(len(client.notifications))
            yield f"u-{i}"

    client.notify_many(people(), push=PUSH)
    assert (seen[499], seen[500], seen[1_000]) == (0, 500, 1_000)


def test_nobody_to_notify_is_no_mistake(client: RecordingClient) -> None:
    assert client.notify_many([], push=PUSH) == []
    client.assert_nobody_notified()


def test_a_recipients_own_id_is_kept(client: RecordingClient) -> None:
    mine = uuid4()
    assert client.notify_many([Recipient("u", id=mine)], push=PUSH) == [mine]


MISTAKES: list[tuple[str, str, dict[str, Any]]] = [
    ("phone", "has no country code", {"user": None, "phone": "0650"}),
    ("recipient", "names nobody", {"user": None}),
    ("tags", "are kept for a user", {"user": None, "registrations": ["tok"], "tags": {"a": 1}}),
    ("user", "must be text, not int", {"user": 17}),
    ("user", "200 at most", {"user": "x" * 201}),
    ("registrations", "must be a list, not str", {"user": None, "registrations": "token"}),
    ("registrations[1]", "is empty", {"user": None, "registrations": ["aa", ""]}),
    ("push", "must be a Push, not str", {"push": "Hello"}),
    ("push.title", "is empty", {"push": Push("", "World")}),
    ("push.body", "must be text, not int", {"push": Push("Hello", cast("str", 7))}),
    ("push", "4 KB", {"push": Push("Hello", "x" * 3_900)}),
    ("push.data.content.id", "must be text, not int", {"push": Push("a", "b", {"content.id": cast("str", 5)})}),
    ("push.link", "must be an address", {"push": Push("a", "b", link="shop.example")}),
    ("sms", "must be a Sms, not str", {"sms": "Hi"}),
    ("sms.text", "1600 at most", {"sms": Sms("x" * 5_000)}),
    ("sms.when", "must be one of", {"sms": Sms(when="never")}),
    ("sms.when", "must be one of", {"sms": Sms(when=3)}),
    ("sms.after", "(30 days)", {"sms": Sms(after=timedelta(days=31))}),
    ("sms.after", "(30 days)", {"sms": Sms(after=timedelta(seconds=-1))}),
    ("category", "must be one of", {"category": "spam"}),
    ("ttl", "must be a timedelta, not int", {"ttl": 60}),
    ("ttl", "(28 days)", {"ttl": timedelta(days=29)}),
    ("reference", "must be an object, not list", {"reference": [1]}),
    ("reference", "JSON cannot carry", {"reference": {"at": datetime(2026, 1, 1, tzinfo=UTC)}}),
    ("params", "must be an object, not list", {"params": ["Ana"]}),
    ("params.name", "is missing; push.body uses {{ name }}", {"push": Push("Hi", "{{ name }}")}),
    ("params.code", "is missing; sms.text uses {{ code }}", {"sms": Sms("{{ code }}")}),
    ("push", "is missing; give what to say, or the name of a template", {"push": None}),
    ("template", "stands beside push; give one or the other", {"template": "order_ready"}),
    ("template", "stands beside sms; give one or the other", {"push": None, "template": "t", "sms": Sms("Hi")}),
    ("template", "is empty", {"push": None, "template": ""}),
    ("locale", "must be a language tag", {"locale": "de, en"}),
    ("params", "must be an object, not str", {"push": None, "template": "t", "params": "Ana"}),
    ("key", "200 at most", {"key": "x" * 201}),
    ("key", "is empty", {"key": ""}),
]


@pytest.mark.parametrize(("field", "problem", "arguments"), MISTAKES)
def test_a_mistake_is_named_in_the_callers_words(
    client: RecordingClient, field: str, problem: str, arguments: dict[str, Any]
) -> None:
    usual: dict[str, Any] = {"user": "u-17", "push": PUSH}
    with pytest.raises(InvalidMessage) as caught:
        client.notify(**usual | arguments)
    assert caught.value.field == field
    assert problem in caught.value.problem
    client.assert_nobody_notified()


def test_a_delay_that_is_no_timedelta_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidMessage, match=r"^sms.after: must be a timedelta, like timedelta\(minutes=5\), not int"):
        Sms(after=cast("timedelta", 300))


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda c: c.notify_many("u-17", push=PUSH), "recipients: must be several"),
        (lambda c: c.notify_many(Recipient("u-17"), push=PUSH), "recipients: must be several"),
        (lambda c: c.notify_many([17], push=PUSH), r"recipients\[0\]: must be a Recipient, not int"),
        (lambda c: c.notify_many(["a", ""], push=PUSH), r"recipients\[1\].user: is empty"),
        (lambda c: c.record_delivered("x"), "notification_id: must be a UUID"),
        (lambda c: c.record_clicked(UNKNOWN, at=datetime(2026, 1, 1)), "at: must be an ISO 8601 time with an off"),  # noqa: DTZ001
        (lambda c: c.record_clicked(UNKNOWN, at="now"), "at: must be a datetime, not str"),
        (lambda c: c.record_clicked(UNKNOWN, registration=7), "registration: must be text, not int"),
        (lambda c: c.record_receipts([7]), r"receipts\[0\]: must be a ReceiptEvent, not int"),
        (lambda c: c.cancel(), "ids: is empty"),
        (lambda c: c.cancel("x"), r"ids\[0\]: must be a UUID"),
        (lambda c: c.cancel(*[UNKNOWN] * 600, "x"), r"ids\[600\]: must be a UUID"),
        (lambda c: c.cancel(key=""), "key: is empty"),
        (lambda c: c.register_device("", "reg"), "user: is empty"),
        (lambda c: c.register_device("u", "reg", platform="symbian"), "platform: must be one of android, ios, web"),
        (lambda c: c.register_device("u", "reg", notifications_enabled="yes"), "notifications_enabled: must be true"),
        (lambda c: c.register_device("u", None), "registration: is missing"),
        (lambda c: c.unregister_device(7), "registration: must be text, not int"),
        (lambda c: c.bind_phone("u", "0650"), "phone: has no country code"),
        (lambda c: c.tag_user("", {"a": 1}), "user: is empty"),
        (lambda c: c.tag_user("u", ["a"]), "tags: must be an object, not list"),
        (lambda c: c.tag_user("u", {"a": {"b": 1}}), "tags.a: must be text, a number, true, false"),
        (lambda c: c.tag_user("u", {"a": datetime(2026, 1, 1, tzinfo=UTC)}), "tags: holds something JSON cannot"),
        (lambda c: c.tag_user("u", {}, locale="x" * 65), "locale: is 65 characters; 64 at most"),
        (lambda c: c.set_marketing_consent("u", "yes", source="form"), "granted: must be true or false"),
        (lambda c: c.set_marketing_consent("u", True, source=""), "source: is empty"),
    ],
)
def test_every_call_names_its_own_arguments(
    client: RecordingClient, call: Callable[[Any], object], complaint: str
) -> None:
    with pytest.raises(InvalidMessage, match=f"^{complaint}"):
        call(client)


def test_receipts_cancellations_and_changes_are_recorded(client: RecordingClient) -> None:
    id_ = client.notify(user="u", push=PUSH)
    moment = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
    client.record_delivered(id_, registration="reg", at=moment)
    client.record_clicked(str(id_))
    client.record_receipts(iter([ReceiptEvent(id_, Receipt.CLICKED, moment)]))
    client.cancel(id_, key="k")
    client.register_device("u", "reg", platform="web", locale="de-AT")
    client.register_device("u", "sol")
    client.unregister_device("sol")
    client.bind_phone("u", "+16505550100")
    client.bind_phone("w", "+16505550101")
    client.bind_phone("w", None)
    assert [(r.notification, r.kind) for r in client.receipts] == [
        (id_, "delivered"),
        (id_, "clicked"),
        (id_, "clicked"),
    ]
    assert (client.receipts[0].registration, client.receipts[0].at) == ("reg", moment)
    assert (client.cancelled[0].ids, client.cancelled[0].keys) == ((id_,), ("k",))
    assert list(client.devices) == ["reg"]
    assert client.phones == {"u": "+16505550100"}
    client.clear()
    assert (client.notifications, client.receipts, client.cancelled, client.changes) == ([], [], [], [])


def test_tags_and_consent_are_recorded_as_they_stand_now(client: RecordingClient) -> None:
    client.tag_user("u", {"plan": "gold", "likes": ("tea", "coffee"), "trial": True}, locale="de-AT")
    client.tag_user("u", {"plan": "silver", "trial": None}, time_zone="Europe/Vienna")
    client.set_marketing_consent("u", True, source="form 7")
    client.set_marketing_consent("w", True, source="form 7")
    client.set_marketing_consent("w", False, source="phone call")
    assert client.tags == {"u": {"plan": "silver", "likes": ("tea", "coffee")}}
    assert client.consents == {"u": "form 7"}
    first, second = client.changes[0], client.changes[1]
    assert isinstance(first, TagsSet)
    assert isinstance(second, TagsSet)
    assert (first.locale, first.time_zone) == ("de-AT", None)
    assert (second.locale, second.time_zone) == (None, "Europe/Vienna")


def test_many_cancellations_are_split(client: RecordingClient) -> None:
    ids = [uuid4() for _ in range(501)]
    client.cancel(*ids)
    assert [len(c.ids) for c in client.cancelled] == [500, 1]


def test_an_application_test_reads_who_was_notified_instead(client: RecordingClient) -> None:
    client.notify(user="u-18", push=PUSH)
    with pytest.raises(AssertionError, match="u-17 was not notified; notified: u-18"):
        client.assert_notified("u-17")
    with pytest.raises(AssertionError, match="1 notifications were sent"):
        client.assert_nobody_notified()


def test_importing_the_producer_loads_nothing_heavy_and_no_broker_library() -> None:
    heavy = ["sqlalchemy", "twilio", "firebase_admin", "celery", "pydantic", "kombu", "redis", "knocktwice_worker"]
    program = f"import sys, json, knocktwice; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert json.loads(output) == []


def test_the_packages_say_that_they_are_typed_and_export_what_they_name() -> None:
    for package in (knocktwice, sys.modules["knocktwice_shared"]):
        assert (Path(str(package.__file__)).parent / "py.typed").is_file()
    for name in knocktwice.__all__:
        assert getattr(knocktwice, name).__doc__


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://:s3cret@host",
        "redis:",
        "redis://:s3c/ret@host/0",
        "redis://:s3c#ret@host/0",
        "redis://:s3c;ret@host/0",
        "redis://:3;cret@host/0",
        "redis://:s3cret@host/mydb",
        "redis://:s3cret@host:99999/0",
        "redis://[::1",
        "redis+socket://",
    ],
)
def test_a_url_that_cannot_be_one_is_refused_at_once_and_not_quoted(url: str) -> None:
    with pytest.raises(KnocktwiceError, match=r"^KNOCKTWICE_BROKER_URL") as caught:
        Client(url)
    assert "s3c" not in str(caught.value)
    assert "cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_url_may_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    monkeypatch.setenv("KNOCKTWICE_BROKER_URL_FILE", str(file))
    with pytest.raises(KnocktwiceError, match=r"KNOCKTWICE_BROKER_URL_FILE: cannot read .*: No such file"):
        Client()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(KnocktwiceError, match="does not hold text"):
        Client()
    file.write_text("redis://host/0\n")
    Client()


def test_an_id_says_when_it_was_made_and_is_never_made_twice() -> None:
    ids = {RecordingClient().notify(user="u", push=PUSH) for _ in range(200)}
    assert len(ids) == 200
    assert all(isinstance(i, UUID) and i.variant == "specified in RFC 4122" for i in ids)


def test_a_blast_is_sent_once_for_each_key_and_its_id_is_made_of_it(client: RecordingClient) -> None:
    first = client.blast("tea", template="tea_week", key="k", params={"tea": "Assam"}, throttle_per_min=60)
    assert client.blast("coffee", template="tea_week", key="k") == first == blast_id("k")
    (blast,) = client.blasts
    assert (blast.segment, blast.template, blast.params, blast.throttle_per_min) == (
        "tea",
        "tea_week",
        {"tea": "Assam"},
        60,
    )


def test_a_blast_takes_a_filter_and_content_as_notify_does(client: RecordingClient) -> None:
    client.blast({"everyone": True}, key="k", push=Push("t", "b"), sms=Sms("s", after=timedelta(hours=1)), params=None)
    (blast,) = client.blasts
    assert (blast.segment, blast.filter, blast.template) == (None, {"everyone": True}, None)
    assert blast.message["plan"] == [{"channel": "sms", "when": "not_delivered", "after_s": 3600.0}]


def test_a_blast_takes_steps_of_its_own_beside_a_template(client: RecordingClient) -> None:
    steps: list[Sms | WhatsApp] = [WhatsApp("HX" + "0" * 32, after=timedelta(minutes=5)), Sms("s", when="not_clicked")]
    client.blast("tea", key="k", template="tea_week", steps=steps)
    (blast,) = client.blasts
    assert [(s["channel"], s["when"], s["after_s"]) for s in blast.message["plan"]] == [
        ("whatsapp", "not_delivered", 300.0),
        ("sms", "not_clicked", 300.0),
    ]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"steps": [Sms(after=timedelta(days=31))]}, "steps[0].after"),
        ({"segment": ""}, "segment"),
        ({"key": ""}, "key"),
        ({"template": None}, "push"),
        ({"throttle_per_min": 0}, "throttle_per_min"),
        ({"push": Push("Hi {{ name }}", "b"), "template": None}, "params.name"),
        ({"sms": Sms("text")}, "template"),
    ],
)
def test_a_blast_names_what_is_wrong(client: RecordingClient, wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidMessage) as error:
        client.blast(**{"segment": "tea", "key": "k", "template": "t"} | wrong)
    assert error.value.field == field
    assert not client.blasts


def test_a_blast_is_cancelled_by_its_key(client: RecordingClient) -> None:
    client.cancel(blast="k")
    (cancelled,) = client.cancelled
    assert (cancelled.ids, cancelled.keys, cancelled.blasts) == ((), (), ("k",))
