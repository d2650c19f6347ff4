"""What operators do from the pages: each action needs a reason, and leaves a line in the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_worker.blasts import standing, states
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.store import unknown
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.switches import audit, pauses
from knocktwice_worker.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.services import Services
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
            done = states.abort(conn, found.key, by.reason, found.project)
        case _:
            raise InvalidMessage("verb", "must be pause, resume or abort")
    if not done:
        return f"blast {key} is {found.state}, so it cannot {verb}"
    audit.note(conn, by, f"{verb} blast", {"blast": found.key})
    return None


def mend(conn: Connection, here: Services, page: str, verb: str, about: str, by: By) -> str:
    """Do what a button on a list says; return what was done, in words.

    Raises:
        InvalidMessage: there is no such button, or what it is about is gone or cannot be so treated.
        NoSuchEndpoint: an endpoint is gone.
    """
    match page, verb:
        case "webhooks", "enable":
            endpoints.enable(conn, about)
            audit.note(conn, by, "enable webhook", {"endpoint": about})
            return "Events are sent there again."
        case "parked", "replay" | "drop":
            return _parked(conn, here, verb, about, by)
        case "unknown", "send" | "close":
            return _unknown(conn, here, verb, about, by)
    raise InvalidMessage("verb", "is not what this page can do")


def _parked(conn: Connection, here: Services, verb: str, about: str, by: By) -> str:
    known = about.isascii() and about.isdecimal() and len(about) < 19
    one = dead_letters.get(conn, int(about)) if known else None
    if one is None:
        raise InvalidMessage("id", f"there is no parked message {about} any more")
    audit.note(conn, by, verb, {"dead_letter": one.id, "task": one.task})
    if verb == "drop":
        dead_letters.drop(conn, one.id)
        return f"{one.id} is forgotten."
    return f"{one.id} is handed to the workers again ({here.inbox.replay(one)})."


def _unknown(conn: Connection, here: Services, verb: str, about: str, by: By) -> str:
    one = unknown.get(conn, *_step(about))
    if one is None:
        raise InvalidMessage("id", "its outcome is known by now, or it was taken as settled")
    audit.note(conn, by, f"{verb} unknown", {"notification": one.notification_id, "step": one.step})
    if verb == "close":
        unknown.close(conn, [one], reason=by.reason)
        return f"{one.notification_id} is taken as settled."
    way = (one.channel, one.provider)
    listable = {way} if here.channels.provider(*way).listable else set()
    if not unknown.reopen(conn, [one], reason=by.reason, listable=listable):
        raise InvalidMessage("id", "its plan went on, or its person was erased, so it is not sent again")
    return f"{one.notification_id} is taken up again."


def _step(about: str) -> tuple[str, int]:
    id_, _, step = about.partition("/")
    try:
        return str(UUID(id_)), int(step)
    except ValueError:
        raise InvalidMessage("id", "must be a notification's id and the number of its step") from None


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
