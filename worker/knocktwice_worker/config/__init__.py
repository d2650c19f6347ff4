"""Every setting, read once from the environment (``KNOCKTWICE_*``) and checked before anything starts.

Secrets may come from files instead: ``KNOCKTWICE_SECRET_FILE=/run/secrets/x`` fills ``secret``, and likewise for each
name in ``FROM_FILES``. The names the ecosystem already uses (``TWILIO_ACCOUNT_SID``, …) are accepted too.

One file has the settings of one subject. ``settings.py`` makes one value of them and has the rules that concern several
subjects. The room may import the contract, and rooms that read what a setting names, such as an operator's file.
"""

from __future__ import annotations

from knocktwice_worker.config.environment import FROM_FILES, ConfigurationError, load, problem, variable
from knocktwice_worker.config.guards import BrakeMode, PumpingMode
from knocktwice_worker.config.people import UnconfirmedPolicy
from knocktwice_worker.config.settings import OPTIONAL, Settings
from knocktwice_worker.config.values import CountryCode, Price, PricedCountry

__all__ = [
    "FROM_FILES",
    "OPTIONAL",
    "BrakeMode",
    "ConfigurationError",
    "CountryCode",
    "Price",
    "PricedCountry",
    "PumpingMode",
    "Settings",
    "UnconfirmedPolicy",
    "load",
    "problem",
    "variable",
]
