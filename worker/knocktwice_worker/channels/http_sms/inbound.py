"""Texts that people write to the senders of the file's SMS providers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from knocktwice_worker.channels.http_sms import json_paths
from knocktwice_worker.channels.http_sms.callbacks import ROUTE_PATH
from knocktwice_worker.channels.http_sms.proofs import Proofs, items_of
from knocktwice_worker.channels.reports import Heard, NotBelieved, WrittenText

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.channels.http_sms.callback_rules import InboundRules
    from knocktwice_worker.channels.reports import Arrived

#: The path to which providers pass texts on.
INBOUND_PATH = ROUTE_PATH + "/inbound"
_DECORATION = re.compile(r"[\s().\-]+")
_DIGITS = re.compile(r"[1-9][0-9]{6,14}")
#: The most characters of a number, a short code or a name.
_LONGEST_NAME = 40


class HttpInbound:
    """The texts that one provider of the file passes on.

    Args:
        provider: the provider's name.
        rules: the file's rules for them.
    """

    def __init__(self, provider: str, rules: InboundRules) -> None:
        self._provider = provider
        self._rules = rules
        self._proofs = Proofs(provider, rules.verify)

    def receive(self, arrived: Arrived) -> Heard:
        """Return the texts in a request. Raises like a receiver."""
        query = dict(parse_qsl(arrived.query, keep_blank_values=True))
        if not self._proofs.are_right(arrived.headers, query, arrived.body):
            raise NotBelieved(_REFUSED)
        items = items_of(self._rules, query, arrived.body)
        texts = [text for item in items if (text := self._text(item)) is not None]
        return Heard(texts=texts, reply=self._rules.reply or "")

    def _text(self, item: object) -> WrittenText | None:
        """Return the text; ``None`` for one without an id, by which a repeat would be known, or without a writer."""
        rules = self._rules
        id_ = json_paths.id_of(self._provider, json_paths.at(item, rules.id))
        number = _number(json_paths.text(json_paths.at(item, rules.number)))
        if id_ is None or not number:
            return None
        words = json_paths.text(json_paths.at(item, rules.text))
        sender = json_paths.text(json_paths.at(item, rules.to)).strip() if rules.to else ""
        to = sender[:_LONGEST_NAME] if sender.isprintable() and sender else None
        return WrittenText(f"inbound:{id_}", number, words, None, self._provider, "sms", to)


class FileInboundReceiver:
    """Receives the texts that the file's providers pass on.

    Args:
        inbound: provider's name → its texts.
    """

    def __init__(self, inbound: Mapping[str, HttpInbound]) -> None:
        self._inbound = inbound

    def receive(self, arrived: Arrived) -> Heard:
        """Return the texts in a provider's request."""
        provider = self._inbound.get(arrived.provider)
        if provider is None:
            raise NotBelieved(_REFUSED)
        return provider.receive(arrived)


_REFUSED = "this is not what KNOCKTWICE_SMS_PROVIDERS_FILE asks of a text"


def _number(value: str) -> str:
    """Return a writer's number with its plus, which many providers leave out; a short code or a name as it is."""
    plain = _DECORATION.sub("", value)
    digits = plain.removeprefix("+") if plain.startswith("+") else plain.removeprefix("00")
    if _DIGITS.fullmatch(digits):
        return f"+{digits}"
    name = value.strip()
    return name if name.isprintable() and len(name) <= _LONGEST_NAME else ""
