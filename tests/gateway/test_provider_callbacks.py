"""Callbacks of SMS providers that a file describes, over HTTP and down to the rows: in any order, and however often."""

from __future__ import annotations

import base64
import hmac
import json
import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from knocktwice_shared.ids import uuid7
from knocktwice_shared.messages import Step, When, parse_batch
from knocktwice_worker.diagnosis import doctor
from knocktwice_worker.gateway.auth.keys import Scope
from knocktwice_worker.notifications.store import provider_reports
from knocktwice_worker.services import Services
from support.http_gateway import HttpGateway
from support.sent_messages import SentMessages
from support.sms_provider import TOKEN, SmsProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

KEY = "acme-signing-key"
PUBLIC = "https://push.example.com/base"
WORDS = {
    "ENROUTE": "sent",
    "DELIVRD": "delivered",
    "UNDELIV": "undelivered",
    "REJECTD": "failed",
    "STOPPED": "opted_out",
}
CALLBACKS: dict[str, Any] = {
    "verify": {"hmac": {"header": "X-Acme-Signature", "secret": "${ACME_KEY}"}},
    "items": "results",
    "id": "id",
    "reference": "ref",
    "status": "status",
    "statuses": WORDS,
    "error": "code",
}
NUMBER = "+16505550100"


@pytest.fixture
def acme() -> Iterator[SmsProvider]:
    with SmsProvider() as running:
        yield running


@pytest.fixture
def install(
    working: Services, acme: SmsProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Services]]:
    """Builds the services of an installation with that provider alone."""
    for name, value in (("ACME_TOKEN", TOKEN), ("ACME_KEY", KEY), ("ACME_CALLBACK_TOKEN", "t" * 30)):
        monkeypatch.setenv(name, value)
    built: list[Services] = []

    def build(**entry: object) -> Services:
        path = acme.file(tmp_path, twilio=0, **({"callbacks": CALLBACKS} | entry))
        update = {"sms_providers_file": path, "public_url": PUBLIC, "provider_timeout_s": 10.0}
        built.append(Services(working.settings.model_copy(update=update)))
        return built[-1]

    yield build
    for one in built:
        one.close()


def _send(here: Services) -> str:
    id_ = str(uuid7())
    wire: dict[str, Any] = {
        "v": 1, "id": str(uuid7()), "content": {"sms": {"text": "x " + id_}}, "only": "sms",
        "recipients": [{"id": id_, "phone": NUMBER}],
    }  # fmt: skip
    here.pushes.send(parse_batch(wire))
    here.fallback.check([id_])
    here.later_steps.send([id_])
    return id_


def _call_back(phone: httpx.Client, *results: dict[str, Any], key: str = KEY, url: str = "/callbacks/sms/acme") -> int:
    body = json.dumps({"results": results}).encode()
    headers = {"X-Acme-Signature": hmac.digest(key.encode(), body, "sha256").hex()}
    return phone.post(url, content=body, headers=headers).status_code


def _row(here: Services, id_: str) -> tuple[Any, ...]:
    query = sa.text(
        "SELECT state, provider_id, provider_status, provider_error FROM deliveries WHERE notification_id = :id"
    )
    with here.engine.connect() as conn:
        return tuple(conn.execute(query, {"id": id_}).one())


def _count(here: Services, query: str) -> int:
    with here.engine.connect() as conn:
        return int(conn.execute(sa.text(query)).scalar_one())


def test_what_it_reports_reaches_the_message_and_the_last_word_stays(install: Callable[..., Services]) -> None:
    here = install()
    id_ = _send(here)
    with HttpGateway(here) as running:
        phone = running.stranger()
        assert _call_back(phone, {"id": "1", "status": "ENROUTE"}) == 204
        assert _row(here, id_) == ("sent", "acme:1", "sent", None)
        assert _call_back(phone, {"id": 1, "status": "DELIVRD"}) == 204
        for late in ("ENROUTE", "UNDELIV", "DELIVRD", "REJECTD"):
            assert _call_back(phone, {"id": "1", "status": late, "code": 5}) == 204
    assert _row(here, id_)[2:] == ("delivered", None)
    assert _count(here, "SELECT count(*) FROM provider_reports") == 0
    assert _count(here, "SELECT count(*) FROM decisions WHERE verdict = 'delivery_report'") == 1


def test_what_is_not_signed_is_refused_and_nothing_is_kept(install: Callable[..., Services]) -> None:
    here = install()
    with HttpGateway(here) as running:
        phone = running.stranger()
        told = {"id": "1", "status": "DELIVRD"}
        assert _call_back(phone, told, key="another") == 403
        assert _call_back(phone, told, url="/callbacks/sms/nobody") == 403
        assert _call_back(phone, told, url="/callbacks/sms/twilio") == 403
        assert phone.post("/callbacks/sms/acme", json={"results": [told]}).status_code == 403
        assert phone.get("/callbacks/sms/acme?id=1&status=DELIVRD").status_code == 403
        # Signed, and yet no list of results.
        signature = hmac.digest(KEY.encode(), b"{}", "sha256").hex()
        answer = phone.post("/callbacks/sms/acme", content=b"{}", headers={"X-Acme-Signature": signature})
    assert (answer.status_code, answer.json()["detail"]) == (400, "the body must be JSON with a list at results")
    assert _count(here, "SELECT count(*) FROM provider_reports") == 0


def test_without_a_file_of_providers_nothing_is_believed(working: Services) -> None:
    with HttpGateway(working) as running:
        assert _call_back(running.stranger(), {"id": "1", "status": "DELIVRD"}) == 403


def test_a_callback_about_a_lost_answer_settles_it(install: Callable[..., Services], acme: SmsProvider) -> None:
    here = install()
    acme.says = "take and drop"
    id_ = _send(here)
    assert _row(here, id_)[:2] == ("sending", None)
    with HttpGateway(here) as running:
        phone = running.stranger()
        assert _call_back(phone, {"id": "1", "ref": f"{id_}.1", "status": "DELIVRD"}) == 204
    assert _row(here, id_)[:3] == ("sent", "acme:1", "delivered")


def test_a_provider_has_no_say_about_what_another_one_sent(install: Callable[..., Services], acme: SmsProvider) -> None:
    here = install()
    acme.says = "take and drop"
    id_ = _send(here)
    with here.engine.begin() as conn:
        conn.execute(sa.text("UPDATE deliveries SET provider = 'other'"))
    with HttpGateway(here) as running:
        assert _call_back(running.stranger(), {"id": "1", "ref": f"{id_}.1", "status": "DELIVRD"}) == 204
    assert _row(here, id_) == ("sending", None, None, None)


def test_the_address_in_the_request_is_where_it_reports(install: Callable[..., Services], acme: SmsProvider) -> None:
    form = {"verify": {"token": "${ACME_CALLBACK_TOKEN}"}, "from": "query", "reply": "ACK"}
    rules = {name: value for name, value in CALLBACKS.items() if name != "items"} | form
    here = install(callbacks=rules, json={"to": "{to}", "text": "{text}", "dlr": "{callback_url}"})
    acme.says = "take and drop"
    id_ = _send(here)
    (text,) = acme.texts
    assert text["dlr"].startswith(PUBLIC)
    address = urlsplit(text["dlr"].removeprefix(PUBLIC))
    with HttpGateway(here) as running:
        phone = running.stranger()
        answer = phone.get(f"{address.path}?{address.query}&id=99&status=UNDELIV&code=7")
        assert (
            phone.get(f"{address.path}?{address.query.replace('ttt', 'xxx')}&id=99&status=DELIVRD").status_code == 403
        )
    assert (answer.status_code, answer.text) == (200, "ACK")
    assert _row(here, id_) == ("sent", "acme:99", "undelivered", 7)


def test_who_opted_out_with_the_provider_joins_the_opt_outs(install: Callable[..., Services]) -> None:
    here = install(callbacks=CALLBACKS | {"verify": {"basic_auth": {"user": "acme", "password": "${ACME_KEY}"}}})
    id_ = _send(here)
    pair = base64.b64encode(f"acme:{KEY}".encode()).decode()
    told = {"results": [{"id": "1", "status": "STOPPED"}]}
    with HttpGateway(here) as running:
        headers = {"Authorization": f"Basic {pair}"}
        assert running.stranger().post("/callbacks/sms/acme", json=told, headers=headers).status_code == 204
    assert _row(here, id_)[2:] == ("failed", 21610)
    assert _count(here, "SELECT count(*) FROM opt_outs") == 1


def test_its_code_is_shown_as_it_wrote_it(install: Callable[..., Services]) -> None:
    here = install()
    ids = [_send(here) for _ in range(3)]
    with HttpGateway(here) as running:
        for n, code in enumerate(("INVALID_NUMBER", 77, None), 1):
            assert _call_back(running.stranger(), {"id": n, "status": "UNDELIV", "code": code}) == 204
        client = running.client(Scope.READ)
        told = [client.get(f"/v1/notifications/{id_}").json() for id_ in ids]
    assert [one["steps"][-1]["provider_error"] for one in told] == ["INVALID_NUMBER", 77, None]
    said = [moment["sentence"] for one in told for moment in one["moments"] if moment["kind"] == "reported"]
    assert said == [
        "The provider reported the SMS as undelivered (error INVALID_NUMBER).",
        "The provider reported the SMS as undelivered (error 77).",
        "The provider reported the SMS as undelivered.",
    ]
    ledger = (
        "SELECT count(*) FROM decisions WHERE verdict = 'delivery_report' AND inputs ->> 'error' = 'INVALID_NUMBER'"
    )
    assert _count(here, ledger) == 1


def test_a_code_that_says_so_puts_the_number_on_the_opt_out_list_and_stays_its_own(
    install: Callable[..., Services],
) -> None:
    here = install(callbacks=CALLBACKS | {"opt_out_errors": ["BLOCKED"]})
    other, id_ = _send(here), _send(here)
    with HttpGateway(here) as running:
        phone = running.stranger()
        # Twilio's code for an opt-out means something else here.
        assert _call_back(phone, {"id": "1", "status": "REJECTD", "code": 21610}) == 204
        assert _count(here, "SELECT count(*) FROM opt_outs") == 0
        assert _call_back(phone, {"id": "2", "status": "REJECTD", "code": "BLOCKED"}) == 204
        told = [running.client(Scope.READ).get(f"/v1/notifications/{one}").json() for one in (other, id_)]
    assert [one["steps"][-1]["provider_error"] for one in told] == ["21610", "BLOCKED"]
    assert _count(here, "SELECT count(*) FROM opt_outs") == 1


def test_the_doctor_names_a_secret_without_which_no_report_is_believed(
    install: Callable[..., Services], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACME_KEY")
    here = install()
    (check,) = [c for c in doctor.examine(here) if c.name == "sms providers"]
    assert check.level == "warning"
    assert "ACME_KEY not set (callbacks of acme)" in check.finding
    with HttpGateway(here) as running:
        assert _call_back(running.stranger(), {"id": "1", "status": "DELIVRD"}, key="") == 403


def test_a_storm_of_shuffled_and_tripled_callbacks_ends_as_the_ordered_ones_do(
    install: Callable[..., Services],
) -> None:
    here = install()
    people = 500
    SentMessages(here).handed_over(Step("sms", When.NOT_CLICKED, timedelta(hours=1)), people=people)
    with here.engine.begin() as conn:
        rename = "UPDATE deliveries SET provider = 'acme', provider_id = 'acme:' || provider_id WHERE step = 1"
        conn.execute(sa.text(rename))
    journeys = [("ENROUTE", "DELIVRD"), ("ENROUTE", "UNDELIV"), ("REJECTD",), ("ENROUTE",), ("UNDELIV", "DELIVRD")]
    last = ["delivered", "undelivered", "failed", "sent", "delivered"]
    storm = [{"id": f"SM{n}", "status": word} for n in range(people) for word in journeys[n % 5]] * 3
    random.Random(7).shuffle(storm)
    with HttpGateway(here) as running:
        phone = running.stranger()
        for start in range(0, len(storm), 700):
            assert _call_back(phone, *storm[start : start + 700]) == 204
    with here.engine.begin() as conn:
        assert provider_reports.bring(conn) == 0
        rows = conn.execute(sa.text("SELECT provider_id, provider_status FROM deliveries WHERE step = 1")).all()
    assert {row.provider_id: row.provider_status for row in rows} == {f"acme:SM{n}": last[n % 5] for n in range(people)}


INBOUND: dict[str, dict[str, Any]] = {
    "json": {
        "verify": {"hmac": {"header": "X-Acme-Signature", "secret": "${ACME_KEY}"}},
        "items": "messages", "id": "id", "number": "sender.phone", "to": "to", "text": "content.text",
    },
    "form": {
        "verify": {"token": "${ACME_CALLBACK_TOKEN}"},
        "from": "form", "id": "messageId", "number": "msisdn", "to": "to", "text": "text", "reply": "OK",
    },
}  # fmt: skip


def _write_as_json(phone: httpx.Client, id_: str, number: str, words: str, key: str = KEY) -> httpx.Response:
    message = {"id": id_, "sender": {"phone": number}, "to": "Acme", "content": {"text": words}}
    body = json.dumps({"messages": [message]}).encode()
    headers = {"X-Acme-Signature": hmac.digest(key.encode(), body, "sha256").hex()}
    return phone.post("/callbacks/sms/acme/inbound", content=body, headers=headers)


def _write_in_a_form(phone: httpx.Client, id_: str, number: str, words: str, key: str = KEY) -> httpx.Response:
    form = {"messageId": id_, "msisdn": number, "to": "Acme", "text": words}
    token = "t" * 30 if key == KEY else "x" * 30
    return phone.post(f"/callbacks/sms/acme/inbound?token={token}", data=form)


@pytest.mark.parametrize(
    ("kind", "write", "answer"),
    [("json", _write_as_json, (204, "")), ("form", _write_in_a_form, (200, "OK"))],
    ids=["a provider that signs JSON", "a provider that posts forms"],
)
def test_what_people_write_to_another_provider_is_understood_and_kept_as_twilios_is(
    install: Callable[..., Services], kind: str, write: Callable[..., httpx.Response], answer: tuple[int, str]
) -> None:
    here = install(inbound=INBOUND[kind])
    with HttpGateway(here) as running:
        phone = running.stranger()
        assert write(phone, "1", NUMBER, "STOP", "another").status_code == 403
        for _ in range(2):
            told = write(phone, "1", NUMBER.removeprefix("+"), "Stop. Thank you")
            assert (told.status_code, told.text) == answer
        assert _count(here, "SELECT count(*) FROM opt_outs WHERE number = '+16505550100' AND source = 'sms'") == 1
        assert write(phone, "2", NUMBER, "Is it open?").status_code == answer[0]
        assert write(phone, "3", f"00{NUMBER[1:]}", "START").status_code == answer[0]
        assert write(phone, "", NUMBER, "STOP").status_code == answer[0]
        assert write(phone, "4", "AcmeBank", "STOP").status_code == answer[0]
        texts = running.client(Scope.READ, Scope.AUDIENCE).get("/v1/inbound?reveal=true").json()["texts"]
    assert [(t["number"], t["keyword"], t["text"]) for t in reversed(texts)] == [
        (NUMBER, "STOP", "Stop. Thank you"),
        (NUMBER, None, "Is it open?"),
        (NUMBER, "START", "START"),
        ("AcmeBank", None, "STOP"),
    ]
    assert {(t["provider"], t["channel"], t["to"]) for t in texts} == {("acme", "sms", "Acme")}
    assert _count(here, "SELECT count(*) FROM opt_outs") == 0


def test_a_provider_that_passes_no_texts_on_is_not_believed(install: Callable[..., Services]) -> None:
    here = install()
    with HttpGateway(here) as running:
        assert _write_as_json(running.stranger(), "1", NUMBER, "STOP").status_code == 403
        assert running.stranger().get("/callbacks/sms/nobody/inbound").status_code == 403
    assert _count(here, "SELECT count(*) FROM inbound_texts") == 0
