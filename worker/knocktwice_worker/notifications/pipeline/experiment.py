"""The experiment that shows what the SMS are worth: a few people are not texted, and a few more wait longer.

Without it nobody can tell whether who answered after an SMS would have answered anyway. Which message is drawn depends
on its notification's id alone, so every worker that asks again gets the same answer.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime, timedelta


class Arm(StrEnum):
    """The part of the experiment to which a message belongs. The ledger says so under ``experiment``."""

    #: It goes, as always.
    TEXTED = "texted"
    #: It does not go.
    HELD_OUT = "held_out"
    #: It waits longer, and goes if nobody has answered by then.
    PROBE = "probe"


@dataclass(frozen=True, slots=True)
class Experiment:
    """The shares of the experiment, both 0 unless an operator sets them.

    Attributes:
        held_out: the share of due fallbacks that are not sent, from 0 to 1.
        probe: the share that waits longer, from 0 to 1.
        wait: how much longer.
        secret: keeps the draw independent of how ids are made.
    """

    held_out: float
    probe: float
    wait: timedelta
    secret: bytes

    def __bool__(self) -> bool:
        return self.held_out > 0 or self.probe > 0

    def arm(self, notification_id: str) -> Arm:
        """Return what is done with the messages of a notification; always the same while the shares are."""
        digest = hmac.digest(self.secret, f"experiment:{notification_id}".encode(), "sha256")
        draw = int.from_bytes(digest[:8], "big") / 2**64
        if draw < self.held_out:
            return Arm.HELD_OUT
        # From the other end, so that a change of one share moves nobody between the other two.
        return Arm.PROBE if draw >= 1 - self.probe else Arm.TEXTED

    def waits_until(self, due_at: datetime, now: datetime, useful_for: timedelta) -> datetime | None:
        """Return until when a message of the probe waits; ``None``: it goes now.

        One that would be of no use after the wait does not wait.
        """
        return due_at + self.wait if now < due_at + self.wait and self.wait < useful_for else None
