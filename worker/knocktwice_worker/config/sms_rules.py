"""The rules that an SMS must pass: limits, the budget, numbers, countries, quiet hours; rules on trial; and prices."""

from __future__ import annotations

from datetime import timedelta
from typing import Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from knocktwice_worker.config import by_category
from knocktwice_worker.config.trial import TrialRules
from knocktwice_worker.config.values import CountryCode, Days, Group, Price, PricedCountry, Seconds, hours
from knocktwice_worker.limits.budget import Budget
from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.notation import phone_numbers
from knocktwice_worker.notation.phone_numbers import Kind, Plan, Rules


class SmsRules(Group):
    """Rules for SMS."""

    # Per-number limits
    sms_per_day: int = Field(10, ge=0, description="SMS to one number per calendar day.")
    sms_same_content_s: Seconds = Field(30, description="Same text to one number only once in this time.")
    sms_day_zone: str = Field("UTC", description="IANA time zone whose calendar day counts.")

    # Budget
    sms_budget: int = Field(0, ge=0, description="SMS parts per calendar day, all categories together; 0: no limit.")
    sms_budget_reserve: int = Field(
        0, ge=0, description="The last parts of the daily budget, which only critical messages may use."
    )
    sms_budget_transactional: int = Field(0, ge=0, description="SMS parts per day of transactional messages.")
    sms_budget_marketing: int = Field(0, ge=0, description="SMS parts per day of marketing.")
    sms_budget_critical: int = Field(0, ge=0, description="SMS parts per day of critical messages.")

    # Phone numbers
    default_region: CountryCode | None = Field(
        None,
        description="Country of numbers that are written without a country code, like DE; empty: they are refused.",
    )
    numbers: Plan = Field(
        Plan.VALID,
        description="valid: numbers that the number plan of the installed phonenumbers has assigned; "
        "possible: all of a right length.",
    )
    number_kinds: frozenset[Kind] = Field(
        phone_numbers.USUAL,
        description='Kinds of numbers that may be texted, like ["mobile", "pager"]; see docs/phone-numbers.md.',
    )

    untextable_days: Days = Field(
        30,
        ge=0,
        le=365,
        description="A number that texts do not reach (a landline, out of service) is tried again after so many days; "
        "0: every time.",
    )

    # Recipients and times of messages
    sms_countries: frozenset[CountryCode] = Field(
        frozenset(), description='Countries whose numbers may be texted, like ["DE", "AT"]; none: all.'
    )
    quiet_hours: str = Field(
        "21:00-08:00", description="Marketing SMS wait while it is this late where the recipient lives; empty: never."
    )
    default_zone: str = Field("UTC", description="IANA time zone of recipients about whom nothing is known.")

    # Trials
    trial: TrialRules = Field(
        TrialRules(),
        description='Stricter rules that are only counted, like {"sms_per_day": 5, "sms_countries": ["DE"]}; '
        "see docs/trials.md.",
    )

    sms_prices: dict[PricedCountry, Price] = Field(
        {}, description='Price of one SMS part by country, like {"US": 0.0083, "*": 0.05}; "*" is every other one.'
    )

    whatsapp_prices: dict[PricedCountry, Price] = Field(
        {}, description='Price of one WhatsApp message by country, like {"US": 0.0084, "*": 0.05}.'
    )

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        return hours(value)

    @field_validator("sms_day_zone", "default_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("is not an IANA time zone such as UTC or Europe/Berlin") from error
        return value

    @model_validator(mode="after")
    def _reserve_is_part_of_the_budget(self) -> Self:
        if self.sms_budget_reserve > self.sms_budget:
            raise ValueError(
                "KNOCKTWICE_SMS_BUDGET_RESERVE must not be more than KNOCKTWICE_SMS_BUDGET, of which it is a part"
            )
        return self

    @property
    def budget(self) -> Budget:
        """SMS parts per day."""
        return by_category.budget(self)

    @property
    def phone_rules(self) -> Rules:
        """The rules for phone numbers: which are taken, and which may be texted."""
        return Rules(self.default_region, self.numbers, self.number_kinds)

    @property
    def day_zone(self) -> ZoneInfo:
        """The zone whose calendar day the daily limit counts."""
        return ZoneInfo(self.sms_day_zone)

    @property
    def quiet(self) -> QuietHours:
        """When marketing is not texted."""
        return QuietHours.parse(self.quiet_hours)

    @property
    def same_content(self) -> timedelta:
        """The time for which one text blocks its repeats to a number."""
        return timedelta(seconds=self.sms_same_content_s)
