"""The judge: says from the evidence alone what went wrong. It knows nothing of how the system works."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from oracle import rules_of_content, rules_of_ends, rules_of_load, rules_of_order
from oracle.case import World
from oracle.violations import Finding, Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from oracle.case import Case
    from oracle.records import Evidence

#: What is judged notification by notification, and what across all of them.
_OF_EACH: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    rules_of_ends.lost,
    rules_of_content.twice,
    rules_of_order.after_click,
    rules_of_order.after_cancel,
    rules_of_content.under_limit,
    rules_of_ends.untold,
    rules_of_order.late,
    rules_of_ends.false_story,
    rules_of_order.push_after_sms,
    rules_of_order.texted_by_our_delay,
)
_OF_ALL: tuple[Callable[[World], Iterator[Finding]], ...] = (
    rules_of_ends.lost_receipt,
    rules_of_order.after_stop,
    rules_of_order.while_paused,
    rules_of_content.over_limit,
    rules_of_content.mismatch,
    rules_of_ends.stuck,
    rules_of_ends.leak,
    rules_of_load.poison,
    rules_of_load.overload,
)


def judge(evidence: Evidence) -> list[Finding]:
    """Return all violations, oldest first."""
    world = World(evidence)
    found = [finding for rule in _OF_EACH for case in world.cases.values() for finding in rule(case)]
    found += [finding for rule in _OF_ALL for finding in rule(world)]
    return sorted(found, key=lambda finding: finding.at)


def count(findings: Iterable[Finding]) -> dict[Violation, int]:
    """Return how many of each class there are, all classes in their order."""
    counted = Counter(finding.violation for finding in findings)
    return {violation: counted[violation] for violation in Violation}
