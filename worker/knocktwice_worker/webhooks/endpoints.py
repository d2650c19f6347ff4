"""The endpoints that get webhooks, as the setting or ``knocktwice webhooks`` declares them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from knocktwice_shared.errors import InvalidMessage, KnocktwiceError
from knocktwice_shared.messages import checks
from knocktwice_shared.test_side import side_of_tests
from knocktwice_worker.channels.registry import CHANNELS
from knocktwice_worker.lifecycle import OPEN, DeliveryState
from knocktwice_worker.notifications.inbox.dead_letters import PARKED
from knocktwice_worker.notifications.store import change_feed
from knocktwice_worker.notifications.store.alarms import BUDGET, NOT_AWAITED
from knocktwice_worker.webhooks import addresses

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

FOLLOWER = "webhooks"

#: What is told of the system as a whole.
ALARMS = ("brake.on", "brake.over", "brake.released", "pause.on", "pause.over", NOT_AWAITED, BUDGET, PARKED)

#: The one final report of a notification.
FINISHED = "notification.finished"

#: Somebody has seen elsewhere what a notification says.
SEEN = "notification.seen"

#: What is told of numbers: a text that a person wrote, and changes of the opt-outs.
INBOUND, OPTED_OUT, OPTED_IN = HEARD = ("inbound.text", "number.opted_out", "number.opted_in")


def types() -> tuple[str, ...]:
    """Return everything that is told: of the notification, the push, the channels' messages, of numbers, and alarms."""
    ends = [state for state in DeliveryState if state not in OPEN]
    return (
        "notification.accepted",
        *(f"push.{state}" for state in ends),
        "push.delivered",
        "push.clicked",
        *(f"{channel}.{end}" for channel in CHANNELS for end in (*ends, "delivered", "read", "replied", "undelivered")),
        SEEN,
        FINISHED,
        *HEARD,
        *ALARMS,
    )


class NoSuchEndpoint(KnocktwiceError):
    """There is no endpoint of that id: ``knocktwice webhooks list`` names them."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that gets the events.

    Attributes:
        events: types of events; none: all.
        personal: whether the person's user id, number and key are told, too.
        project: the only project of which it is told, or the test side of one; ``None``: it is told of all but tests.
        failing_since: nothing was taken since then.
        disabled_reason: why nothing is sent any more; ``None`` while it is.
        waiting: events not taken yet.
    """

    id: str
    url: str
    events: Sequence[str]
    personal: bool
    project: str | None
    failing_since: datetime | None
    last_error: str | None
    disabled_at: datetime | None
    disabled_reason: str | None
    waiting: int


def add(
    conn: Connection,
    url: str,
    events: Collection[str] = (),
    *,
    personal: bool = False,
    private: bool,
    project: str | None = None,
    test: bool = False,
) -> str:
    """Tell an endpoint from now on, and return its id.

    Args:
        project: tell it only of this project.
        test: tell it only of tests, of the project or of what belongs to none.

    Raises:
        InvalidMessage: the URL is not allowed or known already, there is no such event, or the project's name is none.
    """
    if project is not None:
        checks.project(project)
    if test:
        project = side_of_tests(project)
    url = addresses.check(url, private=private)
    if unknown := sorted(set(events) - set(types())):
        raise InvalidMessage("events", f"there is no {unknown[0]}; there are {', '.join(types())}")
    id_ = _insert(conn, url, events, personal, project)
    if id_ is None:
        raise InvalidMessage("url", "is an endpoint already; remove it first")
    return id_


def declare(conn: Connection, urls: Collection[str], *, private: bool) -> None:
    """Make endpoints of the setting's URLs, unless they are some already."""
    for url in sorted(urls):
        _insert(conn, addresses.check(url, private=private), (), personal=False)


_LIST = text("""
SELECT
  id,
  url,
  events,
  personal,
  project,
  failing_since,
  last_error,
  disabled_at,
  disabled_reason,
  (SELECT count(*) FROM webhook_deliveries d WHERE d.endpoint_id = e.id AND d.next_at IS NOT NULL) AS waiting
FROM webhook_endpoints e
ORDER BY since, id
""")


def list_all(conn: Connection) -> list[Endpoint]:
    """Return the endpoints."""
    return [Endpoint(**row._mapping) for row in conn.execute(_LIST)]


def get(conn: Connection, id_: str) -> Endpoint:
    """Return an endpoint.

    Raises:
        NoSuchEndpoint: there is none of that id.
    """
    found = next((endpoint for endpoint in list_all(conn) if endpoint.id == id_), None)
    if found is None:
        raise NoSuchEndpoint(f"there is no endpoint {id_}; knocktwice webhooks list names them")
    return found


_REMOVE = text("DELETE FROM webhook_endpoints WHERE id = :id")


def remove(conn: Connection, id_: str) -> None:
    """Forget an endpoint and what it was not told yet."""
    get(conn, id_)
    conn.execute(_REMOVE, {"id": id_})


# It is told from now on; an endpoint that was enabled already keeps its beginning.
_ENABLE = text("""
UPDATE webhook_endpoints SET
  disabled_at = NULL,
  disabled_reason = NULL,
  failing_since = NULL,
  failures = 0,
  resume_at = NULL,
  since = CASE WHEN disabled_at IS NULL THEN since ELSE knocktwice_now() END
WHERE id = :id
""")


def enable(conn: Connection, id_: str) -> None:
    """Send to a disabled endpoint again, first what waits. What happened meanwhile can be replayed."""
    get(conn, id_)
    _start_following(conn)
    conn.execute(_ENABLE, {"id": id_})


_INSERT = text("""
INSERT INTO webhook_endpoints (
  id,
  url,
  events,
  personal,
  project
) VALUES (
  :id,
  :url,
  CAST(:events AS text[]),
  :personal,
  :project
)
ON CONFLICT DO NOTHING
RETURNING id
""")


def _insert(
    conn: Connection, url: str, events: Collection[str], personal: bool, project: str | None = None
) -> str | None:
    _start_following(conn)
    id_ = f"ep_{secrets.token_hex(8)}"
    row = {"id": id_, "url": url, "events": sorted(set(events)), "personal": personal, "project": project}
    return conn.execute(_INSERT, row).scalar()


_NOW = text("SELECT knocktwice_now()")
_IS_ANYBODY_TOLD = text("SELECT 1 FROM webhook_endpoints WHERE disabled_at IS NULL LIMIT 1")
_SKIP = text("""
UPDATE followers SET
  seen_until = :now - interval '1 minute'
WHERE name = :name AND seen_until < :now
""")


def _start_following(conn: Connection) -> None:
    """Start to follow from now on. Changes from the time without an endpoint need not be read."""
    now: datetime = conn.execute(_NOW).scalar_one()
    change_feed.join(conn, FOLLOWER, now)
    if not conn.execute(_IS_ANYBODY_TOLD).first():
        conn.execute(_SKIP, {"now": now, "name": FOLLOWER})
