"""People: who they are, as applications and apps say it.

Changes carry the time they happened; the latest wins, in whatever order they come. ``devices.py``, ``phones.py`` and
``tags.py`` have the rules for what each kind of change does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, text

from knocktwice_shared.messages import (
    AudienceChange,
    ConsentSet,
    DeviceRegistered,
    DeviceUnregistered,
    LoggedOutEverywhere,
    OptOutSet,
    PhoneBound,
    TagsSet,
    UserErased,
)
from knocktwice_worker.audience import devices, phones, tags
from knocktwice_worker.database.bulk import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import ReceiptEvent

_Change = TypeVar("_Change", bound=AudienceChange)

# The row of a user who is there already is locked, though nothing about it changes: an erasure locks the person first,
# too.
_USERS = text(f"""
INSERT INTO users (id)
SELECT id
FROM {rows("r", id="text")}
ORDER BY 1
ON CONFLICT (id) DO UPDATE SET
  updated_at = users.updated_at
WHERE false
""")


def apply(conn: Connection, changes: Sequence[AudienceChange]) -> None:
    """Apply changes, each only if nothing newer is known about its device, number, tag or consent.

    Every batch takes the kinds of changes in this order, and each kind by registration or user: so two batches about
    the same devices wait for each other instead of deadlocking.
    """
    people = sorted({c.user for c in changes if not isinstance(c, DeviceUnregistered | OptOutSet | UserErased)})
    if people:
        conn.execute(_USERS, {"id": people})
    described = _those(TagsSet, changes)
    devices.register(conn, _those(DeviceRegistered, changes))
    devices.unregister(conn, _those(DeviceUnregistered, changes))
    phones.bind(conn, _those(PhoneBound, changes))
    tags.describe(conn, described)
    phones.consent(conn, _those(ConsentSet, changes))
    devices.log_out_everywhere(conn, _those(LoggedOutEverywhere, changes))
    if described:
        tags.require_bounded(conn, sorted({c.user for c in described}))


def _those(kind: type[_Change], changes: Sequence[AudienceChange]) -> list[_Change]:
    return [change for change in changes if isinstance(change, kind)]


# At most once a day for each device, and never waiting for a transaction that holds its row: another receipt will come.
_SEEN = text(f"""
UPDATE devices d SET
  last_seen_at = seen.at
FROM (
  SELECT
    o.registration,
    r.at
  FROM devices o
  JOIN (
    SELECT
      registration,
      least(max(at), knocktwice_now()) AS at
    FROM {rows("s", registration="text", at="timestamptz")}
    GROUP BY registration
  ) r ON r.registration = o.registration
  WHERE o.last_seen_at < r.at - interval '1 day'
  FOR UPDATE OF o SKIP LOCKED
) seen
WHERE d.registration = seen.registration
""")


def see(conn: Connection, receipts: Sequence[ReceiptEvent]) -> None:
    """Note that the devices which sent receipts are alive, as far as the receipts name them."""
    named = [(r.registration, r.at) for r in receipts if r.registration is not None]
    if named:
        conn.execute(_SEEN, {"registration": [n for n, _ in named], "at": [at for _, at in named]})
