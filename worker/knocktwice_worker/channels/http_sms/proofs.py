"""Requests from the SMS providers of the file: the proofs that they are genuine, and the messages in them."""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import structlog

from knocktwice_worker.channels.http_sms import json_paths
from knocktwice_worker.channels.http_sms.terms import Secrets
from knocktwice_worker.channels.outcomes import CredentialsUnavailable
from knocktwice_worker.channels.reports import Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.channels.http_sms.callback_rules import Arrivals, Hmac, Verification
    from knocktwice_worker.channels.http_sms.terms import BasicAuth

log = structlog.get_logger(__name__)

#: The most messages in one request.
MOST_ITEMS = 5_000
#: The least characters of a token; a shorter token could be guessed.
_SHORTEST_TOKEN = 20


class Proofs:
    """The proofs that a request comes from a provider of the file.

    Args:
        provider: the provider's name.
        verify: the file's rules.
        environment: the variables that the file's secrets come from.
    """

    def __init__(self, provider: str, verify: Verification, environment: Mapping[str, str] = os.environ) -> None:
        self._provider = provider
        self._verify = verify
        self._secrets = Secrets(environment)
        #: The token in the address; ``None``: there is none.
        self.token = None if verify.token is None else self._secrets.fill(verify.token)
        self._key = b"" if verify.hmac is None else self._secrets.fill(verify.hmac.secret).encode()
        self._pair = None if verify.basic_auth is None else self._pair_of(verify.basic_auth)

    def authorize(self) -> None:
        """Make sure that the secrets for the verification of requests exist.

        Raises:
            CredentialsUnavailable: a secret is missing, or is so short that it could be guessed. Until it is set, no
                request is accepted.
        """
        if self._secrets.missing:
            raise CredentialsUnavailable(f"{', '.join(self._secrets.missing)} not set (callbacks of {self._provider})")
        if self.token is not None and len(self.token) < _SHORTEST_TOKEN:
            raise CredentialsUnavailable(
                f"the token of {self._provider}'s callbacks has under {_SHORTEST_TOKEN} characters"
            )

    def are_right(self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> bool:
        """Return whether the provider sent a request: all proofs that the file asks for are present and right.

        Args:
            headers: the headers, by names in lower case.
            query: the parameters of the address.
            body: the body, unchanged.
        """
        try:
            self.authorize()
        except CredentialsUnavailable as error:
            log.warning("callback refused", provider=self._provider, reason=str(error))
            return False
        verify = self._verify
        return (
            (verify.hmac is None or self._is_signed(verify.hmac, headers, body))
            and (self.token is None or same(self.token, query.get("token", "")))
            and (self._pair is None or same(self._pair, _basic(headers.get("authorization", ""))))
        )

    def _is_signed(self, rule: Hmac, headers: Mapping[str, str], body: bytes) -> bool:
        given = headers.get(rule.header.lower(), "").strip()
        digest = hmac.digest(self._key, body, rule.algorithm)
        if rule.encoding == "hex":
            return same(rule.prefix + digest.hex(), rule.prefix + given.removeprefix(rule.prefix).lower())
        return same(rule.prefix + base64.b64encode(digest).decode(), given)

    def _pair_of(self, basic: BasicAuth) -> str:
        return f"{self._secrets.fill(basic.user)}:{self._secrets.fill(basic.password)}"


def items_of(rules: Arrivals, query: Mapping[str, str], body: bytes) -> list[object]:
    """Return the messages in a request.

    Raises:
        Unreadable: the request has another form than the file says.
    """
    if rules.source == "query":
        return [dict(query)]
    if rules.source == "form":
        try:
            return [dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=200))]
        except ValueError:
            raise Unreadable("the body must be a form in UTF-8") from None
    said = json_paths.parse(body)
    items = json_paths.at(said, rules.items) if rules.items else said if isinstance(said, list) else [said]
    if not isinstance(said, dict | list) or not isinstance(items, list):
        raise Unreadable(f"the body must be JSON{f' with a list at {rules.items}' if rules.items else ''}")
    if len(items) > MOST_ITEMS:
        raise Unreadable(f"at most {MOST_ITEMS} messages may be in one callback")
    return items


def same(expected: str, given: str) -> bool:
    """Compare two texts in a time that does not tell where they differ."""
    return hmac.compare_digest(expected.encode(), given.encode(errors="replace"))


def _basic(header: str) -> str:
    scheme, _, pair = header.partition(" ")
    try:
        return base64.b64decode(pair, validate=True).decode() if scheme.lower() == "basic" else ""
    except (binascii.Error, ValueError):
        return ""
