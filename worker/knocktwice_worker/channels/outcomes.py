"""What can become of a message that was handed to a provider: four outcomes, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_shared.errors import KnocktwiceError

if TYPE_CHECKING:
    from collections.abc import Sequence


class CredentialsUnavailable(KnocktwiceError):
    """A provider's credentials are missing or refused: mend the named setting. Nothing was sent; it is tried again."""


@dataclass(frozen=True, slots=True)
class Sent:
    """The provider took the message and calls it ``provider_id``."""

    provider_id: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The provider did **not** take it: safe to send again after ``after``.

    Attributes:
        too_fast: because it gets more than it wants.
        ours: because we were too late to send it, so it says nothing about the provider.
    """

    reason: str
    after: timedelta | None = None
    too_fast: bool = False
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """It will never go out like this.

    Attributes:
        reason: a word from the field (``unregistered``, ``opted_out``, ``invalid_number``, …), fit for the ledger.
        detail: the provider's code and text, without personal data.
        address_dead: the address itself is gone for good and should be forgotten.
        opted_out: the recipient has asked the provider not to get messages; the address joins the opt-outs.
    """

    reason: str
    detail: str = ""
    address_dead: bool = False
    opted_out: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody can tell whether it went out (time-out, 5xx). A push, which replaces itself, is sent again ``after``."""

    reason: str
    after: timedelta | None = None


Outcome = Sent | Retry | Rejected | Unknown


def patience(outcomes: Sequence[Outcome]) -> Retry | None:
    """Return the longest wait asked for by a provider that gets more than it wants, or ``None`` if it keeps up."""
    asked = [o for o in outcomes if isinstance(o, Retry) and o.too_fast]
    return max(asked, key=lambda o: o.after or timedelta(), default=None)
