"""Callbacks from the SMS providers of the file: verified, and read as reports about messages."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

import structlog

from knocktwice_worker.channels.http_sms import json_paths
from knocktwice_worker.channels.http_sms.callback_rules import Reported, words
from knocktwice_worker.channels.http_sms.proofs import Proofs, items_of, same
from knocktwice_worker.channels.reports import OPTED_OUT, PRICE, Heard, NotBelieved, StatusReport, read_intent
from knocktwice_worker.lifecycle import LOST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from knocktwice_worker.channels.http_sms.callback_rules import CallbackRules
    from knocktwice_worker.channels.reports import Arrived

log = structlog.get_logger(__name__)

#: The path of callback addresses below the public URL; the provider's name follows.
PATH = "/callbacks/sms/"
ROUTE_PATH = PATH + "{provider}"
#: Words for a status that may be logged: they cannot be a phone number.
_HARMLESS = re.compile(r"[A-Za-z_. -]{1,40}|[0-9]{1,4}")


class HttpCallbacks:
    """The callbacks of one provider of the file.

    Args:
        provider: the provider's name.
        rules: the file's rules for its callbacks.
        public_url: the address at which the internet reaches the gateway.
        secret: the key that signs callback addresses.
        environment: the variables that the file's secrets come from.
    """

    def __init__(
        self,
        provider: str,
        rules: CallbackRules,
        *,
        public_url: str | None,
        secret: str,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.provider = provider
        #: Our answer, as the provider expects it.
        self.reply = rules.reply
        self._rules = rules
        self._words = words(rules.statuses)
        self._number_errors = {json_paths.word(code): why for code, why in rules.number_errors.items()}
        self._operator_errors = {json_paths.word(code): what for code, what in rules.operator_errors.items()}
        self._opt_outs = {json_paths.word(code) for code in rules.opt_out_errors}
        self._public_url = public_url
        self._secret = secret.encode()
        self._unknown: set[str] = set()
        self._proofs = Proofs(provider, rules.verify, environment)

    def authorize(self) -> None:
        """Make sure that the secrets for the verification of callbacks exist. Raises like :meth:`Proofs.authorize`."""
        self._proofs.authorize()

    def url(self, intent: str) -> str:
        """Return the address for reports about one message. It contains the message's intent, signed."""
        query = {"intent": intent, "sig": self._signature(intent)}
        if self._proofs.token is not None:
            query["token"] = self._proofs.token
        return f"{str(self._public_url).rstrip('/')}{PATH}{self.provider}?{urlencode(query)}"

    def is_genuine(self, headers: Mapping[str, str], query: Mapping[str, str], body: bytes) -> bool:
        """Return whether the provider sent a callback. Arguments as for :meth:`Proofs.are_right`."""
        return self._proofs.are_right(headers, query, body)

    def read(self, query: Mapping[str, str], body: bytes, at: datetime) -> list[StatusReport]:
        """Return the reports in a callback. A status that the file does not name is left out.

        Args:
            query: the parameters of the address.
            body: the body, unchanged.
            at: the time of its arrival.

        Raises:
            Unreadable: the callback has another form than the file says.
        """
        intent = self._intent(query)
        items = items_of(self._rules, query, body)
        # The signed intent in an address is about one message, so it is not used for several.
        return [r for item in items if (r := self._report(item, at, intent if len(items) == 1 else None))]

    def _intent(self, query: Mapping[str, str]) -> tuple[str, int] | None:
        intent = query.get("intent", "")
        return read_intent(intent) if same(self._signature(intent), query.get("sig", "")) else None

    def _report(self, item: object, at: datetime, signed: tuple[str, int] | None) -> StatusReport | None:
        rules = self._rules
        word = json_paths.word(json_paths.at(item, rules.status))
        reported = self._words.get(word)
        id_ = json_paths.id_of(self.provider, json_paths.at(item, rules.id))
        if reported is None or id_ is None:
            self._wonder("its status" if reported is None else "an id", word)
            return None
        named = read_intent(json_paths.text(json_paths.at(item, rules.reference))) if rules.reference else None
        price, unit = self._price(item)
        error, error_text = self._error(item, reported)
        intent = signed or named
        code = json_paths.word(json_paths.at(item, rules.error)) if rules.error and reported.state in LOST else ""
        untextable = self._number_errors.get(code)
        mend = self._operator_errors.get(code) if error != OPTED_OUT else None
        operators = mend and f"{self.provider} {code}: {mend}"
        return StatusReport(
            self.provider, id_, reported.state, at, error, intent, price, unit, error_text, untextable, operators
        )

    def _error(self, item: object, reported: Reported) -> tuple[int | None, str | None]:
        """Return the error as a number and as a text; none for a message that arrived (some send "no error")."""
        if reported.state not in LOST:
            return None, None
        said = json_paths.at(item, self._rules.error) if self._rules.error else None
        code = json_paths.code(said)
        if code is None and json_paths.text(said):
            self._wonder("a code that can be kept", "…")
        if reported is Reported.OPTED_OUT or json_paths.word(said) in self._opt_outs:
            return OPTED_OUT, str(Reported.OPTED_OUT if code is None else code)
        # For rows 21610 means "opted out". Another provider's 21610 means something else, so it is kept as a text.
        if isinstance(code, int) and code != OPTED_OUT:
            return code, None
        return None, None if code is None else str(code)

    def _price(self, item: object) -> tuple[str | None, str | None]:
        rules = self._rules
        value = json_paths.at(item, rules.price) if rules.price else None
        price = f"{value:.8f}" if isinstance(value, float) else json_paths.text(value)
        if not PRICE.fullmatch(price):
            return None, None
        unit = json_paths.text(json_paths.at(item, rules.price_unit)).upper() if rules.price_unit else ""
        return price.removeprefix("-"), unit if re.fullmatch("[A-Z]{3}", unit) else None

    def _wonder(self, lacking: str, word: str) -> None:
        """Log for the operator, once for each word, a value that the file may have to name."""
        shown = word if _HARMLESS.fullmatch(word) else "…"
        if (lacking + shown) not in self._unknown and len(self._unknown) < 100:
            self._unknown.add(lacking + shown)
            log.warning("callback without what the file names", provider=self.provider, lacking=lacking, status=shown)

    def _signature(self, intent: str) -> str:
        digest = hmac.digest(self._secret, f"sms-callback:{self.provider}:{intent}".encode(), hashlib.sha256)[:16]
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class FileReceiver:
    """Receives the callbacks of the file's providers.

    Args:
        callbacks: provider's name → its callbacks.
    """

    def __init__(self, callbacks: Mapping[str, HttpCallbacks]) -> None:
        self.callbacks = callbacks

    def receive(self, arrived: Arrived) -> Heard:
        """Return the reports in a provider's callback."""
        rules = self.callbacks.get(arrived.provider)
        query = dict(parse_qsl(arrived.query, keep_blank_values=True))
        if rules is None or not rules.is_genuine(arrived.headers, query, arrived.body):
            raise NotBelieved("this is not what KNOCKTWICE_SMS_PROVIDERS_FILE asks of a callback")
        return Heard(rules.read(query, arrived.body, arrived.at), reply=rules.reply or "")
