"""The sandbox as Twilio: its SDK sends, fetches and lists, and what Twilio refuses it refuses."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from twilio.base.exceptions import TwilioRestException

from knocktwice_worker.sandbox import Answer, Rule, Sandbox
from support.provider_clients import NUMBER, code_of, send_text

if TYPE_CHECKING:
    import httpx
    from twilio.rest import Client


def test_twilios_sdk_creates_and_fetches_a_message(sandbox: Sandbox, twilio: Client) -> None:
    created = twilio.messages.create(to="+49 (151) 1234-5678", from_="+15005550006", body="Grüße €")
    assert (created.status, created.to, created.num_segments) == ("queued", NUMBER, "1")
    assert created.date_created is not None
    assert created.date_created.tzinfo is not None
    sandbox.wait_until(lambda: sandbox.texts()[0].status == "delivered")
    assert created.sid is not None
    fetched = twilio.messages(created.sid).fetch()
    assert (fetched.status, fetched.body, fetched.from_) == ("delivered", "Grüße €", "+15005550006")
    assert fetched.date_sent is not None
    with pytest.raises(TwilioRestException) as caught:
        twilio.messages("SM" + "0" * 32).fetch()
    assert (caught.value.status, caught.value.code) == (404, 20404)


def test_a_message_with_media_is_one_of_another_kind(sandbox: Sandbox, twilio: Client) -> None:
    url = "https://shop.example/4711.png"
    created = twilio.messages.create(to=NUMBER, from_="+15005550006", body="x" * 200, media_url=[url, url])
    assert (created.num_media, created.num_segments, (created.sid or "")[:2]) == ("2", "1", "MM")
    assert sandbox.texts()[0].media == (url, url)


def test_through_a_messaging_service_a_message_has_no_sender_yet(sandbox: Sandbox, twilio: Client) -> None:
    service = "MG" + "a" * 32
    created = twilio.messages.create(to=NUMBER, messaging_service_sid=service, body="x")
    assert (created.status, created.from_, created.num_segments) == ("accepted", None, "0")
    assert sandbox.texts()[0].messaging_service == service


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": "", "from_": "+15005550006", "body": "x"}, 21604),
        ({"to": "0151 123", "from_": "+15005550006", "body": "x"}, 21211),
        ({"to": NUMBER, "body": "x"}, 21603),
        ({"to": NUMBER, "from_": "+15005550006"}, 21602),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x" * 1601}, 21617),
        ({"to": NUMBER, "from_": "+", "body": "x"}, 21212),
        ({"to": NUMBER, "from_": "+15005550006", "media_url": ["gopher"]}, 21620),
        ({"to": NUMBER, "from_": "+15005550006", "media_url": ["https://a.example/b"] * 11}, 21623),
        ({"to": NUMBER, "messaging_service_sid": "MG1", "body": "x"}, 21705),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "gopher"}, 21609),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "http://localhost/ X: y"}, 21609),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "http://my_app/x"}, 21609),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "http://localhost:99999/"}, 21609),
        ({"to": NUMBER, "from_": "+15005550006", "body": "x", "status_callback": "http://a/" + "x" * 3992}, 21609),
        ({"to": "+15005550001", "from_": "+15005550006", "body": "x"}, 21211),
        ({"to": "+15005550004", "from_": "+15005550006", "body": "x"}, 21610),
        ({"to": "+15005550010", "from_": "+15005550006", "body": "x"}, 21610),
        ({"to": NUMBER, "from_": "+15005550008", "body": "x"}, 21611),
    ],
)
def test_what_twilio_would_not_take_has_twilios_code(
    sandbox: Sandbox, twilio: Client, fields: dict[str, Any], code: int
) -> None:
    assert code_of(twilio, **fields) == (400, code)
    assert sandbox.texts() == []


def test_a_rate_limit_is_a_429(sandbox: Sandbox, twilio: Client) -> None:
    sandbox.rule(Rule("sms", times=1, answer=Answer(error_code=20429)))
    assert code_of(twilio, to=NUMBER, from_="+15005550006", body="x") == (429, 20429)


def test_a_body_of_just_1600_characters_is_taken_in_eleven_segments(twilio: Client) -> None:
    assert twilio.messages.create(to=NUMBER, from_="+15005550006", body="x" * 1600).num_segments == "11"


@pytest.mark.parametrize("auth", [None, ("AC" + "0" * 32, "wrong"), "right account, wrong token"])
def test_twilio_wants_the_account_and_its_token(web: httpx.Client, environment: dict[str, str], auth: Any) -> None:
    account = environment["TWILIO_ACCOUNT_SID"]
    auth = (account, "wrong") if isinstance(auth, str) else auth
    for answer in (
        web.post(f"/2010-04-01/Accounts/{account}/Messages.json", data={}, auth=auth),
        web.get(f"/2010-04-01/Accounts/{account}/Messages.json", auth=auth),
        web.get(f"/2010-04-01/Accounts/{account}/Messages/SM1.json", auth=auth),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, 20003)


def test_another_account_is_not_found(web: httpx.Client, environment: dict[str, str]) -> None:
    auth = (environment["TWILIO_ACCOUNT_SID"], environment["TWILIO_AUTH_TOKEN"])
    assert web.get(f"/2010-04-01/Accounts/AC{'0' * 32}/Messages.json", auth=auth).status_code == 404


def test_the_list_is_newest_first_and_pages_do_not_shift(sandbox: Sandbox, twilio: Client) -> None:
    sids = [send_text(twilio, body=str(n)) for n in range(7)]
    send_text(twilio, to="+4915100000000")
    assert [m.sid for m in twilio.messages.list(to=NUMBER)] == sids[::-1]
    assert [m.sid for m in twilio.messages.list(to=NUMBER, page_size=3)] == sids[::-1]
    assert [m.sid for m in twilio.messages.list(to=NUMBER, limit=2)] == sids[:-3:-1]
    page = twilio.messages.page(to=NUMBER, page_size=3)
    first = [m.sid for m in page]
    send_text(twilio, body="in between")
    second = page.next_page()
    assert second is not None
    assert first + [m.sid for m in second] == sids[:0:-1]
    assert len(twilio.messages.list()) == 9
    assert sandbox.requests("sms") == 9


def test_the_list_is_filtered_by_the_date_of_sending(sandbox: Sandbox, twilio: Client) -> None:
    sid = send_text(twilio)
    sandbox.wait_until(lambda: sandbox.texts()[0].status == "delivered")
    sent = sandbox.texts()[0].sent_at
    assert sent is not None
    sandbox.rule(Rule("sms", answer=Answer(statuses=())))
    send_text(twilio)  # is never sent

    def listed(**dates: Any) -> list[str | None]:
        return [m.sid for m in twilio.messages.list(**dates)]

    hour = timedelta(hours=1)
    assert listed(date_sent_after=sent - hour) == [sid]
    assert listed(date_sent_after=sent + hour) == []
    assert listed(date_sent_before=sent + hour) == [sid]
    assert listed(date_sent_before=sent - hour) == []
    assert listed(date_sent=sent) == [sid]
    assert listed(date_sent=sent - hour) == []


@pytest.mark.parametrize(
    ("query", "found"),
    [("DateSent>={today}", 1), ("DateSent<={today}", 1), ("DateSent={today}", 1), ("DateSent>=2999-01-01", 0)],
)
def test_the_list_takes_dates_as_twilios_documents_write_them(
    sandbox: Sandbox, twilio: Client, web: httpx.Client, query: str, found: int
) -> None:
    send_text(twilio)
    sandbox.wait_until(lambda: sandbox.texts()[0].sent_at)
    path = f"/2010-04-01/Accounts/{twilio.account_sid}/Messages.json"
    sent = sandbox.texts()[0].sent_at
    assert sent is not None
    day = date(sent.year, sent.month, sent.day)
    answer = web.get(f"{path}?{query.format(today=day)}", auth=(str(twilio.username), str(twilio.password)))
    assert len(answer.json()["messages"]) == found


@pytest.mark.parametrize("query", ["DateSent=yesterday", "DateSent!=2026-01-01", "PageSize=many", "Page=x"])
def test_a_list_that_nobody_can_make_is_refused(twilio: Client, web: httpx.Client, query: str) -> None:
    send_text(twilio, to="+15005550032")
    path = f"/2010-04-01/Accounts/{twilio.account_sid}/Messages.json"
    answer = web.get(f"{path}?{query}", auth=(str(twilio.username), str(twilio.password)))
    assert (answer.status_code, answer.json()["code"]) == (400, 400)


def test_the_list_may_lag_behind_the_messages(sandbox: Sandbox, twilio: Client) -> None:
    send_text(twilio)
    sandbox.rule(Rule("list", match=NUMBER, times=1, answer=Answer(empty=True)))
    assert twilio.messages.list(to=NUMBER) == []
    assert len(twilio.messages.list(to=NUMBER)) == 1
