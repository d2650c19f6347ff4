"""The file of SMS providers: what is wrong in it is named, with the fix, and no secret is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from knocktwice_worker.channels.http_sms.file import ProviderFileError, ProviderSpec, read
from knocktwice_worker.config import Settings

GOOD: dict[str, Any] = {
    "name": "acme",
    "weight": 30,
    "url": "https://sms.acme.example/v1/messages",
    "headers": {"Authorization": "Bearer ${ACME_TOKEN}"},
    "json": {"to": "{to}", "text": "{text}"},
    "id": "message.id",
}
HMAC = {"hmac": {"header": "X-Signature", "secret": "${ACME_KEY}"}}
CALLBACKS: dict[str, Any] = {"verify": HMAC, "id": "id", "status": "status", "statuses": {"ok": "delivered"}}


def _refusal(folder: Path, document: object) -> str:
    path = folder / "providers.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ProviderFileError) as refused:
        read(str(path), built_in="twilio")
    return str(refused.value)


def test_a_short_description_is_enough(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "providers:\n- name: acme\n  weight: 30\n  url: https://sms.acme.example/send\n"
        "  form: {To: '{to}', Body: '{text}', key: '${ACME_KEY}'}\n  id: id\n"
    )
    file = read(str(tmp_path / "p.yaml"), built_in="twilio")
    assert [p.name for p in file.providers] == ["acme"]
    assert file.built_in_weight == 100


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"url": "sms.acme.example"}, "url must be an address such as https://"),
        ({"url": "http://sms.acme.example/v1"}, "allow_http: true"),
        ({"method": "GET"}, "providers[0].method: Input should be 'POST'"),
        ({"name": "twilio"}, "is the built-in provider"),
        ({"name": "A C"}, "providers[0].name"),
        ({"weight": -1}, "providers[0].weight"),
        ({"json": None}, "either as json or as form"),
        ({"form": {"to": "{to}", "text": "{text}"}}, "either as json or as form"),
        ({"json": {"to": "{to}"}}, "{text}"),
        ({"json": {"to": "{to}", "text": "{body}"}}, "{body} is no slot here; there are {to}, {to_digits}, {text}"),
        ({"json": {"to": "{to}", "text": "{text}", "from": "{sender}"}}, "say who sends with 'sender'"),
        (
            {"idempotency": {}, "json": {"to": "{to}", "text": "{text}"}},
            "idempotency needs a header, or {id} in the body",
        ),
        ({"headers": {"X-Api-Key": "sk-123456"}}, "X-Api-Key holds a secret: write ${VARIABLE}"),
        ({"basic_auth": {"user": "u", "password": "hunter2"}}, "providers[0].basic_auth.password"),
        ({"headers": {"Authorization": "Bearer ${NOT A NAME}"}}, "is neither ${VARIABLE} nor ${file:/path}"),
        ({"answers": [{"means": "sent"}]}, "providers[0].answers[0]: fits every answer"),
        ({"answers": [{"status": 400, "means": "rejected"}]}, "a reason, such as invalid_number"),
        ({"answers": [{"status": "9xx", "means": "retry"}]}, "write 429, 5xx"),
        ({"answers": [{"status": 400, "means": "lost"}]}, "providers[0].answers[0].means"),
        ({"answers": [{"status": 400, "means": "sent", "after_s": 3}]}, "after_s belongs to"),
        ({"idempotency": {"header": "a b"}}, "providers[0].idempotency.header"),
        ({"list": {"url": "https://a.example/?to={to}", "id": "id", "to": "to", "created": "at"}}, "text or reference"),
        ({"list": {"url": "https://a.example/", "id": "i", "to": "t", "created": "a", "text": "b"}}, "{to_digits}"),
        ({"weight": True}, "providers[0].weight: must be a number"),
        ({"weight": "a lot"}, "providers[0].weight: must be a number, without quotes"),
        ({"url": "https://sms.acme.example:0/"}, "url must be an address"),
        ({"url": "https://sms.acme.example:99999/"}, "url must be an address"),
        ({"url": "https://[::1"}, "url must be an address"),
        ({"url": "https://sms.acme.example/é"}, "url must be an address"),
        ({"url": "https://sms.acme.example/{to}"}, "{to} is no slot here; there is none"),
        ({"headers": {"X-Client": "ключ"}}, "'X-Client' is not a header of one line in ASCII"),
        ({"headers": {"X-Client": "a\r\nb: c"}}, "'X-Client' is not a header of one line in ASCII"),
        ({"headers": {"X-Client": "a", "x-client": "b"}}, "one header is there twice"),
        ({"headers": ["X-Client"]}, "providers[0].headers"),
        ({"basic_auth": {"user": "u", "password": "${P}"}}, "leave one of them out"),
        ({"json": ["{to}", "{text}"]}, "providers[0].json"),
        ({"json": {"to": "{to}", "text": "{text}", "half": "\ud800"}}, "holds a character that cannot be stored"),
        ({"json": {"to": "{to}", "text": "{text}", "at": "{callback_url}"}}, "say with 'callbacks' what comes there"),
        ({"answers": {"status": 400}}, "providers[0].answers"),
        ({"callbacks": {**CALLBACKS, "verify": {}}}, "say by what a callback is believed: hmac, token or basic_auth"),
        ({"callbacks": {**CALLBACKS, "verify": None}}, "providers[0].callbacks.verify"),
        ({"callbacks": {**CALLBACKS, "verify": {"token": "hunter2"}}}, "providers[0].callbacks.verify.token"),
        ({"callbacks": {**CALLBACKS, "verify": {"token": "${NO NAME}"}}}, "is neither ${VARIABLE} nor ${file:/path}"),
        ({"callbacks": {**CALLBACKS, "statuses": {}}}, "providers[0].callbacks.statuses"),
        ({"callbacks": {**CALLBACKS, "statuses": {"a": "arrived"}}}, "providers[0].callbacks.statuses.a"),
        ({"callbacks": {**CALLBACKS, "from": "xml"}}, "providers[0].callbacks.from"),
        ({"callbacks": {**CALLBACKS, "from": "form", "items": "a"}}, "items is a list in a JSON body"),
        ({"callbacks": {**CALLBACKS, "from": "query", "verify": HMAC}}, "an hmac is of a body"),
        ({"callbacks": {**CALLBACKS, "price_unit": "unit"}}, "price_unit belongs to price"),
        ({"callbacks": {**CALLBACKS, "opt_out_errors": ["STOP"]}}, "say with 'error' where a code is"),
        ({"callbacks": {**CALLBACKS, "operator_errors": {"S1": "x"}}}, "say with 'error' where a code is"),
        ({"callbacks": {**CALLBACKS, "error": "code", "operator_errors": {"S1": ""}}}, "callbacks.operator_errors.S1"),
        (
            {"callbacks": {**CALLBACKS, "error": "e", "operator_errors": {"7": "x"}, "number_errors": {7: "landline"}}},
            "the code 7 cannot speak both of you (operator_errors) and of the number",
        ),
        ({"callbacks": {**CALLBACKS, "error": "code", "opt_out_errors": [None]}}, "callbacks.opt_out_errors[0]"),
        ({"callbacks": {**CALLBACKS, "error": "code", "opt_out_errors": [""]}}, "callbacks.opt_out_errors[0]"),
        ({"callbacks": {**CALLBACKS, "error": "code", "opt_out_errors": [True]}}, "callbacks.opt_out_errors[0]"),
        ({"error": "a b"}, "providers[0].error"),
        ({"colour": "red"}, "providers[0].colour: is not a field here"),
        ({"id": None}, "providers[0].id: is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    entry = {name: value for name, value in (GOOD | change).items() if value is not None}
    refusal = _refusal(tmp_path, {"providers": [entry]})
    assert said in refusal
    assert str(tmp_path / "providers.json") in refusal
    assert "sk-123456" not in refusal
    assert "hunter2" not in refusal


def test_names_are_given_once(tmp_path: Path) -> None:
    assert "two providers have one name" in _refusal(tmp_path, {"providers": [GOOD, GOOD]})
    assert "providers" in _refusal(tmp_path, {"providers": []})
    assert "providers: is missing" in _refusal(tmp_path, {})


def test_one_word_for_a_status_is_there_once(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "providers:\n- name: acme\n  weight: 1\n  url: https://sms.acme.example/\n  json: {to: '{to}', text: '{text}'}\n"
        "  id: id\n  callbacks: {verify: {token: '${T}'}, id: id, status: s, statuses: {1: delivered, 1.0: failed, '1': sent}}\n"
    )
    with pytest.raises(ProviderFileError, match="there twice"):
        read(str(tmp_path / "p.yaml"), built_in="twilio")


def test_a_body_that_holds_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "providers:\n- {name: acme, weight: 1, url: 'https://sms.acme.example/', id: id, json: &a {to: '{to}', text: '{text}', a: *a}}\n"
    )
    with pytest.raises(ProviderFileError):
        read(str(tmp_path / "p.yaml"), built_in="twilio")


@pytest.mark.parametrize("document", [None, [], "text", 7, {"providers": {"acme": GOOD}}, {"providers": ["acme"]}])
def test_another_shape_is_refused(tmp_path: Path, document: object) -> None:
    assert str(tmp_path / "providers.json") in _refusal(tmp_path, document)


def test_who_is_told_a_callback_url_needs_a_public_one(tmp_path: Path) -> None:
    body = {"to": "{to}", "text": "{text}", "report": "{callback_url}"}
    (tmp_path / "p.json").write_text(json.dumps({"providers": [GOOD | {"json": body, "callbacks": CALLBACKS}]}))
    with pytest.raises(ValueError, match="KNOCKTWICE_PUBLIC_URL must be set: the SMS provider acme"):
        Settings(sms_providers_file=tmp_path / "p.json")
    Settings(sms_providers_file=tmp_path / "p.json", public_url="https://push.example.com")


def test_a_bad_file_stops_the_start_and_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"KNOCKTWICE_SMS_PROVIDERS_FILE: .*missing\.yaml: No such file"):
        Settings(sms_providers_file=tmp_path / "missing.yaml")


def test_the_document_shows_a_file_that_holds(tmp_path: Path) -> None:
    document = (Path(__file__).parents[4] / "docs" / "providers.md").read_text()
    (tmp_path / "p.yaml").write_text(document.partition("```yaml\n")[2].partition("```")[0])
    (acme,) = read(str(tmp_path / "p.yaml"), built_in="twilio").providers
    assert (acme.name, len(acme.answers)) == ("acme", 3)
    missing = [
        name for name in ProviderSpec.model_fields if f"`{name}`" not in document and name not in ("name", "body")
    ]
    assert missing == ["method", "allow_http"]


def test_a_mistake_is_told_with_its_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "providers.yaml"
    path.write_text("providers:\n- name: acme\n  url: {{ url }}\n")
    with pytest.raises(ProviderFileError, match=r"providers\.yaml:3:9: a text with \{\{ or \{% is not in quotes"):
        read(str(path), built_in="twilio")
    path.write_text("providers:\n- name: acme\n  weight: 1\n  url: nowhere\n  id: id\n  json: {a: '{to} {text}'}\n")
    with pytest.raises(ProviderFileError, match=r"providers\.yaml:2:3: providers\[0\]: url must be an address"):
        read(str(path), built_in="twilio")
    path.write_text("providers:\n- name: acme\n  weight: -1\n")
    with pytest.raises(ProviderFileError, match=r"providers\.yaml:3:3: providers\[0\]\.weight"):
        read(str(path), built_in="twilio")


@pytest.mark.parametrize("held", ["", "null", "- acme", "acme"])
def test_a_file_that_is_none_says_how_one_begins(tmp_path: Path, held: str) -> None:
    (tmp_path / "p.yaml").write_text(held)
    with pytest.raises(ProviderFileError, match=r"p\.yaml:1:1: must have 'providers:', and below it a list of them"):
        read(str(tmp_path / "p.yaml"), built_in="twilio")


def test_all_mistakes_are_named_each_at_its_place(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("providers:\n- name: 5\n  weight: many\n  frm: x\nproviderz: []\n")
    with pytest.raises(ProviderFileError) as refused:
        read(str(tmp_path / "p.yaml"), built_in="twilio")
    told = [line.rpartition("p.yaml:")[2] for line in str(refused.value).splitlines()]
    assert "2:3: providers[0].name: must be text; put it in quotes" in told
    assert "3:3: providers[0].weight: must be a number, without quotes" in told
    assert "4:3: providers[0].frm: is not a field here; docs/providers.md lists them" in told
    assert "5:1: providerz: is not a field here; docs/providers.md lists them" in told
    assert not [line for line in told if "at least 1 item" in line]
