"""Signatures as Standard Webhooks has them: HMAC-SHA256 over id, time and body.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def key_of(secret: str, endpoint: str) -> str:
    """Return what an endpoint verifies with, as ``whsec_…``. It is derived, so no table holds it.

    Args:
        secret: the webhooks' secret, or the installation's.
        endpoint: the endpoint's id.
    """
    return f"whsec_{base64.b64encode(_key(secret, endpoint)).decode()}"


def headers(secrets: Sequence[str], endpoint: str, message_id: str, now: float, body: bytes) -> dict[str, str]:
    """Return the headers that go with a webhook.

    Args:
        secrets: the secrets that are valid. Each gives a signature, so an endpoint that knows the old one or the new
            one can verify the webhook while the secret is exchanged.
        message_id: the same for every attempt, so that a repeat is known as one.
        now: epoch seconds of this attempt.
    """
    at = str(int(now))
    signed = b".".join((message_id.encode(), at.encode(), body))
    signatures = [
        base64.b64encode(hmac.digest(_key(secret, endpoint), signed, hashlib.sha256)).decode() for secret in secrets
    ]
    return {
        "content-type": "application/json",
        "user-agent": "knocktwice",
        "webhook-id": message_id,
        "webhook-timestamp": at,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str, endpoint: str) -> bytes:
    return hmac.digest(secret.encode(), f"webhook:{endpoint}".encode(), hashlib.sha256)
