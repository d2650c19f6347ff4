"""The figures before a blast: whom it would reach at what cost, and whether its budget allows that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from knocktwice_worker.blasts import preflight
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.cli.output import complain, out
from knocktwice_worker.cli.progress import progress
from knocktwice_worker.services import services

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select

    from knocktwice_shared.messages import Blast

#: Exit code of a blast that may cost more than its budget.
OVER_BUDGET = 3


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a blast may cost.

    Attributes:
        share: part of those pushed who will be texted.
        parts, cost: the most it may come to.
    """

    share: float | None
    parts: int | None
    cost: float | None

    @property
    def limited(self) -> bool:
        """Whether there is a most."""
        return self.parts is not None or self.cost is not None


def examined(conn: Connection, blast: Blast, budget: Budget, only: Select[Any] | None, *, show: bool) -> dict[str, Any]:
    """Return whom a blast would reach at what cost, as JSON; end the command if that is over its budget.

    Args:
        conn: an open transaction.
        blast: the blast.
        budget: what it may come to.
        only: the people that a file names; ``None``: all of the segment.
        show: print it, too.
    """
    here = services()
    with progress("counting people"):
        found = preflight.examine(
            conn, blast, here.settings, here.limits.limits, here.channels, share=budget.share, only=only
        )
    if show:
        _print_preflight(found)
    try:
        found.require(parts=budget.parts, cost=budget.cost)
    except preflight.OverBudget as error:
        complain(str(error))
        raise typer.Exit(OVER_BUDGET) from None
    return found.as_json()


def _print_preflight(found: preflight.Preflight) -> None:
    lines = [
        ("people", found.users),
        ("  get a push", found.push),
        ("  only an SMS", found.sms_only),
        ("  nothing", found.unreachable),
        ("cannot be texted", ""),
        ("  no number", found.no_phone),
        ("  opted out", found.opted_out),
        ("  no consent", found.no_consent),
        ("  country", found.country_blocked),
        ("  not reachable", found.untextable),
        ("  daily limit", found.capped),
        ("  shares a number", found.shared_number),
        ("quiet hours now", found.quiet),
    ]
    for name, value in lines:
        out.print(f"{name:18}{value:>10}".rstrip())
    likely = sum(channel.expected_cost for channel in found.channels.values())
    most = sum(channel.worst_cost for channel in found.channels.values())
    _say_cost("SMS parts, likely", found.expected_parts, found.expected_cost - likely, not found.unpriced)
    _say_cost("SMS parts, at most", found.worst_parts, found.worst_cost - most, not found.unpriced)
    for name, channel in found.channels.items():
        if channel.worst:
            called, known = CHANNELS[name].content.called, not channel.unpriced
            _say_cost(f"{called}, likely", channel.expected, channel.expected_cost, known)
            _say_cost(f"{called}, at most", channel.worst, channel.worst_cost, known)
    out.print(
        f"likely: {found.fallback_share:.0%} of those pushed are texted ({found.share_from})",
        markup=False,
        soft_wrap=True,
    )
    for unpriced, setting in found.lacking:
        out.print(f"no price for {', '.join(sorted(unpriced))}: see {setting}", soft_wrap=True)
    out.print("a dry run: nobody was notified")


def _say_cost(name: str, count: float, cost: float, known: bool) -> None:
    out.print(f"{name:18}{count:>10}" + (f", costs {cost:.2f}" if known and count else ""))
