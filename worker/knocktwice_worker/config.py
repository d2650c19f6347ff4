"""Every setting, read once from the environment (``KNOCKTWICE_*``) and checked before anything starts.

Secrets may come from files instead: ``KNOCKTWICE_SECRET_FILE=/run/secrets/x`` fills ``secret``, and likewise for each
name in :data:`FROM_FILES`. The names the ecosystem already uses (``TWILIO_ACCOUNT_SID``, …) are accepted too.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from knocktwice_shared import cells, rabbitmq, sentinels
from knocktwice_shared.durability import Durability
from knocktwice_shared.errors import KnocktwiceError
from knocktwice_shared.messages import AFTER_LIMIT, Category, senders
from knocktwice_shared.names import BACKLOG_BYTES, BACKLOG_MESSAGES
from knocktwice_worker.channels.http_sms import file
from knocktwice_worker.limits.budget import Budget
from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.notation import durations, phone_numbers
from knocktwice_worker.notation.countries import country_code
from knocktwice_worker.notation.phone_numbers import Kind, Plan, Rules
from knocktwice_worker.projects import file as project_file
from knocktwice_worker.projects.file import Projects

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from knocktwice_shared.cells import Cells

#: Variables that the ecosystem named before us.
_NAMES_OF_OTHERS = {"GOOGLE_APPLICATION_CREDENTIALS", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"}
#: Settings that ``KNOCKTWICE_<NAME>_FILE`` (or ``TWILIO_AUTH_TOKEN_FILE``) may fill from a file.
FROM_FILES = (
    "KNOCKTWICE_DATABASE_URL",
    "KNOCKTWICE_BROKER_URL",
    "KNOCKTWICE_STATE_URL",
    "KNOCKTWICE_OUTBOX_DATABASE_URL",
    "KNOCKTWICE_SECRET",
    "KNOCKTWICE_RECEIPT_SECRET",
    "KNOCKTWICE_USER_TOKEN_SECRET",
    "KNOCKTWICE_WEBHOOK_SECRET",
    "KNOCKTWICE_SENTRY_DSN",
    "TWILIO_AUTH_TOKEN",
)

#: Settings that are objects, with an example of each.
_OBJECTS = {
    "sms_prices": '{"US": 0.0083}',
    "whatsapp_prices": '{"US": 0.0084}',
    "trial": '{"sms_per_day": 5}',
}

#: Settings that are lists, with an example of each.
_LISTS = {
    "sms_countries": '["DE", "AT"]',
    "number_kinds": '["mobile"]',
    "user_tags": '["city"]',
    "sms_retry_unknown": '["critical"]',
    "webhook_urls": '["https://shop.example/hooks"]',
    "gateway_origins": '["https://shop.example"]',
    "flower_operators": '["ada"]',
    "gateway_metrics_from": '["10.0.0.0/8"]',
    "gateway_proxies": '["10.0.0.0/8"]',
}

#: Settings that an empty variable leaves unset, as env files and Compose write them.
OPTIONAL = (
    "database_url",
    "broker_url",
    "state_url",
    "outbox_database_url",
    "secret",
    "default_region",
    "receipt_secret",
    "user_token_secret",
    "webhook_secret",
    "sentry_dsn",
    "fcm_project",
    "google_application_credentials",
    "twilio_account_sid",
    "twilio_auth_token",
    "twilio_from",
    "whatsapp_from",
    "sms_providers_file",
    "projects_file",
    "public_url",
    "link_url",
    "onesignal_title",
    "onesignal_sms_fallback",
    "heartbeat_file",
    "cells_file",
    "cell",
)

CountryCode = Annotated[str, AfterValidator(country_code)]
PricedCountry = Annotated[str, AfterValidator(lambda code: code if code == "*" else country_code(code))]
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _seconds(value: object) -> object:
    if not isinstance(value, str) or _is_number(value):
        return value
    return durations.parse(value, timedelta.max).total_seconds()


def _days(value: object) -> object:
    if not isinstance(value, str) or _is_number(value):
        return value
    try:
        days, rest = divmod(durations.parse(value, timedelta.max), timedelta(days=1))
    except ValueError:
        days, rest = 0, timedelta.max
    if rest:
        raise ValueError('must be whole days, like 90 or "90d"')
    return days


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


#: A span of time in seconds; as a text also with its unit, like ``10m``.
Span = Annotated[float, BeforeValidator(_seconds)]
Seconds = Annotated[Span, Field(ge=0)]
#: A number of whole days; as a text also ``90d``.
Days = Annotated[int, BeforeValidator(_days)]
#: How often in a second; 0 is no limit.
PerSecond = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value))
    except ValueError:
        raise ValueError("must be addresses and networks, like 10.0.0.0/8 or 192.0.2.7") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


def _origin(value: str) -> str:
    # "*" and "null" are no origins: every page, and every file and sandboxed frame, would be let in.
    if not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?", value):
        raise ValueError("must be origins in lower case, without a path, like https://shop.example")
    return value


def _code_text(value: str) -> str:
    # Only who changes the text waits for the template engine to load.
    from knocktwice_worker.content.liquid import BrokenTemplate, variables

    try:
        used = variables(value)
    except BrokenTemplate as error:
        raise ValueError(str(error)) from None
    if used != {"code"}:
        raise ValueError("must be a text with {{ code }} in it, and no other variable")
    return value


CodeText = Annotated[str, AfterValidator(_code_text)]


#: Where a page comes from, as browsers write it in the header ``Origin``.
Origin = Annotated[str, AfterValidator(_origin)]


class UnconfirmedPolicy(StrEnum):
    """The meaning of ``not_delivered`` for devices whose kind never confirms a delivery."""

    #: The SMS goes out, as for all other devices.
    TEXT = "text"
    #: The push counts as delivered, so no SMS goes out.
    ACCEPT = "accept"
    #: The SMS goes out unless the person clicks in time.
    NOT_CLICKED = "not_clicked"


class BrakeMode(StrEnum):
    """What a brake does with messages of one kind."""

    #: It holds them.
    ON = "on"
    #: They go; doctor, log and webhooks say what would have been held.
    WATCH = "watch"
    #: It does not concern them.
    OFF = "off"


class PumpingMode(StrEnum):
    """What the pumping guard does with messages to suspicious numbers."""

    #: Nobody looks.
    OFF = "off"
    #: They go; doctor, Flower, log, metrics and webhooks say how many would have been stopped.
    MONITOR = "monitor"
    #: A few go each minute; the others wait for their turn.
    SLOW = "slow"
    #: All wait for an operator.
    HOLD = "hold"


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
        return _hours(value)

    @model_validator(mode="after")
    def _reserve_is_part_of_the_budget(self) -> Self:
        if self.sms_budget_reserve > self.sms_budget:
            raise ValueError("sms_budget_reserve must not be more than sms_budget, of which it is a part")
        return self

    @property
    def budget(self) -> Budget:
        """SMS parts per day."""
        return _budget(self)

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
        return {category: span for category, span in _useless_after(self).items() if span}


class ConfigurationError(KnocktwiceError):
    """A setting is missing or absurd: mend the named variable and start again."""


class Settings(BaseSettings):
    """The settings of an installation. Times are seconds, or a text like ``10m``; ``0`` switches a limit off."""

    model_config = SettingsConfigDict(env_prefix="KNOCKTWICE_", extra="ignore", frozen=True, populate_by_name=True)

    home: Path = Field(Path(".knocktwice"), description="Folder of the embedded servers' data.")
    database_url: str | None = Field(None, description="PostgreSQL, as postgresql://…; empty: the embedded server.")
    database_pooled: bool = Field(
        False, description="The database's address is that of PgBouncer in transaction mode; see docs/pgbouncer.md."
    )
    broker_url: str | None = Field(
        None,
        description="Redis or Valkey, as redis://…, rediss://… or sentinel://…, or RabbitMQ, as amqp://… or amqps://…; "
        "empty: the embedded server.",
    )
    state_url: str | None = Field(
        None,
        description="With RabbitMQ as the broker, the Redis or Valkey that keeps what was accepted; see docs/rabbitmq.md.",
    )
    cells_file: Path | None = Field(
        None, description="TOML file of the cells, among which people are shared out; see docs/cells.md."
    )
    cell: str | None = Field(None, description="The name of this installation in the file of cells.")
    secret: SecretStr | None = Field(
        None, description="Key for hashing numbers and signing URLs; empty: one is made and kept in the home folder."
    )
    log_json: bool = Field(False, description="Log lines as JSON.")
    sentry_dsn: SecretStr | None = Field(
        None, description="Where unexpected errors are reported: kinds and places in the code, nothing of a person."
    )
    traces_share: float = Field(
        0,
        ge=0,
        le=1,
        description="Share of the notifications whose traces go to OpenTelemetry (OTEL_EXPORTER_OTLP_ENDPOINT).",
    )
    metrics: bool = Field(True, description="Processes count what they do, for Prometheus and doctor.")
    heartbeat_file: Path | None = Field(
        None,
        description="A file that worker and beat touch every few seconds while they work, for probes of containers.",
    )

    # Countdown and recovery
    min_after_s: Seconds = Field(0, description="Shortest fallback delay accepted.")
    max_after_s: Seconds = Field(AFTER_LIMIT.total_seconds(), description="Longest fallback delay accepted.")
    max_ahead_days: Days = Field(90, ge=0, le=3650, description="How far ahead send_at may lie.")
    tick_s: Span = Field(0.5, gt=0, le=60, description="How often each worker looks for rows that are due.")
    lease_s: Span = Field(60, gt=0, description="After this long without an answer a step is taken up again.")
    inbox_grace_s: Span = Field(30, gt=0, description="An accepted message not in Postgres by then is published again.")
    stop_grace_s: Span = Field(
        25, gt=0, description="After SIGTERM a worker finishes its tasks for so long; then it leaves them to others."
    )
    backlog_messages: int = Field(
        BACKLOG_MESSAGES,
        ge=1,
        description="Accepted messages not in Postgres yet; beyond that notifications are refused, and receipts, "
        "cancellations and changes of people half as many later.",
    )
    backlog_bytes: int = Field(
        BACKLOG_BYTES, ge=1, description="The same in bytes; Redis needs two to five times that."
    )
    durability: Durability = Field(
        Durability.MEMORY,
        description="What accepted means of a message, for the gateway and the command line: memory, disk or replica.",
    )
    durability_replicas: int = Field(1, ge=1, description="How many replicas must have it, with replica.")
    outbox_database_url: str | None = Field(
        None, description="An application's PostgreSQL, whose outbox `knocktwice outbox relay` publishes."
    )
    await_accepted_s: Seconds = Field(
        180,
        description="How long a decision waits for a receipt, cancellation or change that was accepted before it and cannot be carried out.",
    )
    ttl_grace_s: Seconds = Field(30, description="Push time-to-live beyond the fallback delay.")
    push_retry_s: Seconds = Field(
        3600, description="How long a push is retried that no device has yet; until then its fallback waits for it."
    )
    sms_retry_s: Seconds = Field(14_400, description="How long an SMS is retried while its provider asks for patience.")

    # When it is too late
    useless_after_critical_s: Span = Field(
        1_800, gt=0, description="So long after it was due a critical push or message is not sent any more."
    )
    useless_after_transactional_s: Span = Field(86_400, gt=0, description="The same of transactional ones.")
    useless_after_marketing_s: Span = Field(86_400, gt=0, description="The same of marketing, nights included.")

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

    # People
    device_stale_days: Days = Field(
        270, ge=0, le=3650, description="A device not seen for so many days is forgotten; FCM calls it stale by then."
    )

    # Retention
    retention_days: Days = Field(
        90,
        ge=0,
        le=36_500,
        description="What ended longer ago is deleted, with its texts, receipts and decisions; 0: never.",
    )

    inbound_days: Days = Field(
        90,
        ge=0,
        le=3650,
        description="How many days it is kept what people write to a sender; 0: only for a week that they wrote, without the words.",
    )

    reply_within_s: Seconds = Field(
        259_200,
        le=2_592_000,
        description="What a person writes answers the newest message to them that is younger; 0: it answers nothing.",
    )

    inbound_replies_per_h: int = Field(
        0,
        ge=0,
        le=100,
        description="SMS to one number per hour that answer what it wrote, as webhook endpoints say; 0: their answers are not read.",
    )

    # Later steps
    withdraw: bool = Field(
        True, description="A message of a later step takes the push off the screen, by a silent push to the app."
    )

    # Receipts
    receipt_secret: SecretStr | None = Field(
        None, description="Keys of receipt URLs, separated by commas, the first signs; empty: from KNOCKTWICE_SECRET."
    )
    receipt_days: Days = Field(
        7, ge=1, le=365, description="How many days after a push has expired its app may still report."
    )
    unconfirmed_policy: UnconfirmedPolicy = Field(
        UnconfirmedPolicy.TEXT,
        description="What not_delivered does where apps never report deliveries: text; accept, FCM's word is enough; "
        "or not_clicked, text who did not click.",
    )
    unconfirmed_sample: int = Field(
        500, ge=1, description="Pushes in seven days from which one can tell whether a kind of device reports them."
    )
    unconfirmed_share: float = Field(
        0.01, ge=0, le=1, description="A kind of device that reports less than this share of them never reports."
    )

    # Apps and pages
    user_token_secret: SecretStr | None = Field(
        None,
        description="Keys of user tokens, separated by commas, the first signs; empty: KNOCKTWICE_SECRET. "
        "See docs/phones-and-pages.md.",
    )
    user_token_per_s: PerSecond = Field(
        5, description="Requests per second that one person's apps and pages may make, to each process."
    )
    user_tags: frozenset[str] = Field(
        frozenset(),
        description='Tags that apps and pages may set for their own person, like ["plan", "interests"]; '
        "subscribed_to_push always.",
    )

    user_devices: int = Field(
        20,
        ge=0,
        le=10_000,
        description="Most devices that one person's apps and pages may register with user tokens; 0: no limit.",
    )

    phone_codes_per_h: int = Field(
        5,
        ge=0,
        le=100,
        description="Codes per hour by which one person proves a number, and to one number; 0: apps cannot bind numbers.",
    )
    phone_code_text: CodeText = Field(
        "{{ code }} is your code. It works for ten minutes.", description="The SMS with the code."
    )

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

    # FCM
    fcm_project: str | None = Field(None, description="Firebase project; empty: the credentials' own.")
    fcm_url: str = Field("https://fcm.googleapis.com", description="FCM's address; the sandbox's in tests.")
    google_application_credentials: Path | None = Field(
        None,
        validation_alias=AliasChoices("GOOGLE_APPLICATION_CREDENTIALS", "google_application_credentials"),
        description="Service account file of the Firebase project.",
    )

    # Twilio
    twilio_account_sid: str | None = Field(
        None,
        validation_alias=AliasChoices("TWILIO_ACCOUNT_SID", "twilio_account_sid"),
        description="Twilio account.",
    )
    twilio_auth_token: SecretStr | None = Field(
        None, validation_alias=AliasChoices("TWILIO_AUTH_TOKEN", "twilio_auth_token"), description="Twilio auth token."
    )
    twilio_from: str | None = Field(
        None,
        description="Sender: a number in E.164, a short code, a name of at most 11 characters, or a Messaging Service (MG…).",
    )
    whatsapp_from: str | None = Field(
        None, description="WhatsApp sender in E.164, or a Messaging Service (MG…); empty: no WhatsApp."
    )
    twilio_url: str = Field("https://api.twilio.com", description="Twilio's address; the sandbox's in tests.")
    public_url: str | None = Field(
        None,
        max_length=100,
        pattern=r"^https?://[^\s/?#]+[^\s?#]*$",
        description="Where the world reaches the gateway; receipts and providers' callbacks go there.",
    )
    link_url: str | None = Field(
        None,
        max_length=100,
        pattern=r"^https?://[^\s/?#]+[^\s?#]*$",
        description="Another, shorter address of the gateway for the links in SMS; empty: KNOCKTWICE_PUBLIC_URL.",
    )
    sms_report_wait_s: Seconds = Field(
        86_400, description="How long to wait for a delivery report before the delivery counts as unknown."
    )
    sms_retry_unknown: frozenset[Category] = Field(
        frozenset({Category.CRITICAL}),
        description="Categories that prefer a second SMS to none when the provider's answer was lost.",
    )
    sms_unknown_grace_s: Seconds = Field(120, description="How long to look for a lost SMS in the provider's list.")

    # More SMS providers
    sms_providers_file: Path | None = Field(
        None, description="YAML or JSON file that describes further SMS providers; see docs/providers.md."
    )
    sms_provider_error_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of errors in a minute from which a provider is demoted, if there are others.",
    )
    sms_provider_sample: int = Field(10, ge=1, description="SMS in a minute from which that share can be told.")
    sms_provider_probe_s: Span = Field(
        30, gt=0, le=600, description="After so long one SMS tries whether a demoted provider works again."
    )

    # Projects
    projects_file: Path | None = Field(
        None, description="YAML or JSON file with the senders, limits and budgets of projects; see docs/projects.md."
    )

    # Webhooks to the application
    webhook_urls: frozenset[str] = Field(
        frozenset(), description='Where every event is told, like ["https://shop.example/hooks"]; see docs/webhooks.md.'
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Keys of webhook signatures, separated by commas, all sign and the first is shown; empty: from KNOCKTWICE_SECRET.",
    )
    webhook_private: bool = Field(False, description="Webhooks may go to private addresses, and over http.")
    webhook_give_up_s: Seconds = Field(259_200, description="An endpoint that fails for so long is disabled.")
    webhook_keep_days: Days = Field(30, ge=1, le=3650, description="How long events are kept for a replay.")

    # Workers and providers
    concurrency: int = Field(64, ge=1, le=200, description="Tasks that one worker process works on at once (threads).")
    provider_timeout_s: Span = Field(20, gt=0, le=300, description="Longest wait for a provider's answer.")
    push_per_s: PerSecond = Field(10_000, description="Pushes per second of all workers together; FCM's default quota.")
    sms_parts_per_s: PerSecond = Field(
        0,
        description="SMS parts per second for each sender, of all workers together; 0 leaves the pace to Twilio's queue.",
    )
    whatsapp_per_s: PerSecond = Field(
        80, ge=0, description="WhatsApp messages per second of all workers together; Twilio's usual limit of a sender."
    )
    provider_in_flight: int = Field(400, ge=1, description="Requests in flight per worker process.")

    # Flower
    flower_actions: bool = Field(
        False,
        description="Whoever may open Flower may also act in its tab Notifications: pause, resume, unmask, start blasts.",
    )
    flower_operators: frozenset[str] = Field(
        frozenset(),
        description='Only they act there, like ["ada", "bob@shop.example"]: names as Flower\'s login has them; all others read. '
        "None: flower_actions decides for all.",
    )

    # OneSignal's clients
    onesignal_title: str | None = Field(
        None,
        max_length=200,
        description="Title of pushes that OneSignal's clients send without headings: the app's name, which OneSignal shows; "
        "empty: such pushes are refused.",
    )
    onesignal_sms_fallback: str | None = Field(
        None,
        pattern=r"^(notifications_disabled|not_delivered|not_clicked)( after [0-9]+[smhd])?$",
        description='SMS behind pushes of OneSignal\'s clients that say nothing of it, like "not_clicked after 10m"; empty: none.',
    )

    # Gateway
    gateway_docs: bool = Field(False, description="The gateway shows its interface to everybody, at /docs.")
    gateway_body_bytes: int = Field(1_048_576, ge=1_024, description="Largest body that the gateway takes.")
    gateway_per_s: PerSecond = Field(1_000, description="Requests per second that one key may make.")
    gateway_address_per_s: PerSecond = Field(
        1_000, description="Requests per second without a key (receipts, links) from one address, to each process."
    )
    gateway_origins: frozenset[Origin] = Field(
        frozenset(),
        description='Pages that may call the gateway with a user token, like ["https://shop.example"]; none: no page.',
    )
    tpns_strict: bool = Field(
        False, description="A push of Tencent's is refused unless all of it can be met, its SMS and its looks included."
    )
    tpns_signature: Literal["[]", "【】", ""] = Field(
        "[]", description="How sms_sign_name stands before an SMS of Tencent's: [], 【】 or, empty, not at all."
    )
    pushwoosh_title: str = Field(
        "New message",
        min_length=1,
        description="The title of a push of Pushwoosh's that has none; often the app's name.",
    )
    gateway_metrics_from: frozenset[Network] = Field(
        frozenset(),
        description='Who may read /metrics without a key, like ["10.1.0.0/16"]; everybody else needs a key for admin.',
    )
    gateway_proxies: frozenset[Network] = Field(
        frozenset(),
        description='Proxies whose X-Forwarded-For is believed, like ["10.0.0.0/8"]; any other proxy is one address.',
    )

    @field_validator(*OPTIONAL, mode="before")
    @classmethod
    def _empty_means_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("broker_url")
    @classmethod
    def _broker_is_known(cls, value: str | None) -> str | None:
        if value is None or not rabbitmq.carries(value):
            return cls._is_redis(value)
        try:
            rabbitmq.parse(value)
        except ValueError:
            raise ValueError("is no URL of RabbitMQ, like amqp://user:password@host:5672/vhost") from None
        return value

    @field_validator("state_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        scheme = "" if value is None else value.partition("://")[0]
        if scheme == "sentinel":
            try:
                sentinels.parse(str(value))
            except ValueError:
                raise ValueError(
                    "is no URL of Sentinels, like sentinel://one:26379;sentinel://two:26379/0?master_name=mymaster"
                ) from None
        elif value is not None and scheme not in ("redis", "rediss", "redis+socket"):
            raise ValueError("must be Redis or Valkey: redis://, rediss://, redis+socket:///path or sentinel://")
        return value

    @field_validator("database_url", "outbox_database_url")
    @classmethod
    def _database_is_postgres(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"(?:postgres|postgresql(?:\+psycopg2)?)://.", value):
            raise ValueError("must be PostgreSQL, like postgresql://user@host/database")
        return value

    @field_validator("twilio_from")
    @classmethod
    def _can_send(cls, value: str | None) -> str | None:
        return None if value is None else senders.sender(value)

    @field_validator("whatsapp_from")
    @classmethod
    def _can_send_whatsapp(cls, value: str | None) -> str | None:
        if value is None:
            return None
        sender = senders.sender(value.removeprefix("whatsapp:"))
        if not sender.startswith(("+", "MG")):
            raise ValueError("must be a number in E.164, like +16505550100, or a Messaging Service (MG…)")
        return sender

    @field_validator("quiet_hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        return _hours(value)

    @field_validator("sms_day_zone", "default_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError("is not an IANA time zone such as UTC or Europe/Berlin") from error
        return value

    @model_validator(mode="after")
    def _state_has_a_place(self) -> Self:
        if self.broker_url is not None and rabbitmq.carries(self.broker_url):
            if self.state_url is None:
                raise ValueError(
                    "KNOCKTWICE_STATE_URL must be set: KNOCKTWICE_BROKER_URL is RabbitMQ, which only carries the queues; what "
                    "was accepted, limits and counters are kept in Redis or Valkey, like redis://host:6379/0"
                )
        elif self.state_url not in (None, self.broker_url):
            raise ValueError(
                "KNOCKTWICE_STATE_URL is for RabbitMQ only: Redis and Valkey are the place of state, too; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _providers_are_described(self) -> Self:
        if self.sms_providers_file is not None:
            try:
                told = file.read(str(self.sms_providers_file), built_in="twilio")
            except file.ProviderFileError as error:
                raise ValueError(f"KNOCKTWICE_SMS_PROVIDERS_FILE: {error}") from None
            naming = [provider.name for provider in told.providers if provider.names_callback]
            if naming and self.public_url is None:
                raise ValueError(
                    f"KNOCKTWICE_PUBLIC_URL must be set: the SMS provider {naming[0]} is told a callback_url"
                )
        return self

    @model_validator(mode="after")
    def _projects_are_described(self) -> Self:
        if self.projects_file is not None:
            try:
                project_file.read(str(self.projects_file))
            except project_file.ProjectFileError as error:
                raise ValueError(f"KNOCKTWICE_PROJECTS_FILE: {error}") from None
        return self

    @model_validator(mode="after")
    def _is_one_of_the_cells(self) -> Self:
        if (self.cells_file is None) != (self.cell is None):
            raise ValueError("KNOCKTWICE_CELLS_FILE and KNOCKTWICE_CELL go together")
        if self.cells_file is not None and self.cell is not None:
            try:
                cells.read(self.cells_file).named(self.cell)
            except KnocktwiceError as error:
                raise ValueError(f"KNOCKTWICE_CELL: {error}") from None
            if self.state_url is not None:
                raise ValueError("KNOCKTWICE_STATE_URL goes with RabbitMQ, which carries no cells")
            if self.secret is None:
                raise ValueError("KNOCKTWICE_SECRET must be set, and the same in all cells, which hash numbers with it")
            projects = self.projects()
            own = (limits.budget for limits in (*projects.limits.values(), *projects.trials.values()))
            budgets = [self.budget, self.trial.budget, *own]
            if any(budgets):
                raise ValueError("budgets cannot be counted over cells; set none where KNOCKTWICE_CELLS_FILE is set")
        return self

    @model_validator(mode="after")
    def _lease_outlasts_the_provider(self) -> Self:
        # A request waits for its turn and then for its answer; by the end of the lease somebody else would send it too.
        if self.lease_s <= 2 * self.provider_timeout_s:
            raise ValueError("KNOCKTWICE_LEASE_S must be more than twice KNOCKTWICE_PROVIDER_TIMEOUT_S")
        return self

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
        return _budget(self)

    def cells(self) -> Cells | None:
        """Read the file of cells; ``None``: this installation is alone."""
        return None if self.cells_file is None else cells.read(self.cells_file)

    def projects(self) -> Projects:
        """Read what projects have of their own, and which senders they share with the installation."""
        if self.projects_file is None:
            return Projects()
        shared = {self.twilio_from, self.whatsapp_from}
        if self.sms_providers_file is not None:
            shared |= {spec.sender for spec in file.read(str(self.sms_providers_file), built_in="twilio").providers}
        return Projects(project_file.read(str(self.projects_file)), frozenset(shared))

    @property
    def useless_after(self) -> dict[Category, timedelta]:
        """How long after it was due a push or message may still go out, by category."""
        return _useless_after(self)

    @property
    def phone_rules(self) -> Rules:
        """Which phone numbers are taken, and may be texted."""
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
    def error_reports_to(self) -> str | None:
        """Sentry's address, with its key."""
        return None if self.sentry_dsn is None else self.sentry_dsn.get_secret_value()

    @property
    def probe_wait(self) -> timedelta:
        """How much longer the share waits that shows who answers late."""
        return timedelta(seconds=self.probe_wait_s)

    @property
    def same_content(self) -> timedelta:
        """The time for which one text blocks its repeats to a number."""
        return timedelta(seconds=self.sms_same_content_s)

    @property
    def device_stale(self) -> timedelta:
        """The time after which an unseen device is forgotten; zero: never."""
        return timedelta(days=self.device_stale_days)

    @property
    def retention(self) -> timedelta:
        """The time after which finished notifications are deleted; zero: never."""
        return timedelta(days=self.retention_days)

    @property
    def inbound_kept(self) -> timedelta:
        """The time for which the words of texts that people write are kept."""
        return timedelta(days=self.inbound_days)

    @property
    def reply_within(self) -> timedelta:
        """How old a message may be that a reply answers."""
        return timedelta(seconds=self.reply_within_s)

    @property
    def receipt_valid(self) -> timedelta:
        """The time after a push's expiry in which receipts are still accepted."""
        return timedelta(days=self.receipt_days)

    @property
    def sms_report_wait(self) -> timedelta:
        """The longest wait for a delivery report."""
        return timedelta(seconds=self.sms_report_wait_s)

    @property
    def link_address(self) -> str | None:
        """The address of short links in messages; ``None`` if the installation has none."""
        return self.link_url or self.public_url

    @property
    def lease(self) -> timedelta:
        """The time for which a claim is valid."""
        return timedelta(seconds=self.lease_s)


def load() -> Settings:
    """Read the settings from the environment.

    Raises:
        ConfigurationError: a value is wrong, or a ``*_FILE`` cannot be read; the message names the variable.
    """
    for name in FROM_FILES:
        path = os.environ.get(f"{name}_FILE")
        if path:
            try:
                os.environ[name] = Path(path).read_text().strip()
            except OSError as error:
                raise ConfigurationError(f"{name}_FILE: cannot read {path}: {error.strerror}") from error
            except ValueError:
                # It is not in UTF-8, or holds a NUL, which no variable can.
                raise ConfigurationError(f"{name}_FILE: {path} is not a file of text in UTF-8") from None
    try:
        return Settings()
    except SettingsError as error:
        # A list that is not one; the cause's text quotes the value.
        field = next((name for name in Settings.model_fields if f'"{name}"' in str(error)), "a setting")
        like = _OBJECTS.get(field) or _LISTS.get(field, "[]")
        kind = "object" if field in _OBJECTS else "list"
        raise ConfigurationError(f"{variable(field)}: must be a JSON {kind}, like {like}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        if not first["loc"]:
            raise ConfigurationError(first["msg"].removeprefix("Value error, ")) from error
        raise ConfigurationError(f"{variable(str(first['loc'][0]))}: {problem(first)}") from error


def problem(error: ErrorDetails) -> str:
    """Return what is wrong with a setting; of one that has parts, with which part."""
    said = error["msg"].removeprefix("Value error, ")
    part = error["loc"][1] if error["loc"][:1] == ("trial",) and len(error["loc"]) > 1 else None
    return said if part is None else f"{part}: {said}"


def _hours(value: str) -> str:
    try:
        QuietHours.parse(value)
    except ValueError as error:
        raise ValueError("is not a span of hours such as 21:00-08:00") from error
    return value


def _budget(of: Settings | TrialRules) -> Budget:
    categories = {
        Category.TRANSACTIONAL: of.sms_budget_transactional,
        Category.MARKETING: of.sms_budget_marketing,
        Category.CRITICAL: of.sms_budget_critical,
    }
    return Budget(of.sms_budget, of.sms_budget_reserve, categories)


def _useless_after(of: Settings | TrialRules) -> dict[Category, timedelta]:
    return {
        Category.CRITICAL: timedelta(seconds=of.useless_after_critical_s),
        Category.TRANSACTIONAL: timedelta(seconds=of.useless_after_transactional_s),
        Category.MARKETING: timedelta(seconds=of.useless_after_marketing_s),
    }


def variable(field: str) -> str:
    """Return the environment variable that fills a field."""
    name = field.upper()
    return name if name in _NAMES_OF_OTHERS else f"KNOCKTWICE_{name}"
