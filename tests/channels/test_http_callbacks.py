"""What an SMS provider of the file calls back: what is believed, and what its words mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from knocktwice_shared.ids import uuid7
from knocktwice_worker.channels.http_sms.callback_rules import CallbackRules
from knocktwice_worker.channels.http_sms.callbacks import HttpCallbacks
from knocktwice_worker.channels.http_sms.file import ProviderSpec, read
from knocktwice_worker.channels.http_sms.proofs import MOST_ITEMS
from knocktwice_worker.channels.http_sms.provider import HttpSmsChannel
from knocktwice_worker.channels.messages import StepMessage
from knocktwice_worker.channels.outcomes import CredentialsUnavailable
from knocktwice_worker.channels.reports import StatusReport, Unreadable
from knocktwice_worker.lifecycle import ProviderState

KEY = "signing-key"
TOKEN = "a-token-that-nobody-guesses"
ENVIRONMENT = {"ACME_KEY": KEY, "ACME_TOKEN": TOKEN, "ACME_PASSWORD": "pass:word"}
HMAC = {"hmac": {"header": "X-Acme-Signature", "secret": "${ACME_KEY}"}}
WORDS = {"DELIVRD": "delivered", "EXPIRED": "undelivered", 2: "failed", "BLACKLISTED": "opted_out", True: "sent"}
ID = str(uuid7())
AT = datetime(2026, 11, 21, tzinfo=UTC)
BODY = b'{"id": "7", "status": "DELIVRD"}'


def _callbacks(
    verify: dict[str, Any] = HMAC, environment: dict[str, str] = ENVIRONMENT, **changes: Any
) -> HttpCallbacks:
    rules = {"verify": verify, "id": "id", "status": "status", "statuses": WORDS} | changes
    return HttpCallbacks(
        "acme",
        CallbackRules.model_validate(rules),
        public_url="https://push.example.com/base/",
        secret="test",
        environment=environment,
    )


def _says(callbacks: HttpCallbacks, said: object) -> list[StatusReport]:
    return callbacks.read({}, json.dumps(said).encode(), AT)


def _signed(body: bytes = BODY, key: str = KEY, algorithm: str = "sha256") -> hmac.HMAC:
    return hmac.new(key.encode(), body, algorithm)


@pytest.mark.parametrize(
    ("rule", "header"),
    [
        ({}, _signed().hexdigest()),
        ({}, _signed().hexdigest().upper()),
        ({"prefix": "sha256="}, "sha256=" + _signed().hexdigest()),
        ({"algorithm": "sha512"}, _signed(algorithm="sha512").hexdigest()),
        ({"encoding": "base64", "prefix": "v1,"}, "v1," + base64.b64encode(_signed().digest()).decode()),
    ],
)
def test_a_signature_over_the_body_is_believed_and_no_other(rule: dict[str, str], header: str) -> None:
    callbacks = _callbacks({"hmac": HMAC["hmac"] | rule})
    assert callbacks.is_genuine({"x-acme-signature": header}, {}, BODY)
    assert not callbacks.is_genuine({"x-acme-signature": header}, {}, BODY + b" ")
    assert not callbacks.is_genuine({"x-acme-signature": header[:-3] + "é"}, {}, BODY)
    assert not callbacks.is_genuine({}, {}, BODY)
    assert not callbacks.is_genuine({"x-acme-signature": rule.get("prefix", "")}, {}, BODY)


def test_a_signature_with_another_key_is_refused() -> None:
    forged = {"x-acme-signature": _signed(key="another").hexdigest()}
    assert not _callbacks().is_genuine(forged, {}, BODY)


def test_a_token_in_the_address_is_believed_and_no_other() -> None:
    callbacks = _callbacks({"token": "${ACME_TOKEN}"})
    assert callbacks.is_genuine({}, {"token": TOKEN}, BODY)
    for query in ({}, {"token": ""}, {"token": TOKEN[:-1]}, {"token": TOKEN + "x"}, {"token": "é"}):
        assert not callbacks.is_genuine({}, query, BODY)


def test_basic_authentication_is_believed_and_no_other() -> None:
    callbacks = _callbacks({"basic_auth": {"user": "acme", "password": "${ACME_PASSWORD}"}})

    def header(pair: str) -> dict[str, str]:
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    assert callbacks.is_genuine(header("acme:pass:word"), {}, BODY)
    for wrong in (header("acme:pass"), header(":"), {"authorization": "Basic ~"}, {"authorization": "Bearer x"}, {}):
        assert not callbacks.is_genuine(wrong, {}, BODY)


def test_of_several_all_must_hold() -> None:
    callbacks = _callbacks(HMAC | {"token": "${ACME_TOKEN}"})
    right = {"x-acme-signature": _signed().hexdigest()}
    assert callbacks.is_genuine(right, {"token": TOKEN}, BODY)
    assert not callbacks.is_genuine(right, {}, BODY)
    assert not callbacks.is_genuine({}, {"token": TOKEN}, BODY)


@pytest.mark.parametrize(
    ("verify", "environment", "said"),
    [
        (HMAC, {}, "ACME_KEY not set"),
        ({"token": "${ACME_TOKEN}"}, {}, "ACME_TOKEN not set"),
        ({"token": "${ACME_TOKEN}"}, {"ACME_TOKEN": "short"}, "under 20 characters"),
        ({"basic_auth": {"user": "", "password": "${ACME_PASSWORD}"}}, {}, "ACME_PASSWORD not set"),
    ],
)
def test_without_its_secret_nothing_is_believed(verify: dict[str, Any], environment: dict[str, str], said: str) -> None:
    callbacks = _callbacks(verify, environment)
    with pytest.raises(CredentialsUnavailable, match=said):
        callbacks.authorize()
    nothing = {"x-acme-signature": _signed(key="").hexdigest(), "authorization": "Basic Og=="}
    assert not callbacks.is_genuine(nothing, {"token": environment.get("ACME_TOKEN", "")}, BODY)


@pytest.mark.parametrize(
    ("status", "state", "error", "error_text"),
    [
        ("DELIVRD", ProviderState.DELIVERED, None, None),
        ("EXPIRED", ProviderState.UNDELIVERED, None, None),
        (2, ProviderState.FAILED, None, None),
        ("2", ProviderState.FAILED, None, None),
        (True, ProviderState.SENT, None, None),
        ("BLACKLISTED", ProviderState.FAILED, 21610, "opted_out"),
    ],
)
def test_its_words_become_ours(status: object, state: ProviderState, error: int | None, error_text: str | None) -> None:
    expected = StatusReport("acme", "acme:7", state, AT, error, error_text=error_text)
    assert _says(_callbacks(), {"id": 7, "status": status}) == [expected]


@pytest.mark.parametrize(
    "said",
    [
        {"id": "7", "status": "QUEUED"},
        {"id": "7", "status": ["DELIVRD"]},
        {"id": "7", "status": None},
        {"id": "7"},
        {"status": "DELIVRD"},
        {"id": "", "status": "DELIVRD"},
        {"id": "x" * 300, "status": "DELIVRD"},
        # Neither can be written to PostgreSQL.
        {"id": "7\0", "status": "DELIVRD"},
        {"id": "\ud800", "status": "DELIVRD"},
        [7, None, "DELIVRD", [], {}],
    ],
)
def test_what_says_nothing_of_a_message_is_passed_over(said: object) -> None:
    assert _says(_callbacks(), said) == []


@pytest.mark.parametrize(
    ("said", "items"), [("text", None), (7, None), ({"id": "7"}, "results"), ({"results": {}}, "results")]
)
def test_a_body_that_is_not_what_the_file_says_is_told_so(said: object, items: str | None) -> None:
    with pytest.raises(Unreadable, match="must be JSON"):
        _says(_callbacks(items=items), said)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000, b"1" * 5_000])
def test_a_body_that_is_no_json_is_told_so(body: bytes) -> None:
    with pytest.raises(Unreadable):
        _callbacks().read({}, body, AT)


def test_a_callback_may_be_about_many_messages() -> None:
    several = [{"id": str(n), "status": "DELIVRD"} for n in range(3)]
    ids = ["acme:0", "acme:1", "acme:2"]
    assert [r.provider_id for r in _says(_callbacks(), several)] == ids
    assert [r.provider_id for r in _says(_callbacks(items="data.results"), {"data": {"results": several}})] == ids
    with pytest.raises(Unreadable, match=f"at most {MOST_ITEMS}"):
        _says(_callbacks(), [{}] * (MOST_ITEMS + 1))


def test_a_form_and_a_query_are_read_by_the_names_of_their_fields() -> None:
    form = _callbacks(HMAC, ENVIRONMENT, **{"from": "form", "id": "msg.id"})
    assert form.read({}, b"msg.id=7&status=EXPIRED", AT) == [
        StatusReport("acme", "acme:7", ProviderState.UNDELIVERED, AT)
    ]
    with pytest.raises(Unreadable):
        form.read({}, b"\xff=1", AT)
    query = _callbacks({"token": "${ACME_TOKEN}"}, ENVIRONMENT, **{"from": "query"})
    assert query.read({"id": "7", "status": "2"}, b"", AT) == [StatusReport("acme", "acme:7", ProviderState.FAILED, AT)]


@pytest.mark.parametrize(
    ("cost", "price", "unit"),
    [
        ({"amount": "0.0075", "unit": "eur"}, "0.0075", "EUR"),
        ({"amount": -0.00001}, "0.00001000", None),
        ({"amount": "free", "unit": "EUR"}, None, None),
        ({"amount": 1e300, "unit": "EUR"}, None, None),
        ({"amount": 2, "unit": "€"}, "2", None),
        ({"amount": True}, None, None),
    ],
)
def test_a_price_is_taken_if_it_is_one(cost: dict[str, Any], price: str | None, unit: str | None) -> None:
    callbacks = _callbacks(price="cost.amount", price_unit="cost.unit")
    (report,) = _says(callbacks, {"id": "7", "status": "EXPIRED", "cost": cost})
    assert (report.price, report.price_unit) == (price, unit)


@pytest.mark.parametrize(
    ("code", "error", "error_text"),
    [
        (42, 42, None),
        ("-42", -42, None),
        ("INVALID_NUMBER", None, "INVALID_NUMBER"),
        (" EC_12 ", None, "EC_12"),
        ("4.4.1", None, "4.4.1"),
        # A number would lose its zeros.
        ("0041", None, "0041"),
        # What Twilio means by it nobody else does.
        (21610, None, "21610"),
        # May be a number to call, a text or an address.
        (10**12, None, None),
        ("+16505550100", None, None),
        ("NO-650-555-0100", None, None),
        ("The number 7 is wrong", None, None),
        ("ada@shop.example", None, None),
        ("x" * 65, None, None),
        ("EC_1\0", None, None),
        ("\ud800", None, None),
        ("", None, None),
        (True, None, None),
        ({"code": 7}, None, None),
    ],
)
def test_a_code_is_a_number_or_a_word_and_nothing_that_may_be_personal(
    code: object, error: int | None, error_text: str | None
) -> None:
    (report,) = _says(_callbacks(error="code"), {"id": "7", "status": "EXPIRED", "code": code})
    assert (report.error, report.error_text) == (error, error_text)


def test_a_message_that_arrives_has_no_error_whatever_the_provider_calls_none() -> None:
    callbacks = _callbacks(error="code", opt_out_errors=["NO_ERROR"])
    (report,) = _says(callbacks, {"id": "7", "status": "DELIVRD", "code": "NO_ERROR"})
    assert report == StatusReport("acme", "acme:7", ProviderState.DELIVERED, AT)


@pytest.mark.parametrize(
    ("status", "code", "error_text"),
    [
        ("EXPIRED", "STOP", "STOP"),
        ("EXPIRED", 40300, "40300"),
        ("EXPIRED", "40300", "40300"),
        ("EXPIRED", "the recipient said no", "opted_out"),
        ("BLACKLISTED", "EC_7", "EC_7"),
    ],
)
def test_a_code_may_say_that_the_recipient_has_opted_out(status: str, code: object, error_text: str) -> None:
    callbacks = _callbacks(error="code", opt_out_errors=["STOP", 40300, "the recipient said no"])
    (report,) = _says(callbacks, {"id": "7", "status": status, "code": code})
    assert (report.error, report.error_text) == (21610, error_text)
    for other in ("stop", 4030, None):
        (report,) = _says(callbacks, {"id": "7", "status": "EXPIRED", "code": other})
        assert report.error != 21610


@pytest.mark.parametrize("code", ["S1", 77, "77"])
def test_a_code_may_say_what_the_operator_must_mend(code: object) -> None:
    errors = {"S1": "the sender is not registered", 77: "the account has no money left"}
    callbacks = _callbacks(error="code", operator_errors=errors)
    (report,) = _says(callbacks, {"id": "7", "status": "EXPIRED", "code": code})
    assert report.operators == f"acme {code}: {errors['S1' if code == 'S1' else 77]}"
    # It arrived, or its recipient wants no more: then it is not sent again.
    for status in ("DELIVRD", "BLACKLISTED"):
        (report,) = _says(callbacks, {"id": "7", "status": status, "code": code})
        assert report.operators is None


def test_a_code_that_cannot_be_kept_is_told_once_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    callbacks = _callbacks(error="code")
    _says(callbacks, [{"id": "1", "status": "EXPIRED", "code": f"no {n} 5550100"} for n in range(3)])
    said = capsys.readouterr().out
    assert said.count("a code that can be kept") == 1
    assert "5550100" not in said


def test_our_own_name_of_a_message_finds_it() -> None:
    callbacks = _callbacks(reference="ref")
    (report,) = _says(callbacks, {"id": "7", "status": "DELIVRD", "ref": f"{ID}.1"})
    assert report.intent == (ID, 1)
    (report,) = _says(callbacks, {"id": "7", "status": "DELIVRD", "ref": "their own"})
    assert report.intent is None


def _query(callbacks: HttpCallbacks, intent: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(callbacks.url(intent)).query).items()}


def test_an_address_names_its_message_and_only_that_one() -> None:
    callbacks = _callbacks({"token": "${ACME_TOKEN}"})
    assert callbacks.url(f"{ID}.1").startswith("https://push.example.com/base/callbacks/sms/acme?intent=")
    query = _query(callbacks, f"{ID}.1")
    assert callbacks.is_genuine({}, query, BODY)
    (report,) = callbacks.read(query, BODY, AT)
    assert report.intent == (ID, 1)
    (report,) = callbacks.read(query | {"intent": f"{uuid7()}.1"}, BODY, AT)
    assert report.intent is None
    # One address is about one message, not about all in a batch.
    assert [r.intent for r in callbacks.read(query, b"[%s, %s]" % (BODY, BODY), AT)] == [None, None]
    other = HttpCallbacks(
        "other", callbacks._rules, public_url="https://push.example.com", secret="test", environment={}
    )
    assert _query(other, f"{ID}.1")["sig"] != query["sig"]


def test_a_request_tells_the_provider_where_to_report() -> None:
    spec: dict[str, Any] = {
        "name": "acme",
        "weight": 1,
        "url": "https://sms.acme.example",
        "json": {"to": "{to}", "text": "{text}", "dlr": "{callback_url}"},
        "id": "id",
        "callbacks": {"verify": HMAC, "id": "id", "status": "status", "statuses": WORDS},
    }
    callbacks = _callbacks()
    channel = HttpSmsChannel(ProviderSpec.model_validate(spec), callbacks=callbacks, environment={})
    request = channel.request(StepMessage(f"{ID}.1", "+16505550100", "{callback_url}"))
    assert json.loads(request.body) == {"to": "+16505550100", "text": "{callback_url}", "dlr": callbacks.url(f"{ID}.1")}


def test_a_status_that_may_be_a_number_to_call_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    callbacks = _callbacks()
    _says(callbacks, [{"id": "1", "status": word} for word in ("+16505550100", "QUEUED", "QUEUED", "16505550100")])
    said = capsys.readouterr().out
    assert said.count("QUEUED") == 1
    assert "5550100" not in said


def test_the_document_shows_callbacks_that_hold(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
    (tmp_path / "p.yaml").write_text(document.partition("```yaml\n")[2].partition("```")[0])
    (acme,) = read(str(tmp_path / "p.yaml"), built_in="twilio").providers
    assert acme.names_callback
    assert acme.callbacks
    missing = [
        field.alias or name
        for name, field in CallbackRules.model_fields.items()
        if f"`{field.alias or name}`" not in document
    ]
    assert missing == []
    digest = hashlib.sha256
    body = b'{"messages": [{"id": "7", "state": "REJECTD", "error": {"code": "EC_3"}}]}'
    callbacks = HttpCallbacks(
        "acme", acme.callbacks, public_url=None, secret="s", environment={"ACME_SIGNING_KEY": KEY}
    )
    signature = hmac.new(KEY.encode(), body, digest).hexdigest()
    assert callbacks.is_genuine({"x-acme-signature": f"sha256={signature}"}, {}, body)
    assert callbacks.read({}, body, AT) == [StatusReport("acme", "acme:7", ProviderState.FAILED, AT, error_text="EC_3")]
