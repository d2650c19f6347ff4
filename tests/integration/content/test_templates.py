"""A batch that names a template: each person gets their language, and what was decided stays decided."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import DeviceRegistered, PhoneBound, parse_batch
from knocktwice_worker.audience import people as audience
from knocktwice_worker.content import template_store, templates
from knocktwice_worker.notifications import store
from knocktwice_worker.reporting.story import tell
from support.system import eventually

if TYPE_CHECKING:
    from knocktwice_worker.sandbox import Sandbox
    from knocktwice_worker.services import Services
    from support.clock import Clock

ORDER: dict[str, Any] = {
    "default_locale": "en",
    "category": "critical",
    "fallback": {"when": "not_clicked", "after": "10m"},
    "signature": "Shop:",
    "contents": {
        "en": {"push": {"title": "Hello", "body": "{{ courier }} is here"}, "sms": "{{ courier }} is here now"},
        "de": {"push": {"title": "Hallo", "body": "{{ courier }} ist da", "data": {"a": "b"}}},
    },
}


@pytest.fixture
def apply(working: Services) -> Any:
    """Stores a template."""

    def put(name: str = "order", **changes: object) -> None:
        with working.engine.begin() as conn:
            template_store.put(conn, name, templates.check(name, {**ORDER, **changes}))

    return put


def _send(here: Services, *people: dict[str, Any], template: str = "order", **more: object) -> list[str]:
    """Send a batch and return its notifications' ids."""
    recipients = [
        {"id": str(uuid7()), "registrations": [f"silent-{n}"], "phone": f"+1650555{n:04}", "params": {"courier": "Ana"}}
        | person
        for n, person in enumerate(people)
    ]
    for recipient in recipients:
        if "user" in recipient:
            del recipient["registrations"], recipient["phone"]
    wire = {"v": 1, "id": str(uuid7()), "content": {"template": template}, "recipients": recipients, **more}
    here.pushes.send(parse_batch(wire))
    return [str(r["id"]) for r in recipients]


def _ended(here: Services, id_: str) -> tuple[str, str | None]:
    with here.engine.connect() as conn:
        told = tell(conn, id_)
    assert told is not None
    return told.state, told.reason


def _row(here: Services, id_: str) -> sa.Row[Any]:
    with here.engine.connect() as conn:
        return conn.execute(
            sa.text("""
            SELECT n.*, b.content, b.category, b.ttl, d.trigger, d.due_at - n.created_at AS after
            FROM notifications n JOIN batches b ON b.id = n.batch_id
            LEFT JOIN deliveries d ON d.notification_id = n.id AND d.step = 1 WHERE n.id = :id
            """),
            {"id": id_},
        ).one()


def _text(here: Services, clock: Clock, id_: str) -> None:
    """Let the countdown end, a minute ago, and send the SMS."""
    clock.advance(timedelta(minutes=11))
    here.later_steps.send(here.fallback.check([id_]))


def test_each_person_gets_their_language(working: Services, sandbox: Sandbox, apply: Any) -> None:
    apply()
    with working.engine.begin() as conn:
        now = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        audience.apply(
            conn,
            [
                DeviceRegistered("u-1", "silent-old", now - timedelta(days=2), locale="en-GB"),
                DeviceRegistered("u-1", "silent-new", now - timedelta(days=1), locale="de_CH"),
                DeviceRegistered("u-2", "silent-two", now),
                PhoneBound("u-1", "+16505550101", now),
            ],
        )
    _send(working, {"locale": "de-AT"}, {"locale": "fr"}, {}, {"user": "u-1"}, {"user": "u-2"})
    bodies = {p.registration: p.body for p in sandbox.pushes()}
    assert bodies == {
        "silent-0": "Ana ist da",
        "silent-1": "Ana is here",
        "silent-2": "Ana is here",
        "silent-old": "Ana ist da",
        "silent-new": "Ana ist da",
        "silent-two": "Ana is here",
    }


def test_the_template_says_why_and_what_follows(working: Services, apply: Any) -> None:
    apply()
    (id_,) = _send(working, {"locale": "de"})
    row = _row(working, id_)
    assert (row.locale, row.category, row.trigger, row.after) == (
        "de",
        "critical",
        "not_clicked",
        timedelta(minutes=10),
    )
    assert row.ttl == timedelta(minutes=10, seconds=30)
    assert (row.content["template"], row.content["version"], list(row.content["locales"])) == ("order", 1, ["de"])


def test_the_sender_overrules_the_templates_plan_and_category(working: Services, apply: Any) -> None:
    apply()
    step = {"channel": "sms", "when": "not_delivered", "after_s": 60}
    (id_,) = _send(working, {}, plan=[step], category="marketing")
    row = _row(working, id_)
    assert (row.category, row.trigger, row.after) == ("marketing", "not_delivered", timedelta(minutes=1))
    (id_,) = _send(working, {}, plan=[])
    assert _row(working, id_).trigger is None


def test_never_forbids_every_sms_and_not_the_push(working: Services, sandbox: Sandbox, apply: Any) -> None:
    apply(fallback="never")
    (id_,) = _send(working, {}, plan=[{"channel": "sms", "when": "not_delivered", "after_s": 60}])
    assert _row(working, id_).trigger is None
    assert len(sandbox.pushes()) == 1
    assert _ended(working, id_) == ("pushed", "no fallback planned")


def test_a_later_change_of_the_template_changes_nothing_that_is_under_way(
    working: Services, sandbox: Sandbox, clock: Clock, apply: Any
) -> None:
    apply()
    english, german = _send(working, {}, {"locale": "de"})
    other = {"push": {"title": "New", "body": "{{ something_else }}"}}
    apply(contents={"en": other}, signature="New:", fallback="never")
    clock.advance(timedelta(minutes=11))
    working.later_steps.send(working.fallback.check([english, german]))
    # The German one has no text of its own, so it says what the push says.
    assert {t.body for t in sandbox.texts()} == {"Shop: Ana is here now", "Shop: Ana ist da"}


def test_a_push_that_is_taken_up_again_says_the_same(working: Services, sandbox: Sandbox, apply: Any) -> None:
    apply()
    (id_,) = _send(working, {"locale": "de"})

    def take_up_again() -> None:
        with working.engine.begin() as conn:
            conn.execute(sa.text("UPDATE attempts SET state = 'open'"))
            conn.execute(
                sa.text(
                    "UPDATE deliveries SET state = 'scheduled', wake_at = knocktwice_now(), finished_at = NULL WHERE step = 0"
                )
            )
        working.pushes.resume([id_])

    def pushed(times: int) -> bool:
        # A push that could not leave within a second of its look is taken up once more.
        if len(sandbox.pushes()) < times:
            take_up_again()
        return len(sandbox.pushes()) >= times

    eventually(lambda: pushed(1))
    first = sandbox.pushes()[0]
    apply(contents={"en": ORDER["contents"]["en"]})
    take_up_again()
    eventually(lambda: pushed(2))
    again = sandbox.pushes()[-1]
    assert (again.title, again.body, again.data) == (first.title, first.body, first.data)


def test_params_may_be_positional(working: Services, sandbox: Sandbox, clock: Clock, apply: Any) -> None:
    apply(contents={"en": {"push": {"title": "t", "body": "Code {2} for {1}"}, "sms": "{1}, {2}"}})
    (id_,) = _send(working, {"params": ["Ana", 4711]})
    assert sandbox.pushes()[0].body == "Code 4711 for Ana"
    _text(working, clock, id_)
    assert [t.body for t in sandbox.texts()] == ["Shop: Ana, 4711"]


def test_whom_it_cannot_serve_ends_with_the_reason_and_the_others_go_on(
    working: Services, sandbox: Sandbox, apply: Any
) -> None:
    apply(default_locale=None)
    nameless, stranger, unknown, served = _send(
        working, {"locale": "de", "params": {}}, {"locale": "fr-FR"}, {}, {"locale": "en-US"}
    )
    assert _ended(working, nameless) == (
        "failed",
        "template order (de): content.push.body: 'courier' is undefined",
    )
    assert _ended(working, stranger) == (
        "failed",
        "locale: nothing for fr-FR; template order has de, en and no default_locale",
    )
    assert _ended(working, unknown) == (
        "failed",
        "locale: is not known; template order has de, en and no default_locale",
    )
    assert _ended(working, served)[0] == "active"
    assert [p.registration for p in sandbox.pushes()] == ["silent-3"]


def test_an_unknown_template_fails_its_recipients_and_is_done_with(
    working: Services, sandbox: Sandbox, apply: Any
) -> None:
    apply()
    for id_ in _send(working, {}, {"locale": "de"}, template="ordre"):
        assert _ended(working, id_) == ("failed", "template: there is none called ordre")
    assert sandbox.pushes() == []


def test_a_template_that_this_release_does_not_understand_fails_and_does_not_crash(
    working: Services, apply: Any
) -> None:
    apply()
    with working.engine.begin() as conn:
        conn.execute(sa.text("""UPDATE templates SET definition = definition || '{"channels": ["pigeon"]}'"""))
    (id_,) = _send(working, {})
    assert _ended(working, id_) == ("failed", "template: order.channels: is not a field of a template")


def test_a_batch_that_comes_twice_is_told_once(working: Services, sandbox: Sandbox, apply: Any) -> None:
    apply()
    recipient = {"id": str(uuid7()), "registrations": ["silent-1"], "params": {"courier": "Ana"}}
    wire = {"v": 1, "id": str(uuid7()), "content": {"template": "order"}, "recipients": [recipient]}
    for _ in range(2):
        working.pushes.send(parse_batch(wire))
        apply(contents={"en": {"push": {"title": "x", "body": "other"}}})
    assert len(sandbox.pushes()) == 1
    assert _row(working, str(recipient["id"])).content["version"] == 1


def test_the_store_finds_what_was_chosen_for_the_decision_too(working: Services, clock: Clock, apply: Any) -> None:
    apply()
    (id_,) = _send(working, {"locale": "de"})
    clock.advance(timedelta(hours=1))
    with working.engine.begin() as conn:
        (row,) = store.due(conn, [id_])
    assert row.locale == "de"


def test_changes_of_a_template_are_counted(working: Services, apply: Any) -> None:
    apply()
    apply(signature=None)
    with working.engine.connect() as conn:
        found = template_store.get(conn, "order")
        assert found is not None
        assert (found.version, found.definition.signature) == (2, None)
        assert template_store.get(conn, "nothing") is None
        assert [(t.name, t.version) for t in template_store.names(conn)] == [("order", 2)]


def test_texts_by_language_in_the_message_are_chosen_as_a_templates_are(
    working: Services, sandbox: Sandbox, clock: Clock
) -> None:
    with working.engine.begin() as conn:
        now = conn.execute(sa.text("SELECT knocktwice_now()")).scalar_one()
        devices = [
            DeviceRegistered("u-1", "silent-at", now, locale="de_AT"),
            DeviceRegistered("u-2", "silent-fi", now, locale="fi"),
        ]
        audience.apply(conn, [*devices, PhoneBound("u-1", "+16505550101", now), PhoneBound("u-2", "+16505550102", now)])
    people: list[dict[str, Any]] = [
        {"user": "u-1"},
        {"user": "u-2"},
        {"registrations": ["silent-0"], "locale": "zh-TW", "phone": "+16505550103"},
    ]
    recipients = [{"id": str(uuid7()), "params": {"courier": "Ana"}} | person for person in people]
    # The languages are spelt as phones spell them; a template's would be corrected when it is stored.
    content = {
        "default_locale": "EN",
        "push": {
            "title": {"en": "Hello", "de": "Hallo", "zh_TW": "你好"},
            "body": "{{ courier }}",
            "link": {"en": "https://a.example/en", "de": "https://a.example/de", "zh_TW": "https://a.example/zh"},
        },
    }
    text = {"en": "{{ courier }} is here", "de": "{{ courier }} ist da", "zh_TW": "{{ courier }} 到了"}
    step = {"channel": "sms", "when": "not_clicked", "after_s": 60, "text": text}
    wire = {"v": 1, "id": str(uuid7()), "content": content, "plan": [step], "recipients": recipients}
    working.pushes.send(parse_batch(wire))
    assert {p.registration: (p.title, p.data["link"]) for p in sandbox.pushes()} == {
        "silent-at": ("Hallo", "https://a.example/de"),
        "silent-fi": ("Hello", "https://a.example/en"),
        "silent-0": ("你好", "https://a.example/zh"),
    }
    clock.advance(timedelta(minutes=2))
    working.later_steps.send(working.fallback.check([r["id"] for r in recipients]))
    assert {t.to: t.body for t in sandbox.texts()} == {
        "+16505550101": "Ana ist da",
        "+16505550102": "Ana is here",
        "+16505550103": "Ana 到了",
    }
    kept = [_row(working, r["id"]) for r in recipients]
    assert [row.locale for row in kept] == ["de", "en", "zh-Hant-TW"]
    assert {row.batch_id for row in kept} == {kept[0].batch_id}, "the texts are kept once"
    assert kept[0].params == {"courier": "Ana"}


def test_a_language_that_there_is_not_is_the_reason_why_nothing_is_sent(working: Services, sandbox: Sandbox) -> None:
    id_ = str(uuid7())
    content = {"push": {"title": {"en": "Hello", "cn": "你好"}, "body": "b"}}
    recipients = [{"id": id_, "registrations": ["silent-0"], "locale": "en"}]
    working.pushes.send(parse_batch({"v": 1, "id": str(uuid7()), "content": content, "recipients": recipients}))
    state, reason = _ended(working, id_)
    assert (state, reason) == ("failed", "content.push.title.cn: is not a locale such as de or de-AT; did you mean zh?")
    assert not sandbox.pushes()


def test_a_template_without_a_push_goes_at_once(working: Services, sandbox: Sandbox, clock: Clock, apply: Any) -> None:
    steps = [
        {"sender": "+16505550199"},
        {"when": "not_clicked", "after": "2h", "text": {"en": "Last call", "de": "Letzte"}},
    ]
    contents = {"en": {"text": "{{ courier }} is here"}, "de": {"text": "{{ courier }} ist da"}}
    apply(contents=contents, fallback=steps)
    ids = _send(working, {"locale": "de"}, {"locale": "fr"})
    working.later_steps.send(working.fallback.check(ids))
    assert not sandbox.pushes()
    assert {t.body for t in sandbox.texts()} == {"Shop: Ana ist da", "Shop: Ana is here"}
    clock.advance(timedelta(hours=2, minutes=1))
    working.later_steps.send(working.fallback.check(ids))
    assert {t.body for t in sandbox.texts()} >= {"Shop: Letzte", "Shop: Last call"}
    # A plan of the message's own begins at once, too, whatever its first step waits for.
    apply("alone", contents=contents, fallback=None)
    own = [{"channel": "sms", "when": "not_clicked", "after_s": 900, "text": "Own"}]
    ids = _send(working, {"phone": "+16505550177"}, template="alone", plan=own)
    working.later_steps.send(working.fallback.check(ids))
    assert sandbox.texts()[-1].body == "Own"
    (nothing,) = _send(working, {}, template="alone", plan=[])
    assert _ended(working, nothing) == ("failed", "template: alone has no push, and the message leaves out its steps")
