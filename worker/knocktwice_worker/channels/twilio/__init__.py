"""Twilio: SMS and WhatsApp messages through one account, with its signed callbacks and its list of sent messages.

No module outside this folder knows Twilio. The registry imports two names: :func:`open_sms`, which opens the provider
of SMS, and :data:`WHATSAPP`, the entry of WhatsApp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

from knocktwice_shared.channels import whatsapp as contract
from knocktwice_worker.channels.channel import OpenChannel, StepChannel
from knocktwice_worker.channels.sms import BuiltIn
from knocktwice_worker.channels.twilio import callbacks
from knocktwice_worker.channels.twilio.reports import TwilioReports
from knocktwice_worker.channels.twilio.sms import NAME, TwilioSmsChannel
from knocktwice_worker.channels.twilio.whatsapp import ContentTemplates, TwilioWhatsappChannel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import SecretStr

    from knocktwice_worker.channels.channel import Wiring
    from knocktwice_worker.channels.reports import Receiver


class Settings(Protocol):
    """The settings that Twilio's channels read."""

    @property
    def twilio_url(self) -> str:
        """The address of Twilio's API."""

    @property
    def twilio_account_sid(self) -> str | None:
        """The SID of the account."""

    @property
    def twilio_auth_token(self) -> SecretStr | None:
        """The account's auth token, which also signs callbacks."""

    @property
    def twilio_from(self) -> str | None:
        """The sender of SMS."""

    @property
    def whatsapp_from(self) -> str | None:
        """The sender of WhatsApp messages."""

    @property
    def public_url(self) -> str | None:
        """The address at which the internet reaches the gateway."""

    @property
    def sms_parts_per_s(self) -> float:
        """SMS parts per second for each sender."""

    @property
    def whatsapp_per_s(self) -> float:
        """WhatsApp messages per second."""

    @property
    def whatsapp_prices(self) -> Mapping[str, float]:
        """The price of one WhatsApp message, by country."""


def open_sms(wiring: Wiring) -> BuiltIn:
    """Return the account's provider of SMS."""
    settings = cast("Settings", wiring.settings)
    provider = TwilioSmsChannel(
        url=settings.twilio_url,
        account_sid=settings.twilio_account_sid,
        auth_token=_token(settings),
        sender=settings.twilio_from,
        public_url=settings.public_url,
        secret=wiring.secret,
        per_s=settings.sms_parts_per_s,
        books=_reports(wiring),
    )
    return BuiltIn(
        provider,
        sender=settings.twilio_from,
        has_account=bool(settings.twilio_account_sid),
        receivers=_receivers(wiring),
    )


def _open_whatsapp(wiring: Wiring) -> OpenChannel:
    settings = cast("Settings", wiring.settings)
    provider = TwilioWhatsappChannel(
        url=settings.twilio_url,
        account_sid=settings.twilio_account_sid,
        auth_token=_token(settings),
        sender=settings.whatsapp_from,
        public_url=settings.public_url,
        secret=wiring.secret,
        per_s=settings.whatsapp_per_s,
        books=_reports(wiring),
    )
    return OpenChannel(
        {NAME: provider},
        NAME,
        removed=lambda _: provider,
        sender=settings.whatsapp_from,
        silent=not settings.whatsapp_from,
        prices=settings.whatsapp_prices,
    )


#: The registry's entry of WhatsApp.
WHATSAPP = StepChannel(
    contract.CONTENT,
    noun="WhatsApp message",
    open=_open_whatsapp,
    wording=ContentTemplates(),
    sender_setting=TwilioWhatsappChannel.sender_setting,
    prices_setting="KNOCKTWICE_WHATSAPP_PRICES",
    previews_as="whatsapp/",
)
#: The addresses to which Twilio sends reports about messages of both channels, and texts that people write.
ROUTES = (callbacks.STATUS, callbacks.INBOUND)


def _token(settings: Settings) -> str | None:
    token = settings.twilio_auth_token
    return token.get_secret_value() if token else None


def _reports(wiring: Wiring) -> TwilioReports:
    settings = cast("Settings", wiring.settings)
    return TwilioReports(
        url=settings.twilio_url,
        account_sid=settings.twilio_account_sid,
        auth_token=_token(settings),
        secret=wiring.secret,
    )


def _receivers(wiring: Wiring) -> dict[str, Receiver]:
    settings = cast("Settings", wiring.settings)
    signed = {"public_url": settings.public_url, "token": _token(settings)}
    return {
        callbacks.STATUS.path: callbacks.StatusReceiver(_reports(wiring), **signed),
        callbacks.INBOUND.path: callbacks.InboundReceiver(**signed),
    }
