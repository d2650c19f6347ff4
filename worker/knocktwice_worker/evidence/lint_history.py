"""Findings about a plan that only history can give: whether the app reports at all, and how long it usually takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from knocktwice_shared.messages import When
from knocktwice_worker.audience import receipt_health
from knocktwice_worker.config import UnconfirmedPolicy
from knocktwice_worker.evidence.lint import Flaw, Rule, steps
from knocktwice_worker.notation import durations
from knocktwice_worker.reporting import delay_curve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from knocktwice_worker.config import Settings
    from knocktwice_worker.content.templates import Definition


def of_history(conn: Connection, made: Mapping[str, Definition], settings: Settings) -> Iterator[Flaw]:
    """Yield what is wrong with templates, by what became of earlier pushes.

    Args:
        made: name → template.
    """
    silent = [kind for kind in receipt_health.examine(conn, settings) if kind.silent]
    names = ", ".join(f"{kind.platform} {kind.app_version}".strip() for kind in silent)
    for name, template in made.items():
        place = "fallback.0" if isinstance(template.fallback, list) else "fallback"
        first = next(iter(steps(template)), None)
        if first is None or first.after is None:
            continue
        if first.when is When.NOT_DELIVERED and silent and settings.unconfirmed_policy is UnconfirmedPolicy.TEXT:
            yield Flaw(
                Rule.NEVER_REPORTED,
                f"templates.{name}.{place}.when",
                f"{names} never report a delivery, so everybody with them is texted",
                "let the app report (docs/receipts.md), use not_clicked, or set KNOCKTWICE_UNCONFIRMED_POLICY",
            )
        try:
            advice = delay_curve.advise(conn, name)
        except delay_curve.TooLittleHistory:
            continue
        if advice.when == first.when and advice.suggested is not None and first.after < advice.suggested:
            needless = next((p for p in advice.curve if p.after >= first.after), advice.curve[-1])
            yield Flaw(
                Rule.DELAY_TOO_SHORT,
                f"templates.{name}.{place}.after",
                f"waits {durations.written(first.after)}, but the app takes longer: of {advice.pushes} pushes about "
                f"{needless.confirmed_later} were confirmed after that, and texted needlessly",
                f"wait {durations.written(advice.suggested)}",
            )
