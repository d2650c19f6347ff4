"""Tencent's push payload: the sample of its documentation as it is, each field's meaning,
and everything that is wrong at once.
"""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from knocktwice import tpns
from knocktwice.testing import RecordingClient
from knocktwice_shared.ids import blast_id
from knocktwice_shared.messages import TENCENT_CONDITIONS, Push, When, blast_batch, parse_batch
from knocktwice_worker.audience.segment_filter import dump, parse
from support.tencent_sample import FIRST, SAMPLE, SECOND

TEMPLATES = {"123": "{1} and {2}"}
PHONES = {FIRST: "+1 650 555 0100", SECOND: "+16505550101"}


def sample(**changes: object) -> dict[str, Any]:
    """The sample with other fields; ``None`` leaves one out. ``sms`` and ``message`` change what is inside."""
    made: dict[str, Any] = json.loads(SAMPLE)
    inner = {"sms": "sms_info", "message": "message"}
    for name, value in changes.items():
        if name in inner and isinstance(value, dict):
            made[inner[name]] |= value
        else:
            made[name] = value
    return {name: value for name, value in made.items() if value is not None}


def send(payload: dict[str, Any], **more: Any) -> tuple[RecordingClient, tpns.Notified]:
    client = RecordingClient()
    given = {"sms_templates": TEMPLATES, "phones": PHONES} | more
    before = copy.deepcopy(payload)
    done = tpns.notify(payload, client=client, **given)
    assert payload == before, "the payload is the caller's"
    return client, done


def problems(payload: dict[str, Any]) -> dict[str, str]:
    client = RecordingClient()
    with pytest.raises(tpns.InvalidPayload) as refused:
        tpns.notify(payload, client=client, sms_templates=TEMPLATES, phones=PHONES)
    client.assert_nobody_notified()
    for problem in refused.value.problems:
        assert str(problem.problem) in str(refused.value)
    return {problem.field: problem.problem for problem in refused.value.problems}


def sms_problems(payload: dict[str, Any], **more: Any) -> dict[str, str]:
    client, done = send(payload, **more)
    assert len(client.notifications) == 2, "the push goes out whatever is wrong with the SMS"
    return {problem.field: problem.problem for problem in done.sms_problems}


def test_the_sample_of_the_documentation_is_taken_as_it_is() -> None:
    client, done = send(json.loads(SAMPLE))
    first, second = client.notifications
    assert done.ids == (first.recipient.id, second.recipient.id)
    assert done.sms_problems == ()
    assert (first.recipient.registrations, first.recipient.phone) == ((FIRST,), "+16505550100")
    assert (second.recipient.registrations, second.recipient.phone) == ((SECOND,), "+16505550101")
    assert (first.push.title, first.push.body) == (" test loop", "test loop")
    assert first.batch.sms_text == "[signe_name] param1 and param2"
    (step,) = first.batch.plan or ()
    assert (step.when, step.after) == (When.NOT_DELIVERED, timedelta(seconds=3600))


@pytest.mark.parametrize(("number", "when"), list(enumerate(TENCENT_CONDITIONS)))
def test_each_trigger_condition_has_its_meaning(number: int, when: When) -> None:
    client, _ = send(sample(sms={"trigger_condition": number}))
    assert [step.when for step in client.notifications[0].batch.plan or ()] == [when]


def test_an_account_is_a_user() -> None:
    client, _ = send(sample(audience_type="account_list", account_list=["u-1", "u-2"], token_list=None))
    assert [n.recipient.user for n in client.notifications] == ["u-1", "u-2"]
    assert all(n.recipient.phone is None for n in client.notifications)


@pytest.mark.parametrize(("kind", "field"), [("token", "token_list"), ("account", "account_list")])
def test_of_a_single_one_only_the_first_is_notified(kind: str, field: str) -> None:
    client, done = send(sample(audience_type=kind, **{field: [FIRST, SECOND]}))
    assert len(client.notifications) == len(done.ids) == 1


def test_without_resend_by_sms_there_is_none_whatever_sms_info_says() -> None:
    for payload in (sample(resend_by_sms=False), sample(resend_by_sms=None, sms={"trigger_condition": 9})):
        client, done = send(payload)
        assert (client.notifications[0].batch.plan, done.sms_problems) == ((), ())
        assert client.notifications[0].recipient.phone is None


def test_what_the_push_carries_beside_its_text() -> None:
    android = {
        "custom_content": '{"order": 7, "shop": "A"}',
        "action": {"action_type": 2, "browser": {"url": "https://a.example"}},
    }
    message = {
        "xg_media_resources": "https://a.example/i.png",
        "android": android,
        "ios": {"custom_content": {"ios": "x"}},
    }
    client, _ = send(sample(message=message, expire_time=600, group_id="g-1", environment="product"))
    notification = client.notifications[0]
    assert notification.push.data == {"order": "7", "shop": "A", "ios": "x"}
    assert (notification.push.link, notification.push.image) == ("https://a.example", "https://a.example/i.png")
    assert notification.batch.ttl == timedelta(seconds=600)
    assert notification.batch.reference == {"group_id": "g-1"}


@pytest.mark.parametrize(
    ("message", "looks"),
    [
        ({"android": {"n_ch_id": "orders", "small_icon": "van"}}, {"channel_id": "orders", "icon": "van"}),
        ({"android": {"icon_color": 0x00AA55, "ring": 1}}, {"color": "#00aa55"}),
        ({"android": {"ring": 0}}, {"sound": "none"}),
        ({"android": {"ring_raw": "van"}}, {"sound": "van"}),
        ({"android": {"action": {"action_type": 3, "intent": "app://a/7"}}}, {"link": "app://a/7"}),
        ({"ios": {"aps": {"alert": {"subtitle": "s"}, "badge_type": 5}}}, {"subtitle": "s", "badge": 5}),
        ({"ios": {"badge_type": 0}}, {"badge": 0}),
        ({"ios": {"aps": {"badge_type": -1, "mutable-content": 1, "alert": {}}}}, {}),
        (
            {"ios": {"aps": {"sound": "van.caf", "category": "INVITE"}}},
            {"apns": {"payload": {"aps": {"sound": "van.caf", "category": "INVITE"}}}},
        ),
    ],
)
def test_how_a_push_looks_and_sounds(message: dict[str, Any], looks: dict[str, Any]) -> None:
    client, _ = send(sample(message=message))
    fields = client.notifications[0].push.fields()
    assert {name: v for name, v in fields.items() if name not in ("title", "body")} == looks


def test_braces_are_text_and_no_placeholders() -> None:
    client, done = send(
        sample(
            message={"title": "{{ a }}", "content": "{% if %}", "ios": {"custom_content": {"a": "{{ c }}"}}},
            sms={"sms_template_params": ["{{b}}", "{1}"]},
        )
    )
    assert done.sms_problems == ()
    notification = client.notifications[0]
    assert (notification.push.title, notification.push.body) == ("{{ title }}", "{{ content }}")
    assert notification.push.data == {"a": "{{ text3 }}"}
    assert notification.recipient.params == {
        "title": "{{ a }}",
        "content": "{% if %}",
        "text3": "{{ c }}",
        "sms": "[signe_name] {{b}} and {1}",
    }


def test_the_same_key_notifies_each_once() -> None:
    client = RecordingClient()
    first, again = (tpns.notify(json.loads(SAMPLE), client=client, key="campaign-7") for _ in range(2))
    assert first.ids == again.ids
    assert len(client.notifications) == 2


def test_everything_that_is_wrong_is_named_at_once() -> None:
    wrong = {
        "audience_type": "token_list",
        "token_list": "not a list",
        "message_type": "message",
        "message": {
            "content": 7,
            "android": {"n_ch": "c", "custom_content": "{", "action": {"action_type": 4}},
            "accept_time": [{"start": {}}],
        },
        "expire_time": -1,
        "send_time": "tomorrow",
        "loop_times": 3,
        "upload_id": 1,
        "account_push_type": 7,
        "recieve_by_sms": True,
    }
    found = problems(wrong)
    assert list(found) == [
        "loop_times",
        "upload_id",
        "recieve_by_sms",
        "message_type",
        "message.accept_time",
        "message.title",
        "message.content",
        "message.android.n_ch",
        "message.android.custom_content",
        "message.android.action.action_type",
        "token_list",
        "expire_time",
        "send_time",
    ]
    assert "cron" in found["loop_times"]
    assert "KNOCKTWICE_QUIET_HOURS" in found["message.accept_time"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"audience_type": None}, "audience_type"),
        ({"audience_type": "package_token_push"}, "audience_type"),
        ({"token_list": []}, "token_list"),
        ({"token_list": ["a", ""]}, "token_list[1]"),
        ({"message": None}, "message"),
        ({"message": {"title": "x" * 4000}}, "message.title"),
        ({"message": {"xg_media_resources": "file:///x"}}, "message.xg_media_resources"),
        ({"platform": "symbian"}, "platform"),
        ({"audience_type": "account", "account_list": ["u"], "account_push_type": 7}, "account_push_type"),
        ({"knocktwice": {"strict": "yes"}}, "knocktwice.strict"),
        ({"knocktwice": {"strikt": True}}, "knocktwice.strikt"),
        ({"message": {"ios": {"aps": {"alert": {"title": "t"}}}}}, "message.ios.aps.alert.title"),
        ({"message": {"android": {"action": {"action_type": 3}}}}, "message.android.action.intent"),
        ({"message": {"android": {"action": {"action_type": 3, "intent": "x"}}}}, "message.android.action"),
        ({"message": {"ios": {"custom_content": {"from": "x"}}}}, "message.android.custom_content.from"),
        ({"expire_time": 10**9}, "expire_time"),
        ({"expire_time": True}, "expire_time"),
        ({"send_time": 1764600000}, "send_time"),
        ({"send_time": "2026-12-01T18:30:00Z"}, "send_time"),
    ],
)
def test_a_push_that_cannot_go_as_it_should_does_not_go(changes: dict[str, Any], field: str) -> None:
    assert field in problems(sample(**changes))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sms": {"delay_trigger_time": 299}}, "sms_info.delay_trigger_time"),
        ({"sms": {"delay_trigger_time": None}}, "sms_info.delay_trigger_time"),
        ({"sms": {"delay_trigger_time": 2592001}}, "sms_info.delay_trigger_time"),
        ({"sms": {"trigger_condition": 3}}, "sms_info.trigger_condition"),
        ({"sms": {"trigger_condition": "1"}}, "sms_info.trigger_condition"),
        ({"sms": {"sms_template_id": None}}, "sms_info.sms_template_id"),
        ({"sms": {"sms_template_id": "124"}}, "sms_info.sms_template_id"),
        ({"sms": {"sms_app_id": None}}, "sms_info.sms_app_id"),
        ({"sms": {"sms_sign_name": 7}}, "sms_info.sms_sign_name"),
        ({"sms": {"sms_template_params": ["one"]}}, "sms_info.sms_template_params"),
        ({"sms": {"sms_template_params": ["x" * 1600, "y"]}}, "sms_info.sms_template_params"),
        ({"sms": {"delay": 1}}, "sms_info.delay"),
        ({"sms_info": None}, "sms_info"),
        ({"sms_info": []}, "sms_info"),
        ({"resend_by_sms": "yes"}, "resend_by_sms"),
    ],
)
def test_wrong_sms_settings_never_stop_the_push(
    changes: dict[str, Any], field: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "knocktwice"):
        assert list(sms_problems(sample(**changes))) == [field]
    assert field in caplog.text


def test_a_token_without_a_number_is_its_owners_and_the_others_have_theirs() -> None:
    client, done = send(json.loads(SAMPLE), phones={SECOND: "+16505550101"})
    assert not done.sms_problems
    assert [n.recipient.phone for n in client.notifications] == [None, "+16505550101"]
    assert sms_problems(json.loads(SAMPLE), phones={**PHONES, FIRST: "0650"}).keys() == {"phones of token_list[0]"}


#: What Tencent's own examples and libraries send beside the texts, and what this says to an app that comes from them.
WHATEVER = {
    "title": "t",
    "content": "c",
    "custom_content": {"all": 1},
    "android": {"n_id": 0, "builder_id": 0, "vibrate": 1, "lights": 1, "clearable": 1, "icon_type": 0, "style_id": 1},
    "ios": {"aps": {"alert": {}}, "custom1": "bar", "custom2": ["bang", "whiz"], "custom": {"key1": "v"}},
}


def test_what_tencents_own_examples_send_beside_the_texts_is_taken() -> None:
    usual = sample(message=WHATEVER, seq=7, push_id="0", account_type=0, loop_times=0, badge_type=-1, platform="ios")
    client, done = send(usual, strict=True)
    assert (done.ignored, done.sms_problems) == ((), ())
    assert client.notifications[0].push.data == {
        "all": "1",
        "custom1": "bar",
        "custom2": '["bang", "whiz"]',
        "key1": "v",
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"message": {"ios": {"aps": {"badge_type": -2}}}}, "message.ios.aps.badge_type"),
        ({"badge_type": -2}, "badge_type"),
        ({"message": {"android": {"vibrate": 0}}}, "message.android.vibrate"),
        ({"message": {"android": {"n_id": 4}}}, "message.android.n_id"),
        ({"message": {"android": {"icon_res": "van"}}}, "message.android.icon_res"),
        ({"message": {"android": {"xm_ch_id": "orders"}}}, "message.android.xm_ch_id"),
        (
            {"message": {"android": {"action": {"action_type": 1, "activity": "a.B"}}}},
            "message.android.action.activity",
        ),
        ({"message": {"show_type": 1}}, "message.show_type"),
        ({"message": {"ios": {"xg": "oops"}}}, "message.ios.xg"),
        ({"collapse_id": 5}, "collapse_id"),
        ({"channel_rules": [{"channel": "hw", "disable": True}]}, "channel_rules"),
        ({"audience_type": "account", "account_list": ["u"], "platform": "ios"}, "platform"),
        ({"audience_type": "account", "account_list": ["u"], "account_push_type": 0}, "account_push_type"),
    ],
)
def test_a_wish_that_cannot_be_met_is_named_and_strictly_refuses_the_push(changes: dict[str, Any], field: str) -> None:
    client, done = send(sample(**changes))
    assert client.notifications
    assert [one.field for one in done.ignored] == [field]
    for strict in ({"strict": True}, {}):
        payload = sample(**changes) | ({} if strict else {"knocktwice": {"strict": True}})
        with pytest.raises(tpns.InvalidPayload) as refused:
            send(payload, **strict)
        assert [one.field for one in refused.value.problems] == [field]


def test_strictly_wrong_sms_settings_refuse_the_push() -> None:
    with pytest.raises(tpns.InvalidPayload) as refused:
        send(sample(sms={"sms_template_id": "124"}), strict=True)
    assert [one.field for one in refused.value.problems] == ["sms_info.sms_template_id"]


@pytest.mark.parametrize(
    ("signature", "text"),
    [("[]", "[signe_name] param1"), ("【】", "【signe_name】param1"), ("", "param1")],
)
def test_the_signature_stands_before_the_text_as_it_is_set(signature: str, text: str) -> None:
    client, _ = send(json.loads(SAMPLE), signature=signature)
    assert client.notifications[0].batch.sms_text == f"{text} and param2"
    with pytest.raises(tpns.InvalidPayload):
        send(json.loads(SAMPLE), signature="<>")


VIP, TEA = ({"field": f"tags.{tag}", "op": "=", "value": True} for tag in ("vip", "tea"))


@pytest.mark.parametrize(
    ("payload", "filter_"),
    [
        ({"audience_type": "all"}, {"everyone": True}),
        ({"tag_list": {"tags": ["vip", "tea"], "op": "AND"}}, {"and": [VIP, TEA]}),
        ({"tag_list": {"tags": ["vip", "tea"], "op": "OR"}}, {"or": [VIP, TEA]}),
        ({"tag_rules": [{"tag_items": [{"tags": ["vip"], "tags_operator": "OR", "is_not": True}]}]}, {"not": VIP}),
        (
            {
                "tag_list": {"tags": ["ignored"], "op": "OR"},
                "tag_rules": [
                    {
                        "tag_items": [
                            {"tags": ["vip", "tea"], "tags_operator": "OR", "tag_type": "xg_user_define"},
                            {
                                "tags": ["AT"],
                                "tags_operator": "OR",
                                "items_operator": "AND",
                                "tag_type": "xg_auto_country",
                            },
                        ],
                    },
                    {"tag_items": [{"tags": ["tea"], "tags_operator": "AND"}], "operator": "OR", "is_not": True},
                ],
            },
            {
                "or": [
                    {"and": [{"or": [VIP, TEA]}, {"field": "country", "op": "=", "value": "AT"}]},
                    {"not": TEA},
                ]
            },
        ),
    ],
)
def test_tags_are_a_segment(payload: dict[str, Any], filter_: dict[str, Any]) -> None:
    made = tpns.segment_filter({"audience_type": "tag", **payload})
    assert made == filter_
    assert dump(parse(made)) == filter_


@pytest.mark.parametrize(
    ("payload", "fields"),
    [
        ({}, ["tag_list"]),
        ({"tag_list": {"tags": [], "op": "XOR"}}, ["tag_list.tags", "tag_list.op"]),
        ({"tag_rules": []}, ["tag_rules"]),
        ({"tag_rules": [{"tag_items": 7}]}, ["tag_rules[0].tag_items"]),
        (
            {"tag_rules": [{"tag_items": [{"tags": ["a"], "tags_operator": "OR", "tag_type": "xg_auto_active"}] * 2}]},
            ["tag_rules[0].tag_items[0].tag_type", "tag_rules[0].tag_items[1].tag_type"],
        ),
        (
            {"tag_rules": [{"tag_items": [{"tags": ["a"], "tags_operator": "OR"}]}] * 2},
            ["tag_rules[1].operator"],
        ),
    ],
)
def test_wrong_tags_are_named(payload: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(tpns.InvalidPayload) as refused:
        tpns.segment_filter({"audience_type": "tag", **payload})
    assert [problem.field for problem in refused.value.problems] == fields


def test_tags_and_all_become_a_blast_with_all_that_a_list_would_get() -> None:
    payload = sample(
        audience_type="tag", tag_list={"tags": ["vip"], "op": "OR"}, token_list=None, message={"title": "{{ a }}"}
    )
    client, done = send(payload | {"group_id": "g-1", "expire_time": 600}, key="tea-47", category="marketing")
    (blast,) = client.blasts
    assert (done.blast, done.ids, done.sms_problems) == (blast_id("tea-47"), (), ())
    assert (blast.key, blast.filter, blast.params) == ("tea-47", VIP, {"title": "{{ a }}"})
    batch = parse_batch(blast_batch(blast.message, blast.params, str(UUID(int=0)), {str(UUID(int=1)): "u-1"}))
    assert batch.push == Push("{{ title }}", "test loop")
    assert (batch.sms_text, batch.category, batch.ttl) == (
        "[signe_name] param1 and param2",
        "marketing",
        timedelta(0, 600),
    )
    assert batch.reference == {"group_id": "g-1"}
    assert [(step.when, step.after) for step in batch.plan or ()] == [(When.NOT_DELIVERED, timedelta(hours=1))]
    everyone, _ = send(sample(audience_type="all", token_list=None, resend_by_sms=False), key="all-1")
    assert everyone.blasts[0].filter == {"everyone": True}


def test_a_group_may_be_narrowed_to_a_platform_and_pushed_to_at_a_pace() -> None:
    group = {"audience_type": "all", "token_list": None, "platform": "ios", "push_speed": 1000}
    client, done = send(sample(**group, knocktwice={"key": "k", "category": "marketing"}))
    ios = {"field": "platform", "op": "=", "value": "ios"}
    assert (client.blasts[0].filter, client.blasts[0].throttle_per_min, done.ignored) == (ios, 60_000, ())
    assert client.blasts[0].message["category"] == "marketing"
    tags = {**group, "audience_type": "tag", "tag_list": {"tags": ["vip"], "op": "OR"}}
    client, _ = send(sample(**tags), key="k")
    assert client.blasts[0].filter == {"and": [VIP, ios]}


def test_tags_without_a_key_are_refused_because_a_repeat_would_notify_again() -> None:
    found = problems(sample(audience_type="tag", tag_list={"tags": ["vip"], "op": "OR"}, token_list=None))
    assert list(found) == ["key"]


def test_more_tags_than_a_blast_takes_are_refused_in_the_payloads_words() -> None:
    many = {"tags": [f"a-rather-long-label-{n}" for n in range(100)], "op": "OR"}
    with pytest.raises(tpns.InvalidPayload) as refused:
        send(sample(audience_type="tag", tag_list=many, token_list=None), key="k")
    assert [problem.field for problem in refused.value.problems] == ["tag_list"]


@pytest.mark.parametrize("audience", [{}, {"audience_type": "all", "token_list": None}])
def test_send_time_is_told_by_tencents_clock_or_the_one_that_is_named(audience: dict[str, Any]) -> None:
    def at(**more: Any) -> datetime:
        client, _ = send(sample(send_time="2026-12-01 18:30:00", **audience), key="k", **more)
        messages = [n.batch.send_at for n in client.notifications] or [
            datetime.fromisoformat(str(b.message["send_at"])) for b in client.blasts
        ]
        (moment,) = set(messages)
        assert isinstance(moment, datetime)
        return moment.astimezone(UTC)

    assert at() == datetime(2026, 12, 1, 10, 30, tzinfo=UTC)
    assert at(zone=ZoneInfo("Europe/Vienna")) == datetime(2026, 12, 1, 17, 30, tzinfo=UTC)


def test_an_application_that_does_not_use_it_does_not_load_it() -> None:
    code = "import sys, knocktwice; sys.exit(any(name.startswith('knocktwice.tpns') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
