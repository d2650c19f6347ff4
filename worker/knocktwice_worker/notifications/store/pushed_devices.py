"""The devices that were pushed to: those that show a push, and all that may."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, text

from knocktwice_shared.records import record
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import Note
from knocktwice_worker.notifications.store.first_steps import PushWork
from knocktwice_worker.notifications.store.trigger_sql import FOLLOW_UPS

if TYPE_CHECKING:
    from collections.abc import Sequence

# The ledger says whether they were withdrawn before. A message that only follows the push's success does not stand for
# it.
_SHOWN = text(f"""
SELECT a.notification_id, a.registration, coalesce(a.provider_id = '{STAND_IN}', false) FROM attempts a
WHERE a.notification_id = ANY(CAST(:ids AS uuid[])) AND a.state = 'sent' AND NOT EXISTS (
  SELECT FROM decisions l WHERE l.notification_id = a.notification_id AND l.verdict = '{Note.WITHDRAWN}')
  AND NOT coalesce((
    SELECT bool_and(coalesce(d.trigger IN {FOLLOW_UPS}, false)) FROM deliveries d
    WHERE d.notification_id = a.notification_id AND d.step > 0 AND d.state = 'sent'), false)
ORDER BY 1, 2
""")


@record
class ShownPush:
    """A push that a device got.

    Attributes:
        notification_id: for which notification.
        registration: the device.
        test: only the stand-in has it, and no device.
    """

    notification_id: str
    registration: str
    test: bool


def shown(conn: Connection, ids: Sequence[str]) -> list[ShownPush]:
    """Return the devices that got these notifications' pushes and were not told to remove them yet."""
    return [ShownPush(str(id_), *rest) for id_, *rest in conn.execute(_SHOWN, {"ids": list(ids)}).all()]


# A receipt may come before the provider's answer is recorded: until then the push is under way to the user's devices.
_ATTEMPTS = text("""
SELECT notification_id, registration FROM attempts WHERE notification_id = ANY(CAST(:ids AS uuid[]))
UNION
SELECT n.id, d.registration
FROM notifications n JOIN devices d ON d.user_id = n.user_id
WHERE n.id = ANY(CAST(:ids AS uuid[]))
""")


def attempts(conn: Connection, ids: Sequence[str]) -> list[PushWork]:
    """Return all devices to which these notifications are or were pushed, or may be pushed at this moment."""
    found = conn.execute(_ATTEMPTS, {"ids": list(ids)}).all()
    return [PushWork(str(id_), registration) for id_, registration in found]
