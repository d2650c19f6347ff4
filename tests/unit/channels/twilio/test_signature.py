"""Which requests are Twilio's: as its own library judges, and where that library knows too little,
as Twilio documents it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from knocktwice_worker.channels.twilio.signature import is_genuine

TOKEN = "12345"
URL = "https://example.com/base/callbacks/twilio?intent=a.1&sig=x%2Fy"
URLS = st.sampled_from(
    [
        URL,
        "https://example.com:443/callbacks/twilio",
        "https://example.com:8443/callbacks/twilio",
        "http://example.com:80/callbacks/twilio?x=1",
        "http://127.0.0.1:8080/callbacks/twilio",
    ]
)
FORMS = st.dictionaries(st.text(min_size=1, max_size=12), st.text(max_size=20), max_size=6)

validator: Any = RequestValidator(TOKEN)


@given(url=URLS, form=FORMS, signed_url=URLS, other=st.none() | FORMS)
def test_form_requests_are_judged_as_by_twilios_library(
    url: str, form: dict[str, str], signed_url: str, other: dict[str, str] | None
) -> None:
    signature = validator.compute_signature(signed_url, form if other is None else other)
    expected = validator.validate(url, form, signature)
    assert is_genuine(token=TOKEN, url=url, signature=signature, form=form.items()) is expected
    if other is None and url == signed_url:
        assert expected


@given(body=st.dictionaries(st.text(), st.text()).map(json.dumps), changed=st.booleans())
def test_json_requests_are_judged_as_by_twilios_library(body: str, changed: bool) -> None:
    url = f"https://example.com/callbacks/twilio?bodySHA256={hashlib.sha256(body.encode()).hexdigest()}"
    signature = validator.compute_signature(url, {})
    sent = body + " " if changed else body
    assert validator.validate(url, sent, signature) is not changed
    assert is_genuine(token=TOKEN, url=url, signature=signature, body=sent.encode()) is not changed


def test_a_json_body_without_a_signed_hash_is_refused() -> None:
    url = "https://example.com/callbacks/twilio"
    assert not is_genuine(token=TOKEN, url=url, signature=validator.compute_signature(url, {}), body=b"{}")


def test_a_field_that_comes_twice_is_signed_once_per_value() -> None:
    signature = validator.compute_signature(URL, {"A": "1"})
    assert is_genuine(token=TOKEN, url=URL, signature=signature, form=[("A", "1"), ("A", "1")])
    assert not is_genuine(token=TOKEN, url=URL, signature=signature, form=[("A", "1"), ("A", "2")])


def test_another_accounts_signature_and_none_at_all_are_refused() -> None:
    others: Any = RequestValidator("67890")
    for signature in (others.compute_signature(URL, {"A": "1"}), "", "é", "=" * 28):
        assert not is_genuine(token=TOKEN, url=URL, signature=signature, form=[("A", "1")])


@pytest.mark.parametrize(
    "signed", ["https://[2001:db8::7]/callbacks/twilio", "https://[2001:db8::7]:443/callbacks/twilio"]
)
@pytest.mark.parametrize(
    "url", ["https://[2001:db8::7]/callbacks/twilio", "https://[2001:db8::7]:443/callbacks/twilio"]
)
def test_an_address_in_brackets_is_spelt_with_and_without_its_port(url: str, signed: str) -> None:
    assert is_genuine(
        token=TOKEN, url=url, signature=validator.compute_signature(signed, {"A": "1"}), form=[("A", "1")]
    )


def test_a_question_mark_with_nothing_behind_it_is_signed_too() -> None:
    url = "https://example.com/callbacks/twilio?"
    assert is_genuine(token=TOKEN, url=url, signature=validator.compute_signature(url, {"A": "1"}), form=[("A", "1")])


def test_a_body_that_is_no_text_is_judged_by_its_hash() -> None:
    body = b"\xff\xfe{}"
    url = f"https://example.com/callbacks/twilio?bodySHA256={hashlib.sha256(body).hexdigest().upper()}"
    assert is_genuine(token=TOKEN, url=url, signature=validator.compute_signature(url, {}), body=body)
    assert not is_genuine(token=TOKEN, url=url, signature=validator.compute_signature(url, {}), body=body + b" ")


def test_twilios_library_is_loaded_at_the_first_callback() -> None:
    """Loading all of it takes longer than starting a command, and only few processes hear callbacks."""
    program = (
        "import sys, knocktwice_worker.cli.main, knocktwice_worker.services, knocktwice_worker.gateway.server\n"
        "sys.exit('twilio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
