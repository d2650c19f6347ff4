"""Rules that are tried: which of them would have stopped a message that goes. They stop nothing.

Limits and budgets count their trial themselves (``limits/asks.py``), quiet hours in ``quiet.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.notation import phone_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from datetime import timedelta

    from knocktwice_shared.messages import Category
    from knocktwice_worker.config import Settings
    from knocktwice_worker.notifications import store


@dataclass(frozen=True, slots=True)
class Trial:
    """The rules about a number and about time that are tried.

    Attributes:
        numbers: which numbers would be texted; ``None``: that is not tried.
        countries: ISO codes of the countries whose numbers would get messages; empty: that is not tried.
        untextable_for: how long a number would be passed over that messages did not reach; zero: that is not tried.
        useless_after: how long after it was due a message would still go, by category.
    """

    numbers: phone_numbers.Rules | None
    countries: Collection[str]
    untextable_for: timedelta
    useless_after: Mapping[Category, timedelta]

    @classmethod
    def of(cls, settings: Settings) -> Trial:
        """Read them from the settings."""
        tried = settings.trial
        rules = replace(settings.phone_rules, kinds=tried.number_kinds) if tried.number_kinds else None
        return cls(rules, tried.sms_countries, tried.untextable_for, tried.useless_after)

    def refusals(
        self,
        row: store.DueStep,
        category: Category,
        valid_for: timedelta | None,
        number: str | None,
    ) -> Iterator[Refusal]:
        """Yield why a message would not go that may.

        Args:
            row: its step.
            category: its category.
            valid_for: how long after it was due it is of use, if its batch says so itself.
            number: the number that it goes to; ``None``: its channel needs none.
        """
        useless_after = self.useless_after.get(category)
        if useless_after and valid_for is None and row.now - row.due_at > useless_after:
            yield Refusal.TOO_LATE
        if number is None:
            return
        if self.numbers is not None and phone_numbers.refusal(number, self.numbers) is not None:
            yield Refusal.INVALID_NUMBER
        if self.untextable_for and row.untextable_tried is not None:
            yield Refusal.UNTEXTABLE
        if self.countries and phone_numbers.country(number) not in self.countries:
            yield Refusal.COUNTRY_BLOCKED
