"""Receipts and callbacks over HTTP: what is taken, what is refused, and that what is taken arrives."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa
from twilio.request_validator import RequestValidator

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Step, When, parse_receipts
from knocktwice_shared.names import INBOX_MESSAGES, Queue
from knocktwice_worker.audience import opt_outs
from knocktwice_worker.channels.messages import StepMessage
from knocktwice_worker.config import Settings
from knocktwice_worker.content.links.receipt_urls import device_hash, device_mark
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway
from support.sent_messages import SentMessages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import httpx

    from knocktwice_shared.messages import ReceiptEvent

PUBLIC = "https://push.example.com/base"
TOKEN = "twilio-auth-token"
SID = "SM" + "0a" * 16
NUMBER = "+16505550100"


@pytest.fixture
def public(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Services]:
    """Services of an installation that the world can reach."""
    settings = Settings(
        database_url=database_url,
        broker_url=valkey_url,
        secret="test",
        home=tmp_path,
        public_url=PUBLIC,
        twilio_account_sid="AC" + "0" * 32,
        twilio_auth_token=TOKEN,
        twilio_from="+15005550006",
    )
    built = Services(settings)
    yield built
    built.close()


@pytest.fixture
def phone(public: Services) -> Iterator[httpx.Client]:
    """Somebody without a key."""
    with HttpGateway(public) as running:
        yield running.stranger()


def _address(here: Services, id_: str, registration: str = "phone-1", ago: float = 0) -> str:
    """Where a push's app reports, below the gateway."""
    assert here.receipt_urls
    url = here.receipt_urls.url(id_, registration, now=time.time() - ago, ttl_s=60)
    assert url.startswith(PUBLIC)
    return url.removeprefix(PUBLIC)


def _queued(here: Services) -> list[ReceiptEvent]:
    """What is in the inbox, in any order."""
    kept: Any = here.redis.hvals(INBOX_MESSAGES)
    assert here.redis.llen(Queue.EVENTS) == len(kept)
    return [event for entry in kept for event in parse_receipts(json.loads(entry)["message"])]


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_receipt_is_in_the_broker_before_its_sender_is_told_so(
    public: Services, phone: httpx.Client, method: str
) -> None:
    id_ = str(uuid7())
    assert phone.request(method, f"{_address(public, id_)}/delivered").status_code == 204
    (event,) = _queued(public)
    assert (str(event.notification), event.kind) == (id_, "delivered")
    assert event.registration == device_mark(device_hash("phone-1"))


def test_forged_expired_and_moved_receipts_are_refused(public: Services, phone: httpx.Client) -> None:
    mine, others = _address(public, str(uuid7())), _address(public, str(uuid7()))
    expired = _address(public, str(uuid7()), ago=40 * 86_400)
    forged = mine[:-1] + ("A" if mine[-1] != "A" else "B")
    moved = others[:39] + mine[39:]
    for address in (forged, moved, expired, "/r/x"):
        answer = phone.post(f"{address}/clicked")
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:knocktwice:problem:invalid-signature")
    assert phone.post(f"{mine}/cancelled").status_code == 422
    assert _queued(public) == []


def test_what_a_browser_fetches_in_advance_reports_nothing(public: Services, phone: httpx.Client) -> None:
    address = _address(public, str(uuid7())) + "/clicked"
    for headers in ({"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}, {"X-Moz": "prefetch"}):
        assert phone.get(address, headers=headers).status_code == 204
    assert phone.head(address).status_code == 204
    assert _queued(public) == []


def test_a_batch_takes_what_is_valid_and_names_the_rest(public: Services, phone: httpx.Client) -> None:
    ids = [str(uuid7()) for _ in range(1_200)]
    told: list[dict[str, Any]] = [{"receipt": PUBLIC + _address(public, i), "kind": "delivered"} for i in ids]
    told[7]["receipt"] = "no token"
    told[8]["at"] = "2026-01-01T00:00:00Z"
    told[9]["at"] = "2999-01-01T00:00:00Z"
    answer = phone.post("/v1/receipts", json={"receipts": told})
    assert answer.status_code == 202
    refused = {"index": 7, "field": "receipts[7].receipt", "detail": "is not a receipt token"}
    assert answer.json() == {"accepted": 1_199, "refused": [refused]}
    events = {str(e.notification): e for e in _queued(public)}
    assert events.keys() == set(ids) - {ids[7]}
    assert events[ids[8]].at.year == 2026
    assert events[ids[9]].at.year < 2999


def test_a_receipt_that_is_said_thousands_of_times_at_once_is_passed_on_once(
    public: Services, phone: httpx.Client
) -> None:
    mine, other = PUBLIC + _address(public, str(uuid7())), PUBLIC + _address(public, str(uuid7()))
    told = [{"receipt": mine, "kind": "delivered"}] * 4_000 + [{"receipt": mine, "kind": "clicked"}] * 500
    told += [{"receipt": other, "kind": "delivered"}] * 500
    answer = phone.post("/v1/receipts", json={"receipts": told})
    assert answer.json() == {"accepted": 5_000, "refused": []}
    assert sorted(event.kind for event in _queued(public)) == ["clicked", "delivered", "delivered"]


def test_a_receipt_with_a_wrong_field_costs_the_others_nothing_unless_the_batch_is_strict(
    public: Services, phone: httpx.Client
) -> None:
    good, bad = str(uuid7()), str(uuid7())
    told: list[Any] = [
        {"receipt": PUBLIC + _address(public, good), "kind": "clicked"},
        {"receipt": PUBLIC + _address(public, bad), "kind": "clicked", "at": "2026-01-01T00:00:00"},
        {"receipt": PUBLIC + _address(public, bad), "kind": "opened"},
        7,
    ]
    strict = phone.post("/v1/receipts", json={"receipts": told, "strict": True})
    assert strict.status_code == 422
    fields = ["receipts[1].at", "receipts[2].kind", "receipts[3]"]
    assert [error["field"] for error in strict.json()["errors"]] == fields
    assert _queued(public) == []
    answer = phone.post("/v1/receipts", json={"receipts": told})
    assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
    assert [(one["index"], one["field"]) for one in answer.json()["refused"]] == list(
        zip((1, 2, 3), fields, strict=True)
    )
    assert [str(event.notification) for event in _queued(public)] == [good]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "receipts"),
        ({"receipts": []}, "receipts"),
        ({"receipts": [{}] * 5_001}, "receipts"),
        ({"receipts": [1]}, "receipts[0]"),
        ({"receipts": [{"receipt": 1, "kind": "clicked"}]}, "receipts[0].receipt"),
        ({"receipts": [{"receipt": "x", "kind": "cancelled"}]}, "receipts[0].kind"),
        ({"receipts": [{"receipt": "x", "kind": ["clicked"]}]}, "receipts[0].kind"),
        ({"receipts": [{"receipt": "x", "kind": "clicked", "at": "noon"}]}, "receipts[0].at"),
        ({"receipts": [{"receipt": "x", "kind": "clicked", "user": "ada"}]}, "receipts[0].user"),
        ({"receipts": [], "more": 1}, "more"),
    ],
)
def test_a_wrong_batch_is_told_its_field(phone: httpx.Client, body: object, field: str) -> None:
    answer = phone.post("/v1/receipts", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def _call_back(
    phone: httpx.Client, url: str, form: dict[str, str], *, token: str = TOKEN, signed: dict[str, str] | None = None
) -> httpx.Response:
    """Post as Twilio does: signed for the public address, by its own library, sent to where the proxy sends it."""
    validator: Any = RequestValidator(token)
    signature = validator.compute_signature(url, form if signed is None else signed)
    return phone.post(
        url.removeprefix(PUBLIC),
        content=urlencode(form),
        headers={
            "X-Twilio-Signature": signature,
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "Host": "internal:8080",
            "X-Forwarded-Proto": "gopher",
        },
    )


def _status_url(public: Services, intent: str) -> str:
    """The callback address that Twilio is given with an SMS."""
    body = public.channels.usual("sms").request(StepMessage(intent=intent, to=NUMBER, text="t")).body.decode()
    from urllib.parse import parse_qs

    return parse_qs(body)["StatusCallback"][0]


def _status(sid: str = SID, status: str = "delivered") -> dict[str, str]:
    return {"MessageSid": sid, "MessageStatus": status, "To": NUMBER, "AccountSid": "AC" + "0" * 32, "Empty": ""}


def _rows(here: Services, query: str) -> list[tuple[Any, ...]]:
    with here.engine.connect() as conn:
        return [tuple(row) for row in conn.execute(sa.text(query))]


def test_a_status_callback_is_written_before_twilio_is_told_so(public: Services, phone: httpx.Client) -> None:
    id_ = str(uuid7())
    assert _call_back(phone, _status_url(public, f"{id_}.1"), _status()).status_code == 204
    kept = _rows(public, "SELECT provider_id, status, notification_id, step FROM provider_reports")
    # Its message is not there yet, so the report waits for it.
    assert [(*row[:2], str(row[2]), row[3]) for row in kept] == [(SID, "delivered", id_, 1)]


def test_callbacks_that_twilio_did_not_sign_for_this_address_are_refused(public: Services, phone: httpx.Client) -> None:
    mine, others = (_status_url(public, f"{uuid7()}.1") for _ in range(2))
    form = _status()
    assert _call_back(phone, mine, form, token="another").status_code == 403
    assert _call_back(phone, mine, form, signed=form | {"MessageStatus": "failed"}).status_code == 403
    validator: Any = RequestValidator(TOKEN)
    moved = {"X-Twilio-Signature": validator.compute_signature(mine, form)}
    assert phone.post(others.removeprefix(PUBLIC), data=form, headers=moved).status_code == 403
    assert phone.post(mine.removeprefix(PUBLIC), data=form).status_code == 403
    assert phone.post("/callbacks/twilio/inbound", data={"Body": "STOP"}).status_code == 403
    assert _rows(public, "SELECT * FROM provider_reports") == []


def test_an_address_whose_intent_we_did_not_sign_names_nothing(public: Services, phone: httpx.Client) -> None:
    url = _status_url(public, f"{uuid7()}.1")
    moved = url.replace(url.partition("intent=")[2][:36], str(uuid7()))
    assert _call_back(phone, moved, _status()).status_code == 204
    assert _rows(public, "SELECT notification_id FROM provider_reports") == [(None,)]


def test_a_json_callback_is_verified_by_the_hash_of_its_body(public: Services, phone: httpx.Client) -> None:
    import hashlib

    raw = json.dumps(_status())
    url = f"{PUBLIC}/callbacks/twilio?bodySHA256={hashlib.sha256(raw.encode()).hexdigest()}"
    validator: Any = RequestValidator(TOKEN)
    headers = {"X-Twilio-Signature": validator.compute_signature(url, {}), "Content-Type": "application/json"}
    assert phone.post(url.removeprefix(PUBLIC), content=raw + " ", headers=headers).status_code == 403
    assert phone.post(url.removeprefix(PUBLIC), content=raw, headers=headers).status_code == 204
    assert _rows(public, "SELECT count(*) FROM provider_reports") == [(1,)]


def test_callbacks_that_say_nothing_new_are_answered_and_not_kept(public: Services, phone: httpx.Client) -> None:
    for status in ("queued", "sending", "accepted", "something new"):
        assert _call_back(phone, _status_url(public, f"{uuid7()}.1"), _status(status=status)).status_code == 204
    assert _rows(public, "SELECT * FROM provider_reports") == []


def test_stop_and_start_reach_the_list_and_a_replayed_stop_does_not(public: Services, phone: httpx.Client) -> None:
    def write(sid: str, **form: str) -> list[tuple[Any, ...]]:
        answer = _call_back(
            phone,
            f"{PUBLIC}/callbacks/twilio/inbound",
            {"MessageSid": sid, "From": NUMBER, "SmsStatus": "received"} | form,
        )
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/xml; charset=utf-8")
        return _rows(public, "SELECT number, source FROM opt_outs")

    stop = {"MessageSid": SID, "Body": "Arrêt"}
    assert write(SID, Body="Arrêt") == [(NUMBER, "sms")]
    assert write("SM" + "1" * 32, Body="What time is it?") == [(NUMBER, "sms")]
    assert write("SM" + "2" * 32, Body="hi again", OptOutType="START") == []
    assert write(SID, Body=stop["Body"]) == []
    assert write("SM" + "3" * 32, Body="STOP", From=f"whatsapp:{NUMBER}") == [(NUMBER, "sms")]
    assert write("SM" + "4" * 32, Body="Yes") == []
    # All of them are kept, each once, and "yes" lifts nothing but a STOP.
    assert _rows(public, "SELECT count(*) FROM inbound_texts") == [(5,)]
    with public.engine.begin() as conn:
        opt_outs.add(conn, [NUMBER], "letter of 3 May")
    assert write("SM" + "5" * 32, Body="yes!") == [(NUMBER, "letter of 3 May")]
    assert write("SM" + "6" * 32, Body="Start") == []
    # Turkish, which nobody is expected to write from there.
    assert write("SM" + "7" * 32, Body="Dur") == []


def _write(phone: httpx.Client, sid: str, **form: str) -> int:
    fields = {"MessageSid": sid, "From": NUMBER, "To": "+15005550006", "SmsStatus": "received"} | form
    return _call_back(phone, f"{PUBLIC}/callbacks/twilio/inbound", fields).status_code


def test_a_text_that_answers_a_message_ends_its_plan_before_twilio_is_told_so(
    public: Services, phone: httpx.Client
) -> None:
    asked = Step("sms", When.NOT_ANSWERED, timedelta(hours=1))
    (id_,) = SentMessages(public).handed_over(Step("sms", When.NOT_DELIVERED, timedelta(0)), asked)
    assert _write(phone, SID, Body="Yes, gladly") == 200
    assert _rows(public, "SELECT state, reason FROM notifications") == [("reached", "reached_in_time")]
    assert _rows(public, "SELECT CAST(answers AS text) FROM inbound_texts") == [(id_,)]


def test_what_people_write_is_kept_once_before_twilio_is_told_so(public: Services, phone: httpx.Client) -> None:
    for _ in range(3):
        assert _write(phone, SID, Body="What time is it?") == 200
    assert _write(phone, "SM" + "1" * 32, Body="nul \0", From=f"whatsapp:{NUMBER}") == 200
    assert _write(phone, "SM" + "2" * 32, Body="STOP", From="12345") == 200
    kept = "SELECT number, words, characters, provider, channel, sender, wish FROM inbound_texts ORDER BY id"
    assert _rows(public, kept) == [
        (NUMBER, "What time is it?", 16, "twilio", "sms", "+15005550006", None),
        (NUMBER, "nul \ufffd", 5, "twilio", "whatsapp", "+15005550006", None),
        # A short code is nobody who could be texted.
        ("12345", "STOP", 4, "twilio", "sms", "+15005550006", None),
    ]
    assert _rows(public, "SELECT * FROM opt_outs") == []


def test_words_are_not_kept_where_the_setting_says_so(public: Services) -> None:
    private = Services(public.settings.model_copy(update={"inbound_days": 0}))
    with HttpGateway(private) as running:
        assert _write(running.stranger(), SID, Body="Stop. Thank you") == 200
    private.close()
    assert _rows(public, "SELECT number, words, wish FROM inbound_texts") == [(NUMBER, None, "STOP")]
    assert _rows(public, "SELECT number FROM opt_outs") == [(NUMBER,)]


def test_who_may_read_sees_texts_masked_and_who_may_know_people_in_full(public: Services) -> None:
    with HttpGateway(public) as running:
        phone = running.stranger()
        for n in range(3):
            assert _write(phone, f"SM{n:032}", Body=f"Question {n}") == 200
        assert _write(phone, f"SM{3:032}", Body="stop") == 200
        reader, knower = running.client(Scope.READ), running.client(Scope.READ, Scope.AUDIENCE)
        page = reader.get("/v1/inbound?limit=2").json()
        assert [text["keyword"] for text in page["texts"]] == ["STOP", None]
        assert {text["number"] for text in page["texts"]} == {"+1650\u2022\u2022\u202200"}
        assert {text["text"] for text in page["texts"]} == {None}
        rest = reader.get("/v1/inbound", params={"before": page["next"]}).json()
        assert (len(rest["texts"]), rest["next"]) == (2, None)
        assert reader.get("/v1/inbound?reveal=true").status_code == 403
        whole = knower.get("/v1/inbound", params={"reveal": True, "keyword": "none", "number": NUMBER}).json()
        assert [(text["number"], text["text"]) for text in whole["texts"]] == [
            (NUMBER, f"Question {n}") for n in (2, 1, 0)
        ]
        for since in ("2480-02-18T06:53:04-20:52", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"):
            assert reader.get(f"/v1/inbound?since={since}").status_code == 200
        for wrong in ("keyword=MAYBE", "number=x", "limit=0", "since=noon", "before=x", "reveal=perhaps", "user=%00"):
            assert reader.get(f"/v1/inbound?{wrong}").status_code == 422


def test_a_project_sees_what_people_write_to_its_own_senders(public: Services, tmp_path: Path) -> None:
    path = tmp_path / "projects.yaml"
    path.write_text(
        'projects:\n  amber: {senders: ["+15005550016", "+15005550006"]}\n  blue: {senders: "+15005550017"}\n'
    )
    own = Services(public.settings.model_copy(update={"projects_file": path}))
    with HttpGateway(own) as running:
        phone = running.stranger()
        for n, sender in enumerate(("+15005550016", "+15005550017", "+15005550006", "15005550016")):
            assert _write(phone, f"SM{n:032}", Body=f"Question {n}", To=sender) == 200
        amber, blue = (running.client(Scope.READ, Scope.AUDIENCE, project=name) for name in ("amber", "blue"))
        operator = running.client(Scope.READ)
        seen = [client.get("/v1/inbound?reveal=true").json()["texts"] for client in (amber, blue)]
        # The third was written to the installation's own sender, which both have.
        assert [[text["text"] for text in own] for own in seen] == [["Question 3", "Question 0"], ["Question 1"]]
        told = operator.get("/v1/inbound").json()["texts"]
        assert [text["project"] for text in told] == ["amber", None, "blue", "amber"]
        assert len(operator.get("/v1/inbound?project=amber").json()["texts"]) == 2
        assert amber.get("/v1/inbound?project=blue").status_code == 422
    own.close()


def test_without_an_auth_token_nothing_is_believed(here: Services) -> None:
    with HttpGateway(here) as running:
        answer = running.stranger().post("/callbacks/twilio", data=_status(), headers={"X-Twilio-Signature": "x"})
    assert answer.status_code == 403
