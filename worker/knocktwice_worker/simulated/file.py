"""The file of a simulated day: who there is, what is sent, what fails, and the sets of rules that are compared.

``docs/simulated-day.md`` explains each field. All mistakes are told at once, each with its line.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.messages import AFTER_LIMIT, STEPS_LIMIT, Category, Platform, When
from knocktwice_worker.config import CountryCode, Price, PricedCountry, Settings, problem
from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.notation import declared_model, durations, time_zones
from knocktwice_worker.notation.declared_yaml import Unreadable

if TYPE_CHECKING:
    from typing import Self

#: Settings that a set of rules may change: rules only, nothing of servers, providers and secrets.
RULES = (
    "sms_per_day",
    "sms_same_content_s",
    "sms_budget",
    "sms_budget_reserve",
    "sms_budget_transactional",
    "sms_budget_marketing",
    "sms_budget_critical",
    "sms_countries",
    "quiet_hours",
    "untextable_days",
    "useless_after_critical_s",
    "useless_after_transactional_s",
    "useless_after_marketing_s",
    "push_retry_s",
    "sms_retry_s",
    "holdout_share",
    "push_per_s",
    "sms_parts_per_s",
    "whatsapp_per_s",
    "pumping",
    "pumping_sample",
    "pumping_window_s",
    "pumping_slow_per_min",
    "brake",
    "brake_singles",
    "brake_sample",
    "trial",
)
#: The most people and notifications of a file.
_MOST_PEOPLE, _MOST_SENT = 200_000, 1_000_000
#: pydantic's name of a mistake → what to do about it.
_REMEDIES = {
    "extra_forbidden": "is not a field here; docs/simulated-day.md lists them",
    "missing": "is missing; 'knocktwice simulate --example' prints a file that has all of them",
    "string_type": "must be a text; put it in quotes",
    "model_type": "must be an object: fields and their values, indented",
    "dict_type": "must be an object: names and what belongs to them, indented",
    "tuple_type": "must be a list, each item after a dash",
    "int_type": "must be a whole number, without quotes",
    "int_parsing": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number, without quotes",
}


class DayFileError(KnocktwiceError):
    """The file is missing or has wrong values. The message has one line for each, with its place and the fix."""


def _span(value: object) -> timedelta:
    return durations.parse(value, AFTER_LIMIT)


def _zone(value: str) -> str:
    return time_zones.canonical(value)


def _hours(value: str) -> str:
    try:
        QuietHours.parse(value)
    except ValueError:
        raise ValueError("must be a span of the day, like 08:00-22:00") from None
    return value


def _clock(value: object) -> time:
    try:
        return time.fromisoformat(str(value))
    except ValueError:
        raise ValueError('must be a time of the day, like "10:00"') from None


def _day(value: object) -> date:
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("must be a date, like 2026-11-27") from None


Share = Annotated[float, Field(ge=0, le=1)]
Span = Annotated[timedelta, BeforeValidator(_span)]
Hours = Annotated[str, AfterValidator(_hours)]
Clock = Annotated[time, BeforeValidator(_clock)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class People(_Strict):
    """People who are alike."""

    #: For the eye.
    name: str = Field(min_length=1)
    #: How many.
    count: int = Field(ge=1, le=_MOST_PEOPLE)
    #: Whose numbers they have.
    country: CountryCode = "US"
    #: Where they live.
    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    #: Platform → its share; each has one device.
    platforms: dict[Platform, Share] = {Platform.ANDROID: 0.6, Platform.IOS: 0.4}
    #: The share whose phone shows notifications.
    permission: Share = 0.8
    #: Of those without, the share whose app says so; the others are pushed to in vain.
    tells_permission: Share = 0.9
    #: The share that has removed the app, which the push provider tells with the first push.
    app_removed: Share = 0.03
    #: The share of pushes that meet a phone without a network, and how long that lasts on average.
    offline: Share = 0.08
    offline_for: Span = timedelta(minutes=40)
    #: Platform → the share of shown pushes that the app reports as delivered.
    reports: dict[Platform, Share] = {Platform.ANDROID: 0.95, Platform.IOS: 0.7, Platform.WEB: 0.9}
    #: The median time until somebody who is awake looks at the phone.
    looks_after: Annotated[Span, Field(gt=timedelta())] = timedelta(minutes=6)
    #: The share of seen pushes that are clicked.
    clicks: Share = 0.5
    #: When they sleep, by their own clock.
    sleeps: Hours = "23:00-07:00"
    #: The share whose number is known, and of these the shares that agreed to marketing, opted out, or have a landline.
    phone: Share = 0.95
    consent: Share = 0.6
    opted_out: Share = 0.01
    landline: Share = 0.01
    #: Of these, the share that has WhatsApp, and of these the share whose phone tells that a message was read.
    whatsapp: Share = 0.8
    tells_reading: Share = 0.8

    @model_validator(mode="after")
    def _somebody_has_a_phone(self) -> Self:
        if sum(self.platforms.values()) <= 0:
            raise ValueError("platforms: at least one platform must have a share above 0")
        return self


class Step(_Strict):
    """A step behind the push."""

    channel: Literal["sms", "whatsapp"] = "sms"
    #: What it waits for, and for how long.
    when: When = When.NOT_CLICKED
    after: Span = timedelta(minutes=10)


#: The steps behind the push, in place of ``when`` and ``after``.
Plan = Annotated[tuple[Step, ...], Field(min_length=1, max_length=STEPS_LIMIT)]


class Traffic(_Strict):
    """Notifications of one kind."""

    #: For the eye, and for rules that concern it alone.
    name: str = Field(min_length=1)
    category: Category = Category.TRANSACTIONAL
    #: Single notifications: how many, within which hours of the day (UTC).
    count: int | None = Field(None, ge=1, le=_MOST_SENT)
    hours: Hours = "00:00-00:00"
    #: Or a blast: when (UTC), and to which share of all people.
    at: Clock | None = None
    to: Share = 1.0
    #: 1: everybody gets as many; 2 and more: a few get most of them.
    skew: Annotated[float, Field(ge=1, le=10)] = 1.0
    #: Whether all say the same; else each has a text of its own.
    same_text: bool = False
    #: The SMS behind the push; ``none``: there is none.
    when: When | Literal["none"] = When.NOT_CLICKED
    after: Span = timedelta(minutes=10)
    #: Or several steps.
    plan: Plan | None = None
    #: The share of those who have seen it that is answered in the application, a code that is entered for example.
    answers: Share = 0.0

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.count is None) == (self.at is None):
            raise ValueError("needs either count (single notifications) or at (a blast)")
        if self.plan is not None and self.model_fields_set & {"when", "after"}:
            raise ValueError("has a plan, so leave out when and after; each step of the plan has its own")
        return self

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps behind the push."""
        if self.plan is not None:
            return self.plan
        return () if self.when == "none" else (Step().model_copy(update={"when": self.when, "after": self.after}),)


class Outage(_Strict):
    """Something that fails for a while."""

    #: What: the push provider, Apple's part of it, the provider of SMS or of WhatsApp, or the reports of apps.
    what: Literal["push", "ios", "sms", "whatsapp", "receipts"]
    #: When it begins (UTC), and for how long.
    begins: Clock
    lasts: Span


class Attack(_Strict):
    """Somebody who makes the application text numbers side by side, whose operator shares the money: SMS pumping."""

    #: The name of the traffic that is abused.
    traffic: str
    #: Whose numbers they are, and how many SMS are asked for.
    country: CountryCode
    count: int = Field(ge=1, le=50_000)
    #: When it begins (UTC), and for how long.
    begins: Clock
    lasts: Annotated[Span, Field(gt=timedelta())]


class RuleSet(_Strict):
    """The rules of one column of the table, where they differ."""

    #: In place of each traffic's own; of a plan, of its first step.
    when: When | None = None
    after: Span | None = None
    #: In place of each traffic's own steps.
    plan: Plan | None = None
    #: Names of traffic that these concern; left out: all.
    only: tuple[str, ...] = ()
    #: Settings, by their variables without KNOCKTWICE_ and in small letters.
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _settings_are_rules(self) -> Self:
        if self.plan is not None and (self.when is not None or self.after is not None):
            raise ValueError("has a plan, so leave out when and after; each step of the plan has its own")
        for name in self.settings:
            if name not in RULES:
                raise ValueError(f"settings: {name} is no rule that can be compared; these can: {', '.join(RULES)}")
        try:
            Settings(**self.settings)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise ValueError(f"settings: {first['loc'][0] if first['loc'] else ''}: {problem(first)}") from None
        return self


class Day(_Strict):
    """A day."""

    #: Which; the clocks of zones are those of this day.
    date: Annotated[date, BeforeValidator(_day)]
    people: Annotated[tuple[People, ...], Field(min_length=1)]
    traffic: Annotated[tuple[Traffic, ...], Field(min_length=1)]
    outages: tuple[Outage, ...] = ()
    attacks: tuple[Attack, ...] = ()
    #: Name → rules; the columns of the table.
    rules: Annotated[dict[str, RuleSet], Field(min_length=1)]
    #: Country → price of an SMS part; ``*`` is every other one.
    prices: dict[PricedCountry, Price] = {}
    #: The same of a WhatsApp message.
    whatsapp_prices: dict[PricedCountry, Price] = {}
    #: The times within which people who were reached are counted.
    within: Annotated[tuple[Span, ...], Field(min_length=1, max_length=5)] = (
        timedelta(minutes=5),
        timedelta(minutes=30),
        timedelta(hours=2),
    )
    #: How often workers look, receipts are written and messages go. Shorter is truer and slower.
    step: Annotated[Span, Field(ge=timedelta(seconds=1), le=timedelta(minutes=5))] = timedelta(minutes=1)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if sum(group.count for group in self.people) > _MOST_PEOPLE:
            raise ValueError(f"people: there are more than {_MOST_PEOPLE:,}, the most of a file")
        known = [one.name for one in self.traffic]
        if len(set(known)) < len(known):
            raise ValueError("traffic: two have the same name; rename one")
        for attack in self.attacks:
            if attack.traffic not in {one.name for one in self.traffic if one.count is not None}:
                raise ValueError(f"attacks: there is no traffic {attack.traffic!r} of single notifications")
        return self

    @property
    def begins(self) -> datetime:
        """When the day begins, in UTC."""
        return datetime.combine(self.date, time(), tzinfo=UTC)

    def moment(self, at: time) -> datetime:
        """Return a time of the day, in UTC."""
        return datetime.combine(self.date, at, tzinfo=UTC)

    def ahead(self, group: People) -> timedelta:
        """Return how far the clock of some people is ahead of UTC on this day."""
        return ZoneInfo(group.zone).utcoffset(datetime.combine(self.date, time(12))) or timedelta()


def example() -> str:
    """Return the example of a file."""
    return files(__package__).joinpath("example.yaml").read_text()


def read(path: str) -> Day:
    """Read a file.

    Raises:
        DayFileError: the file cannot be read, or values are wrong.
    """
    try:
        document, day = declared_model.read(path, Day, _REMEDIES)
    except Unreadable as error:
        raise DayFileError(str(error)) from None
    known = [one.name for one in day.traffic]
    wrong = [
        f"{document.place('rules', rules, 'only')}: rules.{rules}.only: there is no traffic {name!r}; there is {', '.join(known)}"
        for rules, one in day.rules.items()
        for name in one.only
        if name not in known
    ]
    if wrong:
        raise DayFileError("\n".join(wrong))
    return day
