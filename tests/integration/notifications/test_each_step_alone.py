"""What is said: every text of a push is filled in, and a step that cannot be written stops none of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from knocktwice_worker.reporting import story
from support.scenario import NOW, installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from knocktwice_worker.embedded.servers import Servers
    from support.one_notification import OneNotification
    from support.scenario import Scenario

#: Longer than a push may be, once it is filled in.
LONG = "€" * 1_300


@pytest.fixture(scope="module")
def installation(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    with installed(servers, tmp_path_factory.mktemp("home")) as scenario:
        yield scenario


def notified(
    here: Scenario, push: dict[str, Any] | None, sms: str | None, params: dict[str, Any], **fields: Any
) -> OneNotification:
    """Notify somebody with values of their own."""
    said: dict[str, Any] = {} if push is None else {"push": {"title": "t", "body": "b", **push}}
    if sms is not None:
        said["sms"] = {"text": sms}
    case = here.notification(content=said, params=params, **fields)
    case.accept()
    return case


def pushed(here: Scenario, case: OneNotification) -> dict[str, Any]:
    """Return the push that the phone got."""
    (received,) = here.sandbox.pushes(case.registration)
    return dict(received.message)


def reasons(case: OneNotification) -> list[str | None]:
    query = "SELECT reason FROM deliveries WHERE notification_id = :id ORDER BY step"
    return [row.reason for row in case.rows(query)]


def reason(case: OneNotification) -> str:
    (row,) = case.rows("SELECT reason FROM notifications WHERE id = :id")
    return str(row.reason)


def test_placeholders_work_in_link_image_and_data_and_values_are_escaped_in_addresses(installation: Scenario) -> None:
    push = {
        "link": "https://shop.example/orders/{{ id }}?q={{ q }}",
        "image": "{{ pictures }}/{{ id }}.png",
        "data": {"order": "{{ id }}", "open": "myapp://orders/{{ id }}", "all": "{{ items }}"},
        "subtitle": "Order {{ id }}",
        "badge": "{{ unread }}",
        "apns": {"payload": {"aps": {"thread-id": "o-{{ id }}"}}},
        "android": {"notification": {"ticker": "{{ q }}"}},
    }
    params = {
        "id": "7/a b",
        "q": "a&b=ü",
        "pictures": "https://pictures.example/x",
        "unread": 3,
        "items": [{"n": 1}],
    }
    message = pushed(installation, notified(installation, push, None, params))
    link = "https://shop.example/orders/7%2Fa%20b?q=a%26b%3D%C3%BC"
    assert message["webpush"]["fcm_options"] == {"link": link}
    assert message["notification"]["image"] == "https://pictures.example/x/7%2Fa%20b.png"
    assert message["data"] | {"knocktwice_id": ""} == {
        "knocktwice_id": "",
        "order": "7/a b",
        "open": "myapp://orders/7%2Fa%20b",
        "all": '{"n": 1}',
        "link": link,
    }
    aps = message["apns"]["payload"]["aps"]
    assert (aps["alert"]["subtitle"], aps["badge"], aps["thread-id"]) == ("Order 7/a b", 3, "o-7/a b")
    assert message["android"]["notification"]["ticker"] == "a&b=ü"


def test_an_alert_makes_a_sound_unless_it_is_asked_to_be_silent(installation: Scenario) -> None:
    for sound, heard in ((None, "default"), ("chime.caf", "chime.caf"), ("none", None)):
        message = pushed(installation, notified(installation, {"sound": sound}, None, {}))
        assert message["apns"]["payload"]["aps"].get("sound") == heard
        assert message["android"]["notification"].get("sound") == heard


def test_what_is_not_sent_is_not_measured(installation: Scenario) -> None:
    case = notified(installation, {"body": "x" * 1_601}, None, {})
    assert (case.state(), case.steps()) == ("pushed", ["sent"])


@pytest.mark.parametrize(
    ("push", "params", "problem"),
    [
        ({"body": "{{ x }}{{ x }}"}, {"x": LONG}, "content.push: is 78"),
        ({"title": "{% if a %}{% endif %}", "body": "{% if a %}{% endif %}"}, {"a": 0, "n": 1}, "says nothing"),
        ({"link": "{{ x | downcase }}"}, {"x": "No Link"}, "content.push.link: holds white space"),
        ({"link": "{{ x | downcase }}"}, {"x": "nolink"}, "content.push.link: must be an address"),
        ({"image": "{{ x | downcase }}"}, {"x": "myapp://i.png"}, "content.push.image: must be an http"),
        ({"badge": "{{ x | downcase }}"}, {"x": "many"}, "content.push.badge: must be a whole number"),
    ],
)
def test_a_push_that_cannot_be_written_fails_with_its_reason_and_the_sms_goes_at_once(
    installation: Scenario, push: dict[str, Any], params: dict[str, Any], problem: str
) -> None:
    later = [{"channel": "sms", "when": "not_delivered", "after_s": 3_600}]
    case = notified(installation, push, "Your order {{ n }} is here.", {"n": 7, **params}, plan=later)
    assert case.steps() == ["failed", "scheduled"]
    case.decide_and_send()
    assert (case.state(), case.steps(), case.texts) == ("texted", ["failed", "sent"], 1)
    assert problem in (reasons(case)[0] or "")
    assert "push_failed" in case.ledger()
    told = story.tell(installation.here.engine.connect(), case.id)
    assert told is not None
    assert any(problem in moment.sentence for moment in told.moments)


def test_a_scheduled_push_that_cannot_be_written_leaves_its_sms_for_the_same_time(installation: Scenario) -> None:
    case = notified(
        installation, {"body": "{{ x }}{{ x }}"}, "Now.", {"x": LONG}, plan=NOW, send_at=installation.in_hours(2)
    )
    case.decide_and_send()
    assert (case.steps(), case.texts) == (["failed", "scheduled"], 0)
    (row,) = case.rows(
        "SELECT due_at - knocktwice_now() > interval '1 hour' AS later FROM deliveries "
        "WHERE notification_id = :id AND step = 1"
    )
    assert row.later


def test_an_sms_that_cannot_be_written_does_not_stop_the_push(installation: Scenario) -> None:
    case = notified(installation, {}, "{{ x }}{{ x }}", {"x": "y" * 900}, plan=NOW)
    assert case.steps() == ["sent", "scheduled"]
    case.decide_and_send()
    assert (case.state(), case.steps(), case.texts) == ("failed", ["sent", "failed"], 0)
    problem = "invalid_content: content.sms.text: is 1800 characters when filled in; 1600 at most"
    assert (reasons(case)[1], reason(case)) == (problem, problem)
    told = story.tell(installation.here.engine.connect(), case.id)
    assert told is not None
    assert any("is 1800 characters" in moment.sentence for moment in told.moments)


def test_an_sms_that_was_not_needed_is_never_blamed(installation: Scenario) -> None:
    case = notified(installation, {}, "{{ x }}{{ x }}", {"x": "y" * 900}, plan=NOW)
    case.click()
    assert (case.state(), case.steps()) == ("reached", ["sent", "skipped"])


def test_the_step_behind_one_that_cannot_be_written_is_taken_at_once(installation: Scenario) -> None:
    plan = [
        {"channel": "sms", "text": "{{ x }}{{ x }}"},
        {"channel": "sms", "when": "not_delivered", "after_s": 3_600, "text": "Short."},
    ]
    case = notified(installation, None, None, {"x": "y" * 900}, plan=plan)
    case.decide_and_send()
    case.decide_and_send()
    assert (case.state(), case.steps()) == ("texted", ["failed", "sent"])


def test_when_nothing_can_be_written_nothing_goes_and_the_first_reason_is_told(installation: Scenario) -> None:
    case = notified(installation, {"body": "{{ x }}{{ x }}"}, "{{ x }}{{ x }}", {"x": LONG}, plan=NOW)
    assert (case.state(), case.steps()) == ("failed", [])
    assert reason(case).startswith("content.push: is 78")
