"""Values that several settings have together, one for each category.

The rules in force and those on trial share them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from knocktwice_shared.messages import Category
from knocktwice_worker.limits.budget import Budget

if TYPE_CHECKING:
    from knocktwice_worker.config.countdown import CountdownSettings
    from knocktwice_worker.config.sms_rules import SmsRules
    from knocktwice_worker.config.trial import TrialRules


def budget(of: SmsRules | TrialRules) -> Budget:
    """Return the SMS parts per day."""
    categories = {
        Category.TRANSACTIONAL: of.sms_budget_transactional,
        Category.MARKETING: of.sms_budget_marketing,
        Category.CRITICAL: of.sms_budget_critical,
    }
    return Budget(of.sms_budget, of.sms_budget_reserve, categories)


def useless_after(of: CountdownSettings | TrialRules) -> dict[Category, timedelta]:
    """Return how long after it was due a push or message may still go out, by category."""
    return {
        Category.CRITICAL: timedelta(seconds=of.useless_after_critical_s),
        Category.TRANSACTIONAL: timedelta(seconds=of.useless_after_transactional_s),
        Category.MARKETING: timedelta(seconds=of.useless_after_marketing_s),
    }
