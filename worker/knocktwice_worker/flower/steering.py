"""The actions of operators on the pages: each action needs a reason, and leaves a line in the audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

from knocktwice_shared.errors import InvalidMessage
from knocktwice_shared.messages import THROTTLE_LIMIT, parse_blast
from knocktwice_shared.names import VERSION
from knocktwice_worker.blasts import preflight, request, standing, states
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.store import unknown
from knocktwice_worker.notifications.store.paused import Scope
from knocktwice_worker.switches import audit, pauses
from knocktwice_worker.webhooks import endpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from knocktwice_shared.messages import Blast
    from knocktwice_worker.blasts.preflight import Preflight
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


#: The fields of the forms that start, slow down and stop blasts.
BLAST_FIELDS = ("verb", "key", "segment", "template", "per_minute", "reason")
#: What may cost money is looked at before it is done.
LOOKS = {"look": "start", "look again": "resume"}


@dataclass(frozen=True, slots=True)
class Question:
    """The effect of a blast, shown before it is started or resumed.

    Attributes:
        verb: what is asked about.
        given: what the form said.
        found: whom it would reach now, and what that may cost.
        left: of a blast that had begun, the share of its people who were not notified; ``None``: it has not begun.
    """

    verb: str
    given: Mapping[str, str]
    found: Preflight
    left: float | None


def look(conn: Connection, here: Services, given: Mapping[str, str]) -> Question:
    """Return what a blast would do now. Nothing is written.

    Raises:
        InvalidMessage: it could not be started, or its words were deleted.
    """
    verb = LOOKS[given["verb"]]
    left = None
    if verb == "start":
        wanted: Blast | None = _wanted(given)
    else:
        found = standing.find(conn, given["key"])
        wanted = None if found is None else standing.asked(conn, found.id)
        left = None if found is None or not found.total else 1 - found.sent / found.total
    if wanted is None:
        raise InvalidMessage("key", "there is no such blast, or its words were deleted")
    seen = preflight.examine(conn, wanted, here.settings, here.limits.limits, here.channels)
    return Question(verb, given, seen, left)


def _wanted(given: Mapping[str, str]) -> Blast:
    wire: dict[str, Any] = {"v": VERSION, "key": given["key"].strip(), "content": {"template": given["template"]}}
    wire["segment"] = given["segment"]
    if given["per_minute"].strip():
        wire["throttle_per_min"] = _pace(given["per_minute"])
    return parse_blast(wire)


def _pace(typed: str) -> int:
    typed = typed.strip()
    if not (typed.isascii() and typed.isdecimal() and len(typed) < 10 and int(typed) <= THROTTLE_LIMIT):
        raise InvalidMessage("per_minute", "must be a whole number of people; 0 takes the throttle off")
    return int(typed)


def blast(conn: Connection, here: Services, given: Mapping[str, str], by: By) -> str | None:
    """Start, pause, resume, abort or throttle a blast; return why that is not possible, if so.

    Raises:
        InvalidMessage: it cannot be started so, or something in the form is wrong.
        TooSlow: it cannot go as slowly as that.
    """
    key, verb = given["key"], given["verb"]
    said: dict[str, object] = {}
    if verb == "start":
        wanted = _wanted(given)
        if not request.start(conn, wanted, settings=here.settings).new:
            return f"there was a blast {wanted.key} before; a key starts once"
        audit.note(conn, by, "start blast", {"blast": wanted.key})
        return None
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
        case "throttle":
            pace = _pace(given["per_minute"])
            said["per_minute"] = pace or "all"
            done = states.throttle(conn, found.id, pace or None)
        case _:
            raise InvalidMessage("verb", "must be start, pause, resume, throttle or abort")
    if not done:
        return f"blast {key} is {found.state}, so it cannot {verb}"
    audit.note(conn, by, f"{verb} blast", {"blast": found.key, **said})
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
