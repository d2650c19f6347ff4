"""Erasing a person: everything by which one could tell who it was goes, what was counted stays.

An erasure is done in small transactions, each of which may be the last: the message that asked for it stays in the
inbox until nothing is left to do, and a repeat finds what is left. It is repeated once on purpose. For a moment other
workers do not know of the erasure yet (see ``audience/erased.py``) and may accept what was said before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, text

from knocktwice_shared.messages import UserErased
from knocktwice_worker.audience import aliases, hwids, inbound_texts, opt_out_log, opt_outs, untextable
from knocktwice_worker.audience.erased import REFRESH
from knocktwice_worker.blasts import forgetting
from knocktwice_worker.lifecycle import Refusal
from knocktwice_worker.notation.phone_numbers import spellings
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.notifications.inbox.accepted import NotDoneYet
from knocktwice_worker.privacy import notifications
from knocktwice_worker.privacy.notifications import Person

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from redis import Redis
    from sqlalchemy import Engine

    from knocktwice_shared.messages import AudienceChange
    from knocktwice_worker.audience.erased import Erased
    from knocktwice_worker.limits.homes import CellCounting
    from knocktwice_worker.limits.per_number import RedisLimits

log = structlog.get_logger(__name__)

#: After this long every worker knows, and what it had begun before is committed.
SETTLED = 4 * REFRESH


class Unsettled(NotDoneYet):
    """Not everything is erased yet: do it again in a while. The message stays in the inbox."""


@dataclass(frozen=True, slots=True)
class _Traces:
    """The facts in the tables about a person before the erasure.

    Attributes:
        known: whether there is a row of the user.
        own: numbers that nobody else has.
        inline: those of them that are bound to the user: what was sent to them without naming a user is about this one.
        registrations: of the user's devices.
        now: the database's clock.
    """

    known: bool
    own: tuple[str, ...]
    inline: tuple[str, ...]
    registrations: tuple[str, ...]
    now: datetime


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """Erases people.

    Attributes:
        engine: for short transactions.
        redis: where the idempotency keys are.
        limits: the per-number limits, which count texts to hashed numbers.
        erased: who was erased, and when.
        secret: the installation's key, with which numbers that opted out are hashed.
    """

    engine: Engine
    redis: Redis
    limits: RedisLimits | CellCounting
    erased: Erased
    secret: bytes

    def erase_all(self, changes: Sequence[AudienceChange]) -> None:
        """Erase the people whom changes want erased, as far as it goes.

        Raises:
            Unsettled: as :meth:`erase`, after all were tried.
        """
        unsettled = None
        for change in changes:
            if isinstance(change, UserErased):
                try:
                    self.erase(change.user, change.at)
                except Unsettled as error:
                    unsettled = error
        if unsettled is not None:
            raise unsettled

    def erase(self, user: str, at: datetime) -> None:
        """Erase what was said of a user until ``at``, and what became of it.

        Raises:
            Unsettled: some of it is in the hands of other workers.
        """
        with self.engine.begin() as conn:
            until, settled = self.erased.note(conn, user, at, SETTLED)
        with self.engine.begin() as conn:
            found = _traces(conn, user, until)
        # Of a person who has not come back, what was begun before the erasure and written after it goes, too: a blast's
        # page.
        begun = until if found.known else found.now
        person = Person(user, found.inline, begun)
        # The texts that are due are cancelled before the number leaves the opt-outs. It stays bound till the end, and
        # they would go to it.
        notifications.cancel_open(self.engine, person)
        self.limits.forget(found.own, found.now)
        with self.engine.begin() as conn:
            _forget_opt_outs(conn, found.own, self.secret)
            inbound_texts.forget_numbers(conn, found.own)
            opt_out_log.forget_numbers(conn, found.own)
            untextable.forget(conn, found.own)
        with self.engine.begin() as conn:
            forgetting.forget_user(conn, user, notifications.first_id_after(begun))
        erased, busy = notifications.erase(self.engine, self.redis, person)
        dead_letters.erase(self.engine, user, found.own, found.registrations)
        if not busy:
            # Last, because what is left is found by these rows.
            with self.engine.begin() as conn:
                _forget_person(conn, user, until)
                forgetting.forget_cursor(conn, user)
        log.info("person erased", notifications=erased, busy=busy, settled=settled)
        if busy or not settled:
            raise Unsettled


OF_PERSON = text("""
SELECT
  EXISTS (SELECT FROM users WHERE id = :user) AS known,
  (
    SELECT array_agg(number)
    FROM phones
    WHERE user_id = :user AND number IS NOT NULL AND changed_at <= :until
  ) AS bound,
  (
    SELECT array_agg(DISTINCT d.number)
    FROM notifications n JOIN deliveries d ON d.notification_id = n.id
    WHERE coalesce(n.user_id, n.phone) = :user AND n.user_id = :user AND d.number IS NOT NULL
  ) AS texted,
  (
    SELECT array_agg(registration)
    FROM devices
    WHERE user_id = :user AND changed_at <= :until
  ) AS registrations,
  knocktwice_now() AS now
""")

# A number that another user has, too, is not forgotten with this one.
SHARED = text("SELECT number FROM phones WHERE number = ANY(:numbers) AND user_id <> :user")


def _traces(conn: Connection, user: str, until: datetime) -> _Traces:
    found = conn.execute(OF_PERSON, {"user": user, "until": until}).one()
    bound = set(found.bound or ())
    numbers = bound.union(found.texted or ())
    shared = {row.number for row in conn.execute(SHARED, {"numbers": sorted(numbers), "user": user})}
    return _Traces(
        known=found.known,
        own=_under_every_spelling(numbers - shared),
        inline=_under_every_spelling(bound - shared),
        registrations=tuple(found.registrations or ()),
        now=found.now,
    )


def _under_every_spelling(numbers: set[str]) -> tuple[str, ...]:
    # What ended before numbers had one spelling is kept under the spelling of then.
    return tuple(sorted({one for number in numbers for one in spellings(number)}))


# The last look before the provider call is for the number. It leaves the list, so what is reserved for it is skipped
# here.
_RESERVED_FOR = text("""
SELECT
  notification_id,
  step
FROM deliveries
WHERE number = ANY(:numbers) AND state = 'reserved'
ORDER BY notification_id
FOR UPDATE
""")


def _forget_opt_outs(conn: Connection, numbers: Sequence[str], secret: bytes) -> None:
    gone = opt_outs.forget(conn, numbers, secret)
    if gone:
        waiting = conn.execute(_RESERVED_FOR, {"numbers": gone}).all()
        store.skip(conn, [store.Decision(str(row.notification_id), Refusal.OPTED_OUT, {}, row.step) for row in waiting])


# The row of the user is locked first, so that the statements after it see a device that is registered at this moment.
_LOCK_PERSON = text("SELECT FROM users WHERE id = :user FOR UPDATE")

# Messages after ``until`` stay: the person may have come back under the same id.
_FORGET = (
    text("""
    DELETE FROM devices
    WHERE user_id = :user AND changed_at <= :until
    """),
    text("""
    UPDATE devices SET
      left_user = NULL,
      left_at = NULL
    WHERE left_user = :user AND left_at <= :until
    """),
    text("""
    UPDATE phones SET
      consented_at = NULL,
      consent_source = NULL,
      consent_changed_at = NULL
    WHERE user_id = :user AND consent_changed_at <= :until
    """),
    text("""
    UPDATE phones SET
      number = NULL,
      region = NULL,
      changed_at = to_timestamp(0)
    WHERE user_id = :user AND changed_at <= :until
    """),
    text("""
    DELETE FROM phones
    WHERE user_id = :user AND number IS NULL AND changed_at <= :until AND consent_changed_at IS NULL
    """),
    text("""
    UPDATE users u SET
      tags = coalesce((
        SELECT jsonb_object_agg(t.key, t.value)
        FROM jsonb_each(u.tags) t
        WHERE CAST(u.field_times ->> ('tags.' || t.key) AS timestamptz) > :until
      ), '{}'),
      locale = CASE WHEN CAST(u.field_times ->> 'locale' AS timestamptz) > :until THEN u.locale END,
      time_zone = CASE WHEN CAST(u.field_times ->> 'time_zone' AS timestamptz) > :until THEN u.time_zone END,
      field_times = coalesce((
        SELECT jsonb_object_agg(f.key, f.value)
        FROM jsonb_each(u.field_times) f
        WHERE CAST(f.value #>> '{}' AS timestamptz) > :until
      ), '{}')
    WHERE u.id = :user
    """),
    text("""
    DELETE FROM users u
    WHERE u.id = :user
      AND u.field_times = '{}'
      AND NOT EXISTS (SELECT FROM devices d WHERE d.user_id = u.id)
      AND NOT EXISTS (SELECT FROM phones p WHERE p.user_id = u.id)
    """),
)


def _forget_person(conn: Connection, user: str, until: datetime) -> None:
    conn.execute(_LOCK_PERSON, {"user": user})
    aliases.forget_user(conn, user, until)
    hwids.forget_user(conn, user, until)
    for statement in _FORGET:
        conn.execute(statement, {"user": user, "until": until})


_LEFT = text("""
SELECT
  (SELECT count(*) FROM users WHERE id = :user) AS users,
  (
    (SELECT count(*) FROM devices WHERE user_id = :user OR left_user = :user)
    + (SELECT count(*) FROM hwids WHERE user_id = :user)
  ) AS devices,
  (SELECT count(*) FROM phones WHERE user_id = :user) AS phones,
  (SELECT count(*) FROM aliases WHERE user_id = :user) AS aliases,
  (
    SELECT count(*) FROM notifications WHERE coalesce(user_id, phone) = :user AND user_id = :user
  ) AS notifications,
  (
    SELECT count(*) FROM blast_pages WHERE users IS NOT NULL AND users @> ARRAY[CAST(:user AS text)]
  ) AS blast_pages
""")


def left(conn: Connection, user: str) -> dict[str, int]:
    """Return how many rows name a user, by table: all 0 once the person is erased."""
    return dict(conn.execute(_LEFT, {"user": user}).one()._mapping)
