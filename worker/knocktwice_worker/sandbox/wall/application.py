"""The application behind the phones on the wall: it knows its people, notifies them and reads their stories.

It speaks to knocktwice as every application does, through the producer library. Only the stories come from the
database, as ``knocktwice explain`` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass
from sqlalchemy import text

from knocktwice import Push, Sms
from knocktwice_worker.reporting import story

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from knocktwice import Client
    from knocktwice_worker.sandbox.phones import Phone
    from knocktwice_worker.sandbox.wall.clock import Clock

_NOW = text("SELECT knocktwice_now()")
_NEXT = text("""
SELECT
  step,
  channel,
  state,
  wake_at
FROM deliveries
WHERE notification_id = :id AND wake_at IS NOT NULL
ORDER BY step
""")


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Draft:
    """The content of the compose box.

    Attributes:
        user: whom to notify.
        title, body: what the push shows.
        text: what the SMS says; empty: the push's body.
        when: the condition of the SMS; empty: no SMS follows.
        after_s: seconds until it is looked at.
        category: of the notification.
    """

    user: Annotated[str, Field(min_length=1)]
    title: str
    body: str
    text: str = ""
    when: str = "not_clicked"
    after_s: Annotated[float, Field(ge=0, le=30 * 86_400)] = 10
    category: str = "transactional"


DRAFT = TypeAdapter(Draft)


@dataclass(frozen=True)
class Application:
    """The calls that people at the wall can make an application do.

    Attributes:
        client: the producer library.
        engine: the database.
        clock: moves the time; ``None`` if the database is not this sandbox's own.
        gateway: the gateway's URL, for the example calls on the page.
    """

    client: Client
    engine: Engine
    clock: Clock | None = None
    gateway: str | None = None

    def register(self, phone: Phone) -> None:
        """Tell of a phone's owner, device and number, as an app does after login."""
        if phone.user is None:
            return
        self.client.register_device(
            phone.user,
            phone.registration,
            platform="android",
            notifications_enabled=phone.notifications_enabled,
        )
        if phone.number:
            self.client.bind_phone(phone.user, phone.number)

    def report_permission(self, phone: Phone) -> None:
        """Tell whether a phone shows pushes, as an app does when it comes to the front."""
        if phone.user is not None:
            self.client.register_device(
                phone.user, phone.registration, notifications_enabled=phone.notifications_enabled
            )

    def change_number(self, phone: Phone) -> None:
        """Tell of the owner's new number."""
        if phone.user is not None:
            self.client.bind_phone(phone.user, phone.number)

    def notify(self, draft: Draft) -> str:
        """Send what was composed; return the notification's id.

        Raises:
            InvalidMessage: what is wrong with it.
            BrokerUnavailable: nothing was sent.
        """
        after = timedelta(seconds=draft.after_s)
        sms = Sms(draft.text or None, when=draft.when, after=after) if draft.when else None
        push = Push(draft.title, draft.body)
        return str(self.client.notify(user=draft.user, push=push, sms=sms, category=draft.category))

    def cancel(self, id_: str) -> None:
        """Cancel a notification."""
        self.client.cancel(id_)

    def story(self, id_: str) -> dict[str, Any] | None:
        """Return the story of a notification so far, with what it waits for; ``None`` if no worker has written it."""
        with self.engine.connect() as conn:
            told = story.tell(conn, id_)
            if told is None:
                return None
            now = conn.execute(_NOW).scalar_one()
            return {
                "id": told.id,
                "user": told.user,
                "state": told.state,
                "reason": told.reason,
                "open": told.finished_at is None,
                "now": now.isoformat(),
                "next": _next(conn, told),
                "moments": [
                    {"at": m.at.isoformat(), "kind": m.kind, "sentence": m.sentence, "ahead": m.at > now}
                    for m in told.moments
                ],
            }


def _next(conn: Connection, told: story.Story) -> dict[str, Any] | None:
    """Return the open step that is looked at next, and when."""
    if told.finished_at is not None:
        return None
    row = conn.execute(_NEXT, {"id": told.id}).first()
    return None if row is None else {"channel": row.channel, "state": row.state, "at": row.wake_at.isoformat()}
