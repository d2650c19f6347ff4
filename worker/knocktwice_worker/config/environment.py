"""Reading the settings from the environment, and saying which variable is wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_settings import SettingsError

from knocktwice_shared.errors import KnocktwiceError
from knocktwice_worker.config.settings import Settings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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


class ConfigurationError(KnocktwiceError):
    """A setting is missing or absurd: mend the named variable and start again."""


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


def variable(field: str) -> str:
    """Return the environment variable that fills a field."""
    name = field.upper()
    return name if name in _NAMES_OF_OTHERS else f"KNOCKTWICE_{name}"
