"""The sandbox's own service account, access tokens and Twilio account."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: The Firebase project of the service account.
PROJECT = "knocktwice-sandbox"
#: Always the same, so that a worker outlives a sandbox that is started anew. They open nothing but a sandbox.
ACCOUNT_SID = "AC" + hashlib.sha256(b"knocktwice sandbox account").hexdigest()[:32]
AUTH_TOKEN = hashlib.sha256(b"knocktwice sandbox token").hexdigest()[:32]
#: One of Twilio's own test numbers.
SENDER = "+15005550006"

#: Google's libraries write this audience whatever ``token_uri`` says.
_GOOGLE_AUDIENCE = "https://oauth2.googleapis.com/token"
_TOKEN_LIFE_S = 3600
_FILE_NAME = "sandbox-service-account.json"


class InvalidGrantError(Exception):
    """The assertion does not entitle to an access token."""


class Accounts:
    """Issues service account files and access tokens, and knows its own. ``now`` is the tokens' clock, in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._keys: dict[str, rsa.RSAPublicKey] = {}
        self._tokens: dict[str, float] = {}

    def write_service_account(self, folder: Path, url: str) -> Path:
        """Write a service account's file for this sandbox, readable by its owner only.

        The key of a file that is already there is kept, so that a running worker's credentials survive a restart.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / _FILE_NAME
        key = _kept_key(path) or rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        key_id = hashlib.sha256(pem.encode()).hexdigest()[:40]
        with self._lock:
            self._keys[key_id] = key.public_key()
        account = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": key_id,
            "private_key": pem,
            "client_email": f"sandbox@{PROJECT}.iam.gserviceaccount.com",
            "client_id": "100000000000000000000",
            "auth_uri": f"{url}/auth",
            "token_uri": f"{url}/token",
        }
        # The file is replaced in one step, so that no reader sees half of it. Its mode is right from the first byte on.
        draft = path.with_name(f".{_FILE_NAME}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(account, file, indent=2)
        draft.replace(path)
        return path

    def grant(self, assertion: str, token_uri: str) -> dict[str, Any]:
        """Exchange a signed assertion for an access token (RFC 7523).

        Raises:
            InvalidGrantError: it is not signed with a key of ours, not for us or not of now.
        """
        try:
            key = self._keys[jwt.get_unverified_header(assertion)["kid"]]
            jwt.decode(
                assertion,
                key,
                algorithms=["RS256"],
                audience=[_GOOGLE_AUDIENCE, token_uri],
                leeway=10,
                options={"require": ["iss", "aud", "iat", "exp"]},
            )
        except (jwt.InvalidTokenError, KeyError) as error:
            raise InvalidGrantError("Invalid JWT Signature.") from error
        token = f"ya29.sandbox-{secrets.token_urlsafe(32)}"
        with self._lock:
            self._tokens[token] = self._now() + _TOKEN_LIFE_S
        return {"access_token": token, "expires_in": _TOKEN_LIFE_S, "token_type": "Bearer"}

    def knows_token(self, token: str) -> bool:
        """Return whether we issued this access token and it still holds."""
        with self._lock:
            return self._tokens.get(token, 0) > self._now()

    def revoke_tokens(self) -> None:
        """Let no access token hold any more."""
        with self._lock:
            self._tokens.clear()


def _kept_key(path: Path) -> rsa.RSAPrivateKey | None:
    try:
        pem = json.loads(path.read_text())["private_key"].encode()
        # The full check of a key takes longer than all the rest, and we made this one ourselves.
        key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return key if isinstance(key, rsa.RSAPrivateKey) else None
