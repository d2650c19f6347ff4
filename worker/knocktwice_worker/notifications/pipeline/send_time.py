"""The send time of a scheduled notification. A notification that goes at once needs no query.

The rows of a scheduled notification are written when it is accepted. So its key is taken, its texts are known to be
complete, and it can be cancelled. Its devices are looked up only when it is due, because by then a phone may belong to
another user.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.messages import LocalTime
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.limits.quiet_hours import home_of
from knocktwice_worker.notifications import store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from zoneinfo import ZoneInfo

    from sqlalchemy import Engine

    from knocktwice_shared.messages import Batch, Recipient


@dataclass(frozen=True, slots=True)
class SendTimes:
    """The send times of a batch's notifications.

    Attributes:
        later: notification id → its send time, if this time is in the future; all others go now.
        problems: notification id → why its send time is not possible.
    """

    later: Mapping[str, datetime] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def send_times(
    engine: Engine, batch: Batch, *, default_zone: str, max_ahead_days: int, useful_for: timedelta
) -> SendTimes:
    """Resolve a batch's ``send_at`` for each recipient, by the database's clock.

    Args:
        default_zone: IANA name of the zone of recipients about whom nothing is known.
        max_ahead_days: how far ahead ``send_at`` may lie.
        useful_for: how far behind it may lie.
    """
    if batch.send_at is None:
        return SendTimes()
    with engine.begin() as conn:
        now: datetime = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
        if isinstance(batch.send_at, LocalTime):
            at = _local(conn, batch, batch.send_at.at, default_zone)
        else:
            at = dict.fromkeys((str(r.id) for r in batch.recipients), batch.send_at)
    too_far = (
        f"send_at: is more than KNOCKTWICE_MAX_AHEAD_DAYS ({max_ahead_days}) days ahead; send it when it is nearer"
    )
    last = now + timedelta(days=max_ahead_days)
    first = now - useful_for
    too_late = f"{Refusal.TOO_LATE}: send_at is over for longer than the message is of use"
    return SendTimes(
        {id_: moment for id_, moment in at.items() if now < moment <= last},
        {id_: too_far if moment > last else too_late for id_, moment in at.items() if not first <= moment <= last},
    )


def moment_in(zone: ZoneInfo, wall: datetime) -> datetime:
    """Return the moment at which the clocks of a zone show ``wall``, in UTC.

    Args:
        wall: a naive local time. A time that the clocks skip in spring is moved by the length of the change; of a time
            that occurs twice in autumn the first one counts.
    """
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def _local(conn: Connection, batch: Batch, wall: datetime, default: str) -> dict[str, datetime]:
    devices = _devices(conn, sorted({registration for r in batch.recipients for registration in r.registrations}))
    owners = {str(r.id): r.user or _first(devices, r, 0) or "" for r in batch.recipients}
    users = sorted({user for user in owners.values() if user})
    stated = store.time_zones(conn, users)
    numbers = _numbers(conn, [user for user in users if user not in stated])
    times: dict[str, datetime] = {}
    for r in batch.recipients:
        user = owners[str(r.id)]
        zone = _first(devices, r, 1) or stated.get(user)
        times[str(r.id)] = moment_in(home_of(r.phone or numbers.get(user, ""), zone, default), wall)
    return times


# Registered devices that the application named itself: their owners, and the zones that they have reported.
_DEVICES = text("SELECT registration, user_id, time_zone FROM devices WHERE registration = ANY(:registrations)")


def _devices(conn: Connection, registrations: list[str]) -> dict[str, tuple[str | None, str | None]]:
    if not registrations:
        return {}
    found = conn.execute(_DEVICES, {"registrations": registrations})
    return {row.registration: (row.user_id, row.time_zone) for row in found if row.user_id is not None}


def _first(devices: Mapping[str, tuple[str | None, str | None]], recipient: Recipient, column: int) -> str | None:
    """Return what the first of a recipient's registered devices that says anything says there."""
    return next((said for r in recipient.registrations if r in devices and (said := devices[r][column])), None)


# The number tells the zone of a person whose devices have not reported one.
_NUMBERS = text("SELECT user_id, number FROM phones WHERE user_id = ANY(:users) AND number IS NOT NULL")


def _numbers(conn: Connection, users: list[str]) -> dict[str, str]:
    if not users:
        return {}
    return {row.user_id: row.number for row in conn.execute(_NUMBERS, {"users": users})}
