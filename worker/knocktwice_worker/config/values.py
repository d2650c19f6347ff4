"""The kinds of values that settings have: spans of time, paces, networks, countries. Each is checked as it is read."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from knocktwice_worker.limits.quiet_hours import QuietHours
from knocktwice_worker.notation import durations
from knocktwice_worker.notation.countries import country_code


class Group(BaseModel):
    """Settings that belong together. Only :class:`~knocktwice_worker.config.settings.Settings` has values."""

    # Only Settings is ever filled, so no group needs a validator of its own: building seven takes a start's time.
    model_config = ConfigDict(frozen=True, defer_build=True)


#: A country as ISO 3166 has it, like DE.
CountryCode = Annotated[str, AfterValidator(country_code)]
#: A country, or ``*`` for every other one.
PricedCountry = Annotated[str, AfterValidator(lambda code: code if code == "*" else country_code(code))]
#: A price, in the currency of the account.
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
#: The same, or zero.
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


#: Addresses, as a network or a single one.
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


#: The text of an SMS with a code.
CodeText = Annotated[str, AfterValidator(_code_text)]
#: Where a page comes from, as browsers write it in the header ``Origin``.
Origin = Annotated[str, AfterValidator(_origin)]


def hours(value: str) -> str:
    """Return a span of hours such as 21:00-08:00, if it is one."""
    try:
        QuietHours.parse(value)
    except ValueError as error:
        raise ValueError("is not a span of hours such as 21:00-08:00") from error
    return value
