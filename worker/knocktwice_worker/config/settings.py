"""All settings as one value, and the rules that concern several groups of them."""

from __future__ import annotations

from typing import Self

from pydantic import field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from knocktwice_shared import cells
from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.channels.http_sms import file
from knocktwice_worker.config.countdown import CountdownSettings
from knocktwice_worker.config.gateway import GatewaySettings
from knocktwice_worker.config.guards import GuardSettings
from knocktwice_worker.config.installation import InstallationSettings
from knocktwice_worker.config.people import PeopleSettings
from knocktwice_worker.config.providers import ProviderSettings
from knocktwice_worker.config.sms_rules import SmsRules
from knocktwice_worker.projects import file as project_file
from knocktwice_worker.projects.file import Projects

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


# pydantic takes the fields of the last class first: from the bottom up, this is their order in the documents.
class Settings(
    GatewaySettings,
    ProviderSettings,
    GuardSettings,
    PeopleSettings,
    SmsRules,
    CountdownSettings,
    InstallationSettings,
    BaseSettings,
):
    """The settings of an installation. Times are seconds, or a text like ``10m``; ``0`` switches a limit off."""

    model_config = SettingsConfigDict(
        env_prefix="KNOCKTWICE_", extra="ignore", frozen=True, populate_by_name=True, defer_build=False
    )

    @field_validator(*OPTIONAL, mode="before")
    @classmethod
    def _empty_means_unset(cls, value: object) -> object:
        return None if value == "" else value

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

    def projects(self) -> Projects:
        """Read what projects have of their own, and which senders they share with the installation."""
        if self.projects_file is None:
            return Projects()
        shared = {self.twilio_from, self.whatsapp_from}
        if self.sms_providers_file is not None:
            shared |= {spec.sender for spec in file.read(str(self.sms_providers_file), built_in="twilio").providers}
        return Projects(project_file.read(str(self.projects_file)), frozenset(shared))
