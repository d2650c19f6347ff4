"""Postpones marketing messages during their recipients' quiet hours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from knocktwice_worker.limits.quiet_hours import QuietHours, zones_of
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, kw_only=True)
class QuietGate:
    """Postpones marketing messages during quiet hours, and lets them pass otherwise.

    Attributes:
        hours: the quiet hours, in the recipient's local time.
        default_zone: IANA name of the zone to assume if neither a device nor the number tells one.
    """

    hours: QuietHours
    default_zone: str

    def postpone(self, conn: Connection, steps: Sequence[store.DueStep] | Sequence[store.ReservedStep]) -> set[str]:
        """Postpone messages to the end of their recipients' quiet hours. Receipts may still end them.

        Args:
            steps: steps with a number.

        Returns:
            The notification ids that are postponed now.
        """
        if not steps or self.hours.start == self.hours.end:
            return set()
        stated = store.time_zones(conn, [step.user_id for step in steps if step.user_id])
        until: dict[str, datetime] = {}
        for step in steps:
            zones = zones_of(step.number or "", stated.get(step.user_id or ""), self.default_zone)
            if end := self.hours.end_of(step.now, zones):
                until[step.notification_id] = end
        store.postpone_until(conn, until)
        return set(until)
