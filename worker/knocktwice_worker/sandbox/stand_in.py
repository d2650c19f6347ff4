"""Chooses the providers that the sandbox replaces: those without credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from knocktwice_worker.config import Settings

_FCM, _TWILIO = "FCM", "Twilio"


def missing(settings: Settings) -> list[str]:
    """Return the providers without credentials."""
    wanted = {_FCM: settings.google_application_credentials is None, _TWILIO: settings.twilio_account_sid is None}
    return [name for name, on in wanted.items() if on]


def all_missing(settings: Settings) -> bool:
    """Whether no provider has credentials, so that no request leaves this machine."""
    return len(missing(settings)) == 2 and settings.sms_providers_file is None


def chosen(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return what of the sandbox's environment replaces missing credentials.

    Args:
        environment: as :meth:`~knocktwice_worker.sandbox.Sandbox.environment` returns it.
        settings: the installation's.
    """
    wanted = missing(settings)
    return {name: value for name, value in environment.items() if (_TWILIO if "TWILIO" in name else _FCM) in wanted}
