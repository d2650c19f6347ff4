"""Postpones marketing messages during their recipients' quiet hours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from knocktwice_worker.limits.quiet_hours import QuietHours, zones_of
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection


_NEVER = QuietHours.parse("")


@dataclass(frozen=True, slots=True)
class Asleep:
    """Notifications whose recipients have quiet hours now.

    Attributes:
        postponed: their messages are postponed.
        tried: their messages go, and the quiet hours that are tried would postpone them.
    """

    postponed: set[str] = field(default_factory=set)
    tried: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class QuietGate:
    """Postpones marketing messages during quiet hours, and lets them pass otherwise.

    Attributes:
        hours: the quiet hours, in the recipient's local time.
        default_zone: IANA name of the zone to assume if neither a device nor the number tells one.
        tried: quiet hours that are only tried.
    """

    hours: QuietHours
    default_zone: str
    tried: QuietHours = _NEVER

    def postpone(self, conn: Connection, steps: Sequence[store.DueStep] | Sequence[store.ReservedStep]) -> Asleep:
        """Postpone messages to the end of their recipients' quiet hours. Receipts may still end them.

        Args:
            steps: steps with a number.
        """
        if not steps or not (self.hours or self.tried):
            return Asleep()
        stated = store.time_zones(conn, [step.user_id for step in steps if step.user_id])
        until: dict[str, datetime] = {}
        tried: set[str] = set()
        for step in steps:
            zones = zones_of(step.number or "", stated.get(step.user_id or ""), self.default_zone)
            if end := self.hours.end_of(step.now, zones):
                until[step.notification_id] = end
            elif self.tried.end_of(step.now, zones):
                tried.add(step.notification_id)
        store.postpone_until(conn, until)
        return Asleep(set(until), tried)
