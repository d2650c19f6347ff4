"""Pauses: set, ended and listed by operators. Workers see a change within half a second."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.errors import InvalidMessage, KnocktwiceError
from knocktwice_shared.messages import Category, senders
from knocktwice_worker.notation import durations
from knocktwice_worker.notation.countries import country_code
from knocktwice_worker.notifications.pipeline.pauses import PUSH_PROVIDER
from knocktwice_worker.notifications.store import alarms, paused
from knocktwice_worker.notifications.store.paused import PUSH, Scope
from knocktwice_worker.switches import audit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from knocktwice_worker.channels.opened import Channels
    from knocktwice_worker.switches.audit import By


#: What stands for all channels.
ALL = "all"
#: The longest time after which a pause ends by itself.
LONGEST = timedelta(days=365)
#: The largest number that a pause may have.
_LARGEST_ID = 2**63 - 1


class NotPaused(KnocktwiceError):
    """No pause covers exactly this: ``knocktwice switches`` lists those that are on."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A pause with what waits for it.

    Attributes:
        id: its number.
        scope: what it covers.
        drains: whether messages that are already decided still go.
        reason: why.
        since: when it was set.
        until: when it ends by itself; ``None``: it does not.
        ended_at: when it ended; ``None``: it is on.
        waiting: the messages that wait for it.
    """

    id: int
    scope: Scope
    drains: bool
    reason: str
    since: datetime
    until: datetime | None
    ended_at: datetime | None
    waiting: int

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        times = {name: at and at.isoformat() for name, at in (("until", self.until), ("ended_at", self.ended_at))}
        return {
            "id": self.id,
            **asdict(self.scope),
            "drains": self.drains,
            "reason": self.reason,
            "since": self.since.isoformat(),
            **times,
            "waiting": self.waiting,
        }

    def __str__(self) -> str:
        until = f" until {self.until:%Y-%m-%d %H:%M} UTC" if self.until else ""
        drains = ", draining" if self.drains else ""
        waits = {0: "nothing waits", 1: "1 waits"}.get(self.waiting, f"{self.waiting:,} wait")
        return f"{self.scope}{drains} since {self.since:%Y-%m-%d %H:%M} UTC{until} ({self.reason}): {waits}"


def named(channel: str | None, **narrower: str | None) -> Scope:
    """Return the scope that an operator has named.

    Args:
        channel: a channel, or :data:`ALL`.
        narrower: the other fields of the scope.

    Raises:
        InvalidMessage: nothing is named. Everything is paused only by its name.
    """
    scope = Scope(None if channel == ALL else channel, **narrower)
    if scope == Scope() and channel is None:
        raise InvalidMessage("channel", "say what: push, sms, another channel, all, or a narrower field")
    return scope


def span(value: str | None) -> timedelta | None:
    """Return after how long a pause ends by itself; ``None``: it does not.

    Args:
        value: as typed, like ``1h``.

    Raises:
        InvalidMessage: it is no time, none at all, or too long.
    """
    if value is None:
        return None
    try:
        found = durations.typed(value, LONGEST)
    except ValueError as error:
        raise InvalidMessage("for", str(error)) from None
    if not found:
        raise InvalidMessage("for", "must be longer than nothing")
    return found


_SET = text("""
INSERT INTO pauses (
  channel,
  provider,
  sender,
  country,
  template,
  category,
  drains,
  reason,
  until
)
VALUES (
  :channel,
  :provider,
  :sender,
  :country,
  :template,
  :category,
  :drains,
  :reason,
  knocktwice_now() + :span
)
RETURNING id
""")


def pause(conn: Connection, scope: Scope, by: By, *, span: timedelta | None = None, drains: bool = False) -> int:
    """Let messages wait, and return the pause's number.

    Args:
        scope: checked before by :func:`checked`.
        span: it ends by itself after so long; ``None``: it does not.
        drains: messages that are already decided still go.
    """
    given = {**asdict(scope), "drains": drains, "reason": by.reason, "span": span}
    id_ = int(conn.execute(_SET, given).scalar_one())
    said = {"pause": id_, **asdict(scope), "drains": drains, "for_s": span and span.total_seconds()}
    audit.note(conn, by, "pause", said)
    alarms.sound(conn, "pause.on", str(id_), {"pause": id_, "what": str(scope), "reason": by.reason})
    return id_


# Waits for the workers that are just letting messages wait for it, so that all of these are woken.
_END = text("""
UPDATE pauses SET ended_at = knocktwice_now()
WHERE NOT settled AND ended_at IS NULL AND (until IS NULL OR until > knocktwice_now())
  AND (:everything OR id = :id OR (CAST(:id AS bigint) IS NULL
    AND (channel, provider, sender, country, template, category) IS NOT DISTINCT FROM (
      CAST(:channel AS text),
      CAST(:provider AS text),
      CAST(:sender AS text),
      CAST(:country AS text),
      CAST(:template AS text),
      CAST(:category AS text))))
RETURNING id, channel, provider, sender, country, template, category
""")


def resume(conn: Connection, scope: Scope, by: By, *, id_: int | None = None, everything: bool = False) -> list[int]:
    """End the pauses with exactly this scope, and return their numbers. Workers then wake what waits.

    Args:
        id_: end the pause with this number instead.
        everything: end all pauses.

    Raises:
        NotPaused: there is none.
    """
    scope = _spelled(scope)
    # A number beyond those of the database is on as little as any other that is not.
    known = None if id_ is None else id_ if 0 < id_ <= _LARGEST_ID else 0
    found = conn.execute(_END, {**asdict(scope), "id": known, "everything": everything}).all()
    if not found:
        on = "; ".join(f"{one.id}: {one.scope}" for one in paused.active(conn)) or "nothing"
        what = f"pause {id_} is not on" if id_ is not None else f"{scope} is not paused"
        raise NotPaused(f"{what}; paused now: {on}")
    for row in found:
        ended = Scope(*row[1:])
        audit.note(conn, by, "resume", {"pause": row.id, **asdict(ended)})
        alarms.sound(conn, "pause.over", str(row.id), {"pause": row.id, "what": str(ended), "reason": by.reason})
    return [row.id for row in found]


_LIST = text("""
SELECT id, channel, provider, sender, country, template, category, drains, reason, since, until, ended_at, settled
FROM pauses
WHERE :everything OR NOT settled
ORDER BY settled, id DESC
LIMIT 200
""")


def list_all(conn: Connection, *, everything: bool = False) -> list[Standing]:
    """Return the pauses that are on, or whose messages are still being woken; or all of them."""
    return [
        Standing(
            row.id,
            Scope(*row[1:7]),
            row.drains,
            row.reason,
            row.since,
            row.until,
            row.ended_at,
            0 if row.settled else paused.count(conn, row.id),
        )
        for row in conn.execute(_LIST, {"everything": everything}).all()
    ]


_TEMPLATES = text("SELECT name FROM templates ORDER BY name")


def checked(conn: Connection, scope: Scope, channels: Channels) -> Scope:
    """Return a scope as messages spell it.

    Raises:
        InvalidMessage: something in it does not exist, so that nothing would wait; all problems are named.
    """
    carriers = {PUSH: [PUSH_PROVIDER], **{entry.name: sorted(opened.providers) for entry, opened in channels.all()}}
    problems: list[InvalidMessage] = []

    def known(field: str, value: str | None, among: Iterable[str]) -> None:
        names = list(among)
        if value is not None and value not in names:
            problems.append(InvalidMessage(field, f"there is no {value}; there are: {', '.join(names) or 'none'}"))

    known("channel", scope.channel, carriers)
    own = carriers.get(scope.channel) if scope.channel is not None else None
    known("provider", scope.provider, own or sorted({name for names in carriers.values() for name in names}))
    known("category", scope.category, [str(c) for c in Category])
    if scope.template is not None:
        known("template", scope.template, [row.name for row in conn.execute(_TEMPLATES)])
    country, sender = scope.country, scope.sender
    try:
        country = country if country is None else country_code(country.upper())
    except ValueError as error:
        problems.append(InvalidMessage("country", str(error)))
    try:
        sender = sender if sender is None else senders.sender(sender)
    except ValueError as error:
        problems.append(InvalidMessage("sender", str(error)))
    of_pushes = PUSH if scope.channel == PUSH else PUSH_PROVIDER if scope.provider == PUSH_PROVIDER else None
    if of_pushes and not (country is None and sender is None):
        field = "channel" if of_pushes == PUSH else "provider"
        problems.append(InvalidMessage(field, "a push has no sender and no country; pause sms instead"))
    if problems:
        raise InvalidMessage.of(problems)
    return Scope(scope.channel, scope.provider, sender, country, scope.template, scope.category)


def _spelled(scope: Scope) -> Scope:
    """Return a scope as :func:`checked` spelled it when it was paused; what does not exist stays as it is."""
    sender = scope.sender
    with suppress(ValueError):
        sender = sender and senders.sender(sender)
    return replace(scope, sender=sender, country=scope.country and scope.country.upper())
