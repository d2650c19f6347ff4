"""The messages of later steps on their way to the provider: reserved, claimed, and locked while it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.messages import Category
from knocktwice_shared.records import record
from knocktwice_worker.audience import channel_opt_outs
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import Note
from knocktwice_worker.notifications.store.braked import BRAKE, PUMPING, SINGLE
from knocktwice_worker.notifications.store.cancellations import note_aborted
from knocktwice_worker.notifications.store.state_sql import is_in
from knocktwice_worker.notifications.store.transitions import settle_answered
from knocktwice_worker.notifications.store.trigger_sql import ANSWERS, aborted_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

CATEGORIES: Mapping[str, Category] = {c.value: c for c in Category}


@record
class ReservedStep:
    """A message that waits for its sender.

    Attributes:
        notification_id: whose.
        category: what kind of message it is.
        fingerprint: hash of the text.
        step: which step.
        channel: by which channel it goes.
        user_id: the application's name of the recipient; ``None``: only a number was given.
        number, text, sender: as they will be sent.
        parts: of an SMS; ``None``: an earlier release did not count them.
        provider: who tried it last; ``None``: nobody, or the channel's usual provider.
        tries: how often it was tried.
        opted_out: the number asked not to be texted.
        consented: the person agrees to marketing, or the application gave the number with the message.
        theirs: the number is still the person's; always, if only a number was given.
        age: how long ago it was due.
        waited: how long ago it was reserved.
        now: the database's clock.
        valid_for: how long after it was due it is of use; ``None`` is the category's setting.
        brake: the brake that covers it; ``None``: none is on.
        braked: the brake that has held it before.
        single: whether it is neither a blast's nor marketing; looked up while a brake is on.
        pumping: the brake of the pumping guard that covers its number; ``None``: none is on.
        project: the project to which the notification belongs.
    """

    notification_id: str
    category: Category
    fingerprint: bytes
    step: int
    channel: str
    user_id: str | None
    number: str
    text: str
    parts: int | None
    sender: str | None
    provider: str | None
    tries: int
    opted_out: bool
    consented: bool
    theirs: bool
    age: timedelta
    waited: timedelta
    now: datetime
    valid_for: timedelta | None
    brake: int | None
    braked: int | None
    single: bool
    pumping: int | None
    project: str | None


#: The person agrees to marketing, or the application gave the number; and the number is still the person's.
_CONSENTED = "n.phone IS NOT NULL OR ph.consented_at IS NOT NULL"
_THEIRS = "n.user_id IS NULL OR coalesce(ph.number = d.number, false)"
_OPTED_OUT_OF_CHANNEL = channel_opt_outs.FORBIDS.format(number="d.number", channel="d.channel")

# Locked all at once and in the order in which receipts lock, so that the two wait for each other and never deadlock;
# and before anything else, so that the claim sees every receipt committed until then. Columns as in ReservedStep.
_RESERVED = text(f"""
WITH d AS (
  SELECT * FROM deliveries WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'reserved'
  ORDER BY notification_id FOR UPDATE
)
SELECT
  d.notification_id,
  b.category,
  d.fingerprint,
  d.step,
  d.channel,
  n.user_id,
  d.number,
  d.text,
  d.parts,
  d.sender,
  d.provider,
  d.tries,
  o.number IS NOT NULL OR {_OPTED_OUT_OF_CHANNEL},
  {_CONSENTED},
  {_THEIRS},
  knocktwice_now() - d.due_at,
  knocktwice_now() - coalesce(d.counted_at, knocktwice_now()),
  knocktwice_now(),
  b.valid_for,
  {BRAKE},
  d.brake,
  {SINGLE},
  {PUMPING.format(number="d.number")},
  n.project
FROM d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
LEFT JOIN phones ph ON ph.user_id = n.user_id
LEFT JOIN opt_outs o ON o.number = d.number
ORDER BY d.counted_at, d.notification_id
""")


def reserved(conn: Connection, ids: Sequence[str]) -> list[ReservedStep]:
    """Lock and return the reserved messages among ``ids``, oldest first, for the last look before the provider call."""
    found = conn.execute(_RESERVED, {"ids": list(ids)}).all()
    return [
        ReservedStep(str(id_), CATEGORIES[category], bytes(fingerprint), *rest)
        for id_, category, fingerprint, *rest in found
    ]


@record
class Placement:
    """The provider chosen for a message.

    Attributes:
        provider: its name.
        tries: how often the message had been tried when the choice was made.
    """

    provider: str
    tries: int


#: What stops a message at the last moment: a receipt, a cancellation, the end of its blast or an opt-out.
_NOT_STOPPED = f"""
  NOT EXISTS (SELECT FROM events e WHERE e.notification_id = d.notification_id AND {ANSWERS})
  AND {aborted_at("(SELECT n.batch_id FROM notifications n WHERE n.id = d.notification_id)")} IS NULL
  AND NOT EXISTS (SELECT FROM opt_outs o WHERE o.number = d.number)
  AND NOT {_OPTED_OUT_OF_CHANNEL}
"""

# Otherwise the message would wait for the end of a lease that nobody holds, and go late if its number is in again by
# then.
_LOOK_NOW = text("""
UPDATE deliveries SET wake_at = knocktwice_now()
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'reserved'
""")

# The claim is committed before the provider is called, so that a sender that dies leaves a trace. A message that
# another sender has tried since the choice was made is left to the next look at it: its outcome there may be unknown.
_CLAIM = text(f"""
UPDATE deliveries d SET
  state = 'sending',
  reason = NULL,
  missed_at = NULL,
  tries = d.tries + 1,
  provider = r.provider,
  claimed_at = knocktwice_now(),
  counted_at = knocktwice_now(),
  wake_at = knocktwice_now() + :lease
FROM {rows("r", id="uuid", provider="text", tries="smallint")}
WHERE d.notification_id = r.id AND d.step > 0 AND {is_in("d.state", "reserved")} AND d.tries = r.tries
  AND {_NOT_STOPPED}
RETURNING d.notification_id, d.claimed_at
""")


def claim_steps(
    conn: Connection, placements: Mapping[str, Placement], lease: timedelta
) -> tuple[list[str], datetime | None]:
    """Claim reserved messages for sending unless a receipt, a cancellation or an opt-out came first.

    Those that a receipt or a cancellation answered end here; at the others somebody looks again at once. Call
    :func:`reserved` for the same ids before, in the same transaction: it locks them.

    Args:
        placements: notification id → by which provider its message goes.
        lease: how long the claim lasts without an answer.

    Returns:
        The claimed ids and the claim's time, which :func:`hold` asks for: a sender that lost its claim cannot send.
    """
    ids = list(placements)
    places = {"provider": [p.provider for p in placements.values()], "tries": [p.tries for p in placements.values()]}
    found = conn.execute(_CLAIM, {"id": ids, "lease": lease, **places}).all()
    claimed = [str(row.notification_id) for row in found]
    if missed := set(ids).difference(claimed):
        note_aborted(conn, sorted(missed))
        settle_answered(conn, sorted(missed))
        conn.execute(_LOOK_NOW, {"ids": sorted(missed)})
    return claimed, found[0].claimed_at if found else None


@record
class ClaimedStep:
    """A message that this sender has claimed.

    Attributes:
        notification_id: whose.
        category: what kind of message it is.
        step: which step.
        channel: by which channel it goes.
        number, text, sender: as they are sent.
        provider: by which provider.
        tries: how often it was tried, this time included.
        stopped: it was answered, cancelled or opted out of since it was claimed.
        theirs, consented: as of a :class:`ReservedStep`.
        age: how long ago it was due.
        lost: how many messages of this step its provider had taken and then failed.
    """

    notification_id: str
    category: Category
    step: int
    channel: str
    number: str
    text: str
    sender: str | None
    provider: str
    tries: int
    stopped: bool
    theirs: bool
    consented: bool
    age: timedelta
    lost: int


# Columns as in ClaimedStep.
_CLAIMED = f"""
SELECT
  d.notification_id,
  b.category,
  d.step,
  d.channel,
  d.number,
  d.text,
  d.sender,
  d.provider,
  d.tries,
  NOT ({_NOT_STOPPED}),
  {_THEIRS},
  {_CONSENTED},
  knocktwice_now() - d.due_at,
  coalesce(cardinality(d.lost_ids), 0)
FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
LEFT JOIN phones ph ON ph.user_id = n.user_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sending'
"""
# A sender whose lease ran out finds nothing: the claim has another time by then. It may have stood still since its
# claim, so what stops a message is asked once more.
_HOLD = text(f"{_CLAIMED} AND d.claimed_at = :claimed_at ORDER BY d.notification_id FOR UPDATE OF d")
_PEEK = text(_CLAIMED)


def hold(conn: Connection, ids: Sequence[str], claimed_at: datetime) -> list[ClaimedStep]:
    """Lock claimed messages for the time of the provider call: while the lock is held, their sender lives."""
    return _claimed(conn.execute(_HOLD, {"ids": list(ids), "claimed_at": claimed_at}))


def peek(conn: Connection, ids: Sequence[str]) -> list[ClaimedStep]:
    """Return claimed messages as they are now, without a lock."""
    return _claimed(conn.execute(_PEEK, {"ids": list(ids)}))


def _claimed(found: Iterable[Any]) -> list[ClaimedStep]:
    return [ClaimedStep(str(id_), CATEGORIES[category], *rest) for id_, category, *rest in found]


# A message that was sent again because its outcome was lost may be at its provider already.
_PINNED = text(f"""
SELECT l.notification_id FROM decisions l
JOIN deliveries d ON d.notification_id = l.notification_id AND d.step = l.step AND d.state = 'sending'
WHERE l.notification_id = ANY(CAST(:ids AS uuid[])) AND l.verdict IN ('{Note.SENT_AGAIN}', '{Note.REOPENED}')
""")


def may_move(conn: Connection, ids: Sequence[str]) -> list[str]:
    """Return which claimed messages that their providers did not take may go by another: no earlier try got lost."""
    pinned = {str(row.notification_id) for row in conn.execute(_PINNED, {"ids": list(ids)})}
    return [i for i in ids if i not in pinned]
