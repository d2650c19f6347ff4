"""The four possible outcomes of a message that was handed to a provider."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.records import record

if TYPE_CHECKING:
    from collections.abc import Sequence


class CredentialsUnavailable(KnocktwiceError):
    """A provider's credentials are missing or refused: correct the named setting. Nothing was sent; we try again.

    Attributes:
        operators: the operator must mend it; ``False``: whoever gives the credentials could not be reached.
    """

    def __init__(self, problem: str, *, operators: bool = True) -> None:
        super().__init__(problem)
        self.operators = operators


@record
class Sent:
    """The provider accepted the message.

    Attributes:
        provider_id: the provider's id of the message.
    """

    provider_id: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The provider did **not** accept the message, so it is safe to send it again.

    Attributes:
        reason: why, without personal data.
        after: the wait before the next try; ``None``: our own wait applies.
        too_fast: the provider gets more messages than it wants.
        ours: we were too late to send the message, so the provider is not to blame.
        operators: the operator must mend it: the account, the sender, a region. It is nobody's fault who gets messages.
    """

    reason: str
    after: timedelta | None = None
    too_fast: bool = False
    ours: bool = False
    operators: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider will never accept this message.

    Attributes:
        reason: a standard word (``unregistered``, ``opted_out``, ``invalid_number``, …), which the ledger can use.
        detail: the provider's code and text, without personal data.
        address_dead: the address is gone for good and should be forgotten.
        opted_out: the recipient has opted out at the provider; the address joins the opt-outs.
        operators: the operator must mend it. The message cannot wait for that, and says nothing of its recipient.
    """

    reason: str
    detail: str = ""
    address_dead: bool = False
    opted_out: bool = False
    operators: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """The message may or may not have gone out (time-out, 5xx). A push is sent again: it replaces the first.

    Attributes:
        reason: the provider's error or the network's, without personal data.
        after: the wait before a push is sent again; ``None``: our own wait applies.
    """

    reason: str
    after: timedelta | None = None


Outcome = Sent | Retry | Rejected | Unknown


def patience(outcomes: Sequence[Outcome]) -> Retry | None:
    """Return the longest wait that a too busy provider asks for, or ``None`` if none of them asks."""
    asked = [o for o in outcomes if isinstance(o, Retry) and o.too_fast]
    return max(asked, key=lambda o: o.after or timedelta(), default=None)
