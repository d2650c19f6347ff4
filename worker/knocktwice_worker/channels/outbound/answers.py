"""Counts of providers' answers, by outcome and by the provider's own code, for metrics and ``knocktwice doctor``."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from knocktwice_worker.channels.outcomes import Outcome, Rejected, Retry, Sent, Unknown
from knocktwice_worker.counters.counters import Count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_worker.counters.counters import Counters

#: The codes of providers: a number, or a word in capitals, such as ``UNREGISTERED``.
_CODE = re.compile(r"(?<![\w.])(\d{3,6}|[A-Z][A-Z_]{3,40})(?![\w.])")
#: What is known of an answer over HTTP: provider, status and the provider's own code, which says more than the status.
_OWN_CODE = re.compile(r"\S+ \d{3} (\S{1,64})")
#: The code of an answer that has none, such as one that never came.
NO_CODE = "none"


def count(counters: Counters, provider: str, outcomes: Sequence[Outcome]) -> None:
    """Count what became of messages that were handed to a provider.

    Messages that the provider took cost no work each; only the others are looked at.
    """
    kinds = Counter(map(type, outcomes))
    counters.add(Count.PROVIDER_ANSWERS, (provider, "sent", NO_CODE), kinds.pop(Sent, 0))
    if kinds:
        others = Counter((outcome_of(o), code_of(o)) for o in outcomes if type(o) is not Sent)
        for (outcome, code), number in others.items():
            counters.add(Count.PROVIDER_ANSWERS, (provider, outcome, counters.bounded(provider, code)), number)


def outcome_of(outcome: Outcome) -> str:
    """Return the outcome in one word of a closed set."""
    match outcome:
        case Sent():
            return "sent"
        case Retry(operators=True) | Rejected(operators=True):
            return "refused"
        case Rejected():
            return "rejected"
        case Unknown():
            return "unknown"
        case Retry(too_fast=True):
            return "too_fast"
        case Retry(ours=True):
            return "too_late"
        case Retry():
            return "retry"


def code_of(outcome: Outcome) -> str:
    """Return the provider's code in an outcome; a rejection without one has its standard word."""
    match outcome:
        case Sent():
            return NO_CODE
        case Rejected(reason, detail):
            return _code(detail) or reason[:40]
        case Retry(reason) | Unknown(reason):
            return _code(reason.replace("FCM", "").replace("GOOGLE_APPLICATION_CREDENTIALS", "")) or NO_CODE


def _code(said: str) -> str | None:
    found = _OWN_CODE.fullmatch(said) or _CODE.search(said)
    return found[1] if found else None
