"""Erasing a person: everything by which one could tell who it was goes, what was counted stays.

It is done in small transactions, each of which may be the last: the message that asked for it stays in the inbox until
nothing is left to do, and a repeat finds what is left. It is repeated once on purpose, because for a moment other workers
do not know of it yet (see ``audience/erased.py``) and may accept what was said before.

States are changed by ``store`` alone; this empties columns that no state depends on.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from sqlalchemy import Connection, text

from knocktwice_shared.ids import created_at
from knocktwice_shared.messages import Batch, DeviceUnregistered, PhoneBound, Push, Recipient, UserErased
from knocktwice_shared.names import BATCH_LIMIT, key_name
from knocktwice_worker.audience import inbound_texts, opt_outs
from knocktwice_worker.audience.erased import REFRESH
from knocktwice_worker.blasts import store as blast_store
from knocktwice_worker.embedded.installation import secret
from knocktwice_worker.lifecycle import Verdict
from knocktwice_worker.notifications import store
from knocktwice_worker.notifications.inbox import dead_letters
from knocktwice_worker.webhooks import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from knocktwice_shared.messages import AudienceChange
    from knocktwice_worker.services import Services

log = structlog.get_logger(__name__)

#: After this long every worker knows, and what it had begun before is committed.
SETTLED = 4 * REFRESH

#: What stands for a content that was about nobody but the person.
_NOTHING = Push("", "")


class Unsettled(Exception):
    """Not everything is erased yet: do it again in a while. The message stays in the inbox."""


# -- before a message is processed ---------------------------------------------------------------------------------


def without_erased(here: Services, batch: Batch) -> Batch:
    """Return a batch in which nothing is said of people who were erased after it was made; theirs are cancelled.

    Costs no query, but for one in :data:`REFRESH`.
    """
    erased = here.erased.recall({r.user for r in batch.recipients if r.user is not None})
    if not erased:
        return batch
    void = [r.id for r in batch.recipients if r.user in erased and r.id and _was_made(r.id) <= erased[r.user]]
    if not void:
        return batch
    with here.engine.begin() as conn:
        store.cancel(conn, [str(id_) for id_ in void], [], datetime.now(UTC))
    left = replace(batch, recipients=tuple(Recipient(id=r.id) if r.id in void else r for r in batch.recipients))
    if len(void) < len(batch.recipients):
        return left
    left = replace(left, plan=(), reference={})
    return left if batch.template is not None else replace(left, push=_NOTHING, sms_text=None)


def still_valid(here: Services, conn: Connection, changes: Sequence[AudienceChange]) -> list[AudienceChange]:
    """Return the changes that nobody's erasure has made void."""
    told = [c for c in changes if not isinstance(c, UserErased)]
    until = here.erased.find(conn, {c.user for c in told if not isinstance(c, DeviceUnregistered)})
    for c in changes:
        if isinstance(c, UserErased):
            until[c.user] = max(c.at, until.get(c.user, c.at))
    return [c for c in told if isinstance(c, DeviceUnregistered) or c.user not in until or c.at > until[c.user]]


def restore_opt_outs(here: Services, conn: Connection, changes: Sequence[AudienceChange]) -> None:
    """Let an opt-out of somebody who was erased hold for whoever has the number now."""
    numbers = {c.phone for c in changes if isinstance(c, PhoneBound) and c.phone is not None}
    opt_outs.restore(conn, numbers, _secret(here))


def _was_made(id_: UUID) -> datetime:
    # An id of another kind does not say; it is taken for new, or nobody could ever come back.
    return created_at(id_) if id_.version == 7 else datetime.max.replace(tzinfo=UTC)


# -- erasing -------------------------------------------------------------------------------------------------------

_OF = text("""
SELECT (SELECT array_agg(number) FROM phones WHERE user_id = :user AND number IS NOT NULL AND changed_at <= :until) AS bound,
       (SELECT array_agg(DISTINCT d.number) FROM notifications n JOIN deliveries d ON d.notification_id = n.id
        WHERE coalesce(n.user_id, n.phone) = :user AND n.user_id = :user AND d.number IS NOT NULL) AS texted,
       EXISTS (SELECT FROM users WHERE id = :user) AS known,
       (SELECT array_agg(registration) FROM devices WHERE user_id = :user AND changed_at <= :until) AS registrations
""")

_SHARED = text("SELECT number FROM phones WHERE number = ANY(:numbers) AND user_id <> :user")

# Those that were made until then; an id that is no UUIDv7 does not say when, its row does.
_PAGE = text("""
SELECT n.id, n.key, n.batch_id, n.state = 'active' AS open
FROM notifications n
WHERE coalesce(n.user_id, n.phone) = ANY(:people) AND (n.user_id = :user OR (n.user_id IS NULL AND n.phone = ANY(:inline)))
  AND CASE WHEN substr(CAST(n.id AS text), 15, 1) = '7' THEN n.id < CAST(:boundary AS uuid) ELSE n.created_at <= :until END
  AND n.id > CAST(:after AS uuid)
ORDER BY n.id LIMIT :limit
""")

_SAY_ERASED = text("""
UPDATE notifications SET reason = 'erased' WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'cancelled'
""")

# What somebody is sending just now cannot be taken out of their hands.
# Locked before what belongs to them, as whoever deletes old ones does, too.
_DONE = text("""
SELECT n.id FROM notifications n WHERE n.id = ANY(CAST(:ids AS uuid[])) AND n.state <> 'active'
  AND NOT EXISTS (SELECT FROM deliveries d WHERE d.notification_id = n.id AND d.wake_at IS NOT NULL)
ORDER BY n.id FOR UPDATE
""")

# Reasons begin with a word of ours; what follows it may be a provider's, and quote a number or a token.
_BLANK = (
    text("""
    UPDATE deliveries SET number = NULL, text = NULL, fingerprint = NULL, reason = split_part(reason, ':', 1)
    WHERE notification_id = ANY(CAST(:ids AS uuid[]))
    """),
    text("""
    UPDATE attempts SET registration = 'erased-' || gen_random_uuid(), reason = split_part(reason, ':', 1)
    WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND NOT starts_with(registration, 'erased-')
    """),
    text("""
    UPDATE events SET registration = 'erased-' || gen_random_uuid()
    WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND registration <> '' AND NOT starts_with(registration, 'erased-')
    """),
    # An address may hold a name or an order; what it leads to is known to the application.
    text("DELETE FROM links WHERE notification_id = ANY(CAST(:ids AS uuid[]))"),
    text("UPDATE decisions SET inputs = '{}' WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND inputs <> '{}'"),
    text("""
    UPDATE notifications SET user_id = NULL, phone = NULL, params = '{}', key = NULL, locale = NULL,
      reason = split_part(reason, ':', 1)
    WHERE id = ANY(CAST(:ids AS uuid[]))
    """),
)

# A template's content is nobody's; what was written for these people alone may name them.
_BLANK_BATCHES = text("""
UPDATE batches b SET reference = '{}', plan = NULL, content = CASE WHEN b.content ? 'template' THEN b.content
  ELSE '{"push": {"title": "", "body": "", "data": {}, "link": null, "image": null}, "sms": null}' END
WHERE b.id = ANY(CAST(:batches AS uuid[]))
  AND NOT EXISTS (SELECT FROM notifications n WHERE n.batch_id = b.id AND n.id <> ALL(CAST(:ids AS uuid[])))
""")

_WAITING_FOR = text("""
SELECT notification_id, step FROM deliveries WHERE number = ANY(:numbers) AND state = 'reserved'
ORDER BY notification_id FOR UPDATE
""")

# Locked first, so that a device registered at this moment is seen by the statements that follow.
_PERSON = text("SELECT FROM users WHERE id = :user FOR UPDATE")

_FORGET = (
    text("DELETE FROM devices WHERE user_id = :user AND changed_at <= :until"),
    text("""
    UPDATE phones SET consented_at = NULL, consent_source = NULL, consent_changed_at = NULL
    WHERE user_id = :user AND consent_changed_at <= :until
    """),
    text("""
    UPDATE phones SET number = NULL, region = NULL, changed_at = to_timestamp(0)
    WHERE user_id = :user AND changed_at <= :until
    """),
    text("""
    DELETE FROM phones WHERE user_id = :user AND number IS NULL AND changed_at <= :until AND consent_changed_at IS NULL
    """),
    text("""
    UPDATE users u SET
      tags = coalesce((SELECT jsonb_object_agg(t.key, t.value) FROM jsonb_each(u.tags) t
                       WHERE CAST(u.field_times ->> ('tags.' || t.key) AS timestamptz) > :until), '{}'),
      locale = CASE WHEN CAST(u.field_times ->> 'locale' AS timestamptz) > :until THEN u.locale END,
      time_zone = CASE WHEN CAST(u.field_times ->> 'time_zone' AS timestamptz) > :until THEN u.time_zone END,
      field_times = coalesce((SELECT jsonb_object_agg(f.key, f.value) FROM jsonb_each(u.field_times) f
                              WHERE CAST(f.value #>> '{}' AS timestamptz) > :until), '{}')
    WHERE u.id = :user
    """),
    text("""
    DELETE FROM users u WHERE u.id = :user AND u.field_times = '{}'
      AND NOT EXISTS (SELECT FROM devices d WHERE d.user_id = u.id)
      AND NOT EXISTS (SELECT FROM phones p WHERE p.user_id = u.id)
    """),
)


def erase_all(here: Services, changes: Sequence[AudienceChange]) -> None:
    """Erase the people whom changes want erased, as far as it goes. Raises as :func:`erase`, when it has tried all."""
    unsettled = None
    for change in changes:
        if isinstance(change, UserErased):
            try:
                erase(here, change.user, change.at)
            except Unsettled as error:
                unsettled = error
    if unsettled is not None:
        raise unsettled


def erase(here: Services, user: str, at: datetime) -> None:
    """Erase what was said of a user until ``at``, and what became of it.

    Raises:
        Unsettled: some of it is in the hands of other workers.
    """
    with here.engine.begin() as conn:
        until, settled = here.erased.note(conn, user, at, SETTLED)
    with here.engine.begin() as conn:
        found = conn.execute(_OF, {"user": user, "until": until}).one()
        numbers = {*(found.bound or ()), *(found.texted or ())}
        shared = {row.number for row in conn.execute(_SHARED, {"numbers": sorted(numbers), "user": user})}
        own = sorted(numbers - shared)
        now = conn.execute(text("SELECT knocktwice_now()")).scalar_one()
    # What was given inline to a number that only this user has is about them, too.
    inline = sorted(set(found.bound or ()) - shared)
    # Of somebody who has not come back, what was begun before the erasure and written after it goes, too: a blast's page.
    begun: datetime = until if found.known else now
    people = {"user": user, "inline": inline, "people": [user, *inline], "until": begun}
    # Before the number leaves the list of those who want no texts: it stays bound till the end, and what is due would go to it.
    _cancel_open(here, people)
    here.limits.forget(own, now)
    with here.engine.begin() as conn:
        _forget_opt_outs(here, conn, own)
        inbound_texts.forget_numbers(conn, own)
    with here.engine.begin() as conn:
        blast_store.forget_user(conn, user, _first_id_after(begun))
    erased, busy = _erase_notifications(here, people)
    dead_letters.erase(here.engine, user, own, found.registrations or ())
    if not busy:
        # Last, because what is left is found by it.
        with here.engine.begin() as conn:
            conn.execute(_PERSON, {"user": user})
            for statement in _FORGET:
                conn.execute(statement, {"user": user, "until": until})
            blast_store.forget_cursor(conn, user)
    log.info("person erased", notifications=erased, busy=busy, settled=settled)
    if busy or not settled:
        raise Unsettled


_LEFT = text("""
SELECT (SELECT count(*) FROM users WHERE id = :user) AS users,
       (SELECT count(*) FROM devices WHERE user_id = :user) AS devices,
       (SELECT count(*) FROM phones WHERE user_id = :user) AS phones,
       (SELECT count(*) FROM notifications WHERE coalesce(user_id, phone) = :user AND user_id = :user) AS notifications,
       (SELECT count(*) FROM blast_pages WHERE users IS NOT NULL AND users @> ARRAY[CAST(:user AS text)]) AS blast_pages
""")


def left(conn: Connection, user: str) -> dict[str, int]:
    """Return how many rows name a user, by table: all 0 once the person is erased."""
    return dict(conn.execute(_LEFT, {"user": user}).one()._mapping)


def _first_page(people: dict[str, Any]) -> dict[str, Any]:
    boundary = str(_first_id_after(people["until"]))
    return {**people, "boundary": boundary, "after": str(UUID(int=0)), "limit": BATCH_LIMIT}


def _cancel_open(here: Services, people: dict[str, Any]) -> None:
    """Cancel what is under way, as ``cancellation.py`` does."""
    page = _first_page(people)
    while True:
        with here.engine.begin() as conn:
            rows = conn.execute(_PAGE, page).all()
            if not rows:
                return
            page["after"] = rows[-1].id
            pending = [str(row.id) for row in rows if row.open]
            store.note_cancelled(conn, pending, [], datetime.now(UTC))
        with here.engine.begin() as conn:
            store.settle_cancelled(conn, pending)
            conn.execute(_SAY_ERASED, {"ids": pending})


def _erase_notifications(here: Services, people: dict[str, Any]) -> tuple[int, int]:
    """Return how many notifications were erased, and how many somebody is working on."""
    page = _first_page(people)
    erased = busy = 0
    while True:
        with here.engine.begin() as conn:
            rows = conn.execute(_PAGE, page).all()
            if not rows:
                return erased, busy
            page["after"] = str(rows[-1].id)
            done = _cancel(conn, [str(row.id) for row in rows if row.open], [str(row.id) for row in rows])
            keys = [key_name(row.key) for row in rows if row.key and str(row.id) in done]
            if keys:
                here.redis.delete(*keys)
            events.erase(conn, done)
            for statement in _BLANK:
                conn.execute(statement, {"ids": sorted(done)})
            conn.execute(_BLANK_BATCHES, {"ids": sorted(done), "batches": sorted({str(row.batch_id) for row in rows})})
        erased, busy = erased + len(done), busy + len(rows) - len(done)


def _first_id_after(at: datetime) -> UUID:
    """Return the first UUIDv7 of the next millisecond."""
    return UUID(int=(int(at.timestamp() * 1000) + 1) << 80)


def _cancel(conn: Connection, pending: list[str], ids: list[str]) -> set[str]:
    """Cancel what is pending; return which of ``ids`` nobody works on any more."""
    if pending:
        store.cancel(conn, pending, [], datetime.now(UTC))
        conn.execute(_SAY_ERASED, {"ids": pending})
    return {str(row.id) for row in conn.execute(_DONE, {"ids": ids})}


def _forget_opt_outs(here: Services, conn: Connection, numbers: Sequence[str]) -> None:
    gone = opt_outs.forget(conn, numbers, _secret(here))
    if gone:
        # The last look before the provider call is for the number, which is no longer on the list.
        waiting = conn.execute(_WAITING_FOR, {"numbers": gone}).all()
        store.skip(conn, [store.Decision(str(row.notification_id), Verdict.OPTED_OUT, {}, row.step) for row in waiting])


def _secret(here: Services) -> bytes:
    return secret(here.settings).encode()
