"""The guards that stop SMS when something is wrong, and the experiment that holds some back."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from knocktwice_worker.config.values import Group, Seconds, Span


class BrakeMode(StrEnum):
    """The effect of a brake on messages of one kind."""

    #: It holds them.
    ON = "on"
    #: They go; doctor, log and webhooks say what would have been held.
    WATCH = "watch"
    #: It does not concern them.
    OFF = "off"


class PumpingMode(StrEnum):
    """The effect of the pumping guard on messages to suspicious numbers."""

    #: Nobody looks.
    OFF = "off"
    #: They go; doctor, Flower, log, metrics and webhooks say how many would have been stopped.
    MONITOR = "monitor"
    #: A few go each minute; the others wait for their turn.
    SLOW = "slow"
    #: All wait for an operator.
    HOLD = "hold"


class GuardSettings(Group):
    """Brake, pumping guard and experiment."""

    # The brake
    brake: BrakeMode = Field(
        BrakeMode.ON,
        description="When the share that falls back jumps: on holds the SMS of blasts and of marketing, "
        "watch only says so, off does neither.",
    )
    brake_singles: BrakeMode = Field(
        BrakeMode.WATCH, description="The same for transactional and critical messages that are no blast's."
    )
    brake_sample: int = Field(100, ge=20, description="Pushes in the window from which a jump can be told.")
    brake_jump: float = Field(
        0.5, gt=0, lt=1, description="A share so much above the usual one is a jump, like 0.58 where 0.08 is usual."
    )
    brake_factor: float = Field(4, gt=1, le=1000, description="So many times fewer reports than usual are a jump, too.")
    brake_window_s: Span = Field(
        600, ge=60, le=7_200, description="The span that is compared; a jump within its last minute is seen at once."
    )
    brake_grace_s: Seconds = Field(
        3_600, description="How long after its release by an operator a brake for the same people stays off."
    )

    # The pumping guard
    pumping: PumpingMode = Field(
        PumpingMode.MONITOR,
        description="Single SMS to numbers that look like SMS pumping: monitor only counts what would be stopped, slow lets "
        "a few go, hold lets them wait for an operator, off looks at nothing.",
    )
    pumping_sample: int = Field(
        50,
        ge=20,
        description="SMS of one template to one range of numbers in the window from which pumping can be told.",
    )
    pumping_window_s: Span = Field(600, ge=60, le=7_200, description="The span in which they are counted.")
    pumping_slow_per_min: float = Field(
        6, gt=0, le=6_000, description="How many SMS a minute go to a suspicious range with slow."
    )

    # The experiment
    holdout_share: float = Field(
        0,
        ge=0,
        lt=0.5,
        description="Share of the due fallbacks that is not texted, so that `knocktwice holdout` can say what SMS are worth; "
        "never critical messages.",
    )
    probe_share: float = Field(
        0, ge=0, lt=0.5, description="Share of them that waits longer, to see who would have answered by then."
    )
    probe_wait_s: Span = Field(600, ge=30, le=86_400, description="How much longer it waits.")

    @property
    def probe_wait(self) -> timedelta:
        """How much longer the share waits that shows who answers late."""
        return timedelta(seconds=self.probe_wait_s)
