"""What operators do from the pages: each action needs a reason, and leaves a line in the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.blasts import standing, states
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.switches import audit, pauses

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.switches.audit import By

#: The fields of the form that sets a pause, and of the button that ends one.
FIELDS = ("verb", "id", "channel", "provider", "sender", "country", "template", "category", "for")


def switch(conn: Connection, given: Mapping[str, str], by: By, channels: Channels) -> None:
    """Set a pause, or end one.

    Raises:
        InvalidMessage: something in the form is wrong.
        NotPaused: the pause is over already.
    """
    if given["verb"] == "resume":
        if not (given["id"].isascii() and given["id"].isdecimal()):
            raise InvalidMessage("id", "must be the pause's number")
        pauses.resume(conn, Scope(), by, id_=int(given["id"]))
        return
    if given["verb"] != "pause":
        raise InvalidMessage("verb", "must be pause or resume")
    typed = {name: given[name].strip() or None for name in FIELDS}
    narrower = {name: typed[name] for name in ("provider", "sender", "country", "template", "category")}
    scope = pauses.checked(conn, pauses.named(typed["channel"], **narrower), channels)
    pauses.pause(conn, scope, by, span=pauses.span(typed["for"]))


def blast(conn: Connection, key: str, verb: str, by: By) -> str | None:
    """Pause, resume or abort a blast; return why that is not possible, if so."""
    found = standing.find(conn, key)
    if found is None:
        return f"there is no blast {key}"
    match verb:
        case "pause":
            done = states.pause(conn, found.id, by.reason)
        case "resume":
            done = states.resume(conn, found.id)
        case "abort":
            done = states.abort(conn, found.key, by.reason)
        case _:
            raise InvalidMessage("verb", "must be pause, resume or abort")
    if not done:
        return f"blast {key} is {found.state}, so it cannot {verb}"
    audit.note(conn, by, f"{verb} blast", {"blast": found.key})
    return None


_NUMBERS = text("""
SELECT phone AS number FROM notifications WHERE id = :id AND phone IS NOT NULL
UNION
SELECT ph.number
FROM notifications n
JOIN phones ph ON ph.user_id = n.user_id
WHERE n.id = :id AND ph.number IS NOT NULL
UNION
SELECT number FROM deliveries WHERE notification_id = :id AND number IS NOT NULL
""")


def unmask(conn: Connection, id_: str, by: By) -> list[str]:
    """Return the numbers of a notification, and write down who looked."""
    audit.note(conn, by, "unmask", {"notification": id_})
    return [row.number for row in conn.execute(_NUMBERS, {"id": id_})]
