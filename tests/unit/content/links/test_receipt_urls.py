"""What a receipt's address gives the right to, and nothing more."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knocktwice_shared.messages import PUSH_BYTES_LIMIT
from knocktwice_worker.channels.fcm import RECEIPT_FIELD
from knocktwice_worker.content.links.receipt_urls import ReceiptTokens, ReceiptUrls, RefusedToken, device_hash

ID = "01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a11"
OTHER = "01939e2b-6b43-7e5a-9f6e-2c7c0d6f8a12"
DAY = timedelta(days=1)
NOW = 1_800_000_000.0

tokens = ReceiptTokens([b"secret"], DAY)


def test_a_token_names_the_notification_and_the_device_it_was_made_for() -> None:
    read = tokens.read(tokens.sign(ID, "phone-1", now=NOW), now=NOW)
    assert (read.notification, read.device) == (UUID(ID), device_hash("phone-1"))


def test_a_token_ends_some_days_after_its_push_has() -> None:
    token = tokens.sign(ID, "phone-1", now=NOW, ttl_s=60)
    tokens.read(token, now=NOW + 60 + DAY.total_seconds() - 1)
    with pytest.raises(RefusedToken, match="has expired"):
        tokens.read(token, now=NOW + 60 + DAY.total_seconds())


@given(
    place=st.integers(0, 51), letter=st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
)
def test_no_letter_of_a_token_can_be_changed(place: int, letter: str) -> None:
    token = tokens.sign(ID, "phone-1", now=NOW)
    forged = token[:place] + letter + token[place + 1 :]
    if forged != token:
        with pytest.raises(RefusedToken):
            tokens.read(forged, now=NOW)


@given(st.text(max_size=60))
def test_what_is_no_token_is_refused_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(RefusedToken):
        tokens.read(text, now=NOW)


def test_the_signature_of_one_notification_does_not_fit_another() -> None:
    mine, others = tokens.sign(ID, "phone-1", now=NOW), tokens.sign(OTHER, "phone-1", now=NOW)
    with pytest.raises(RefusedToken, match="was not signed"):
        tokens.read(others[:36] + mine[36:], now=NOW)


def test_a_new_secret_signs_and_the_old_one_is_still_read() -> None:
    rotated = ReceiptTokens([b"new", b"secret"], DAY)
    rotated.read(tokens.sign(ID, "phone-1", now=NOW), now=NOW)
    ReceiptTokens([b"new"], DAY).read(rotated.sign(ID, "phone-1", now=NOW), now=NOW)
    with pytest.raises(RefusedToken, match="was not signed"):
        ReceiptTokens([b"new"], DAY).read(tokens.sign(ID, "phone-1", now=NOW), now=NOW)


def test_an_empty_secret_signs_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        ReceiptTokens([b""], DAY)


def test_the_address_fits_into_what_a_push_has_left() -> None:
    longest_public_url = "https://" + "a" * 88 + ".com"
    url = ReceiptUrls(longest_public_url, tokens).url(ID, "phone-1", now=NOW, ttl_s=0)
    assert len(RECEIPT_FIELD) + len(url) + len('"":"",') <= 4096 - PUSH_BYTES_LIMIT


@given(st.text(max_size=40), st.binary(min_size=1, max_size=100))
def test_a_token_ends_with_the_hmac_of_what_it_says(registration: str, secret: bytes) -> None:
    raw = base64.urlsafe_b64decode(ReceiptTokens([secret], DAY).sign(ID, registration, now=NOW))
    key = hashlib.sha256(b"knocktwice receipt " + secret).digest()
    assert raw[27:] == hmac.digest(key, raw[:27], "sha256")[:12]
