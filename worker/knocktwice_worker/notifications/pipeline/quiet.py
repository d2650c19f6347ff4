"""Holds marketing messages while it is night at their recipients'."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knocktwice_worker.limits.quiet_hours import QuietHours, zones_of
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row


@dataclass(frozen=True, kw_only=True)
class QuietGate:
    """Lets marketing messages pass outside quiet hours.

    Attributes:
        hours: the quiet hours, by the recipient's clock.
        default_zone: IANA name of the zone of recipients about whom nothing is known.
    """

    hours: QuietHours
    default_zone: str

    def hold(self, conn: Connection, rows: Sequence[Row[Any]]) -> set[str]:
        """Postpone messages to the end of their recipients' quiet hours; receipts may still end them.

        Args:
            rows: of ``notification_id, user_id, number, now``.

        Returns:
            The notification ids that wait now.
        """
        if not rows or self.hours.start == self.hours.end:
            return set()
        stated = store.time_zones(conn, [row.user_id for row in rows if row.user_id])
        until = {}
        for row in rows:
            zones = zones_of(row.number, stated.get(row.user_id), self.default_zone)
            if end := self.hours.end_of(row.now, zones):
                until[str(row.notification_id)] = end
        store.hold_until(conn, until)
        return set(until)
