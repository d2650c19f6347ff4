"""Stricter rules that are tried: ``KNOCKTWICE_TRIAL``."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from knocktwice_shared.messages import Category
from knocktwice_worker.config import by_category
from knocktwice_worker.config.values import CountryCode, Days, Seconds, hours
from knocktwice_worker.limits.budget import Budget
from knocktwice_worker.notation.phone_numbers import Kind

#: What is always enforced, by the words that somebody may look for it with.
_NEVER_TRIED = ("consent", "opt_out", "opted_out", "click", "cancel", "seen", "receipt", "erasure", "suppress")


class TrialRules(BaseModel):
    """Stricter values of rules, tried beside those in force: what they would stop is counted, and goes all the same.

    Each has the name of the setting that it tries; left out, nothing is tried. A trial lets nothing through that the
    settings stop.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sms_per_day: int = Field(0, ge=0)
    sms_same_content_s: Annotated[Seconds, Field(le=86_400)] = 0
    sms_budget: int = Field(0, ge=0)
    sms_budget_reserve: int = Field(0, ge=0)
    sms_budget_transactional: int = Field(0, ge=0)
    sms_budget_marketing: int = Field(0, ge=0)
    sms_budget_critical: int = Field(0, ge=0)
    sms_countries: frozenset[CountryCode] = frozenset()
    number_kinds: frozenset[Kind] = frozenset()
    quiet_hours: str = ""
    untextable_days: Annotated[Days, Field(ge=0, le=365)] = 0
    useless_after_critical_s: Seconds = 0
    useless_after_transactional_s: Seconds = 0
    useless_after_marketing_s: Seconds = 0

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: object) -> object:
        unknown = sorted(map(str, given.keys() - cls.model_fields.keys())) if isinstance(given, dict) else []
        if not unknown:
            return given
        if any(word in unknown[0].lower().replace("-", "_") for word in _NEVER_TRIED):
            raise ValueError(
                f"{unknown[0]}: consent, opt-outs, answers and cancellations are always enforced and cannot be tried"
            )
        raise ValueError(f"{unknown[0]}: is no rule that can be tried; these can: {', '.join(cls.model_fields)}")

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        return hours(value)

    @model_validator(mode="after")
    def _reserve_is_part_of_the_budget(self) -> Self:
        if self.sms_budget_reserve > self.sms_budget:
            raise ValueError("sms_budget_reserve must not be more than sms_budget, of which it is a part")
        return self

    @property
    def budget(self) -> Budget:
        """SMS parts per day."""
        return by_category.budget(self)

    @property
    def same_content(self) -> timedelta:
        """The time for which one text would block its repeats to a number; zero: that is not tried."""
        return timedelta(seconds=self.sms_same_content_s)

    @property
    def untextable_for(self) -> timedelta:
        """How long a number would be passed over that messages did not reach; zero: that is not tried."""
        return timedelta(days=self.untextable_days)

    @property
    def useless_after(self) -> dict[Category, timedelta]:
        """How long after it was due a message may still go, by category; those that are left out have no trial."""
        return {category: span for category, span in by_category.useless_after(self).items() if span}
