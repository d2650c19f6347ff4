"""The providers: FCM, Twilio, those of a file, the senders of projects, and how fast all may go."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, field_validator

from knocktwice_shared.messages import Category, senders
from knocktwice_worker.config.values import Group, PerSecond, Seconds, Span


class ProviderSettings(Group):
    """Providers and workers."""

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

    @property
    def sms_report_wait(self) -> timedelta:
        """The longest wait for a delivery report."""
        return timedelta(seconds=self.sms_report_wait_s)

    @property
    def link_address(self) -> str | None:
        """The address of short links in messages; ``None`` if the installation has none."""
        return self.link_url or self.public_url
