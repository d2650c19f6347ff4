"""The messages of later steps: reserved, claimed, locked while their provider is called, recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, text

from knocktwice_shared.messages import Category
from knocktwice_shared.records import record
from knocktwice_worker.audience import channel_opt_outs, opt_outs, untextable
from knocktwice_worker.database.bulk import rows
from knocktwice_worker.database.test_rows import STAND_IN
from knocktwice_worker.lifecycle import FOLLOW_UPS, DeliveryState, Note, NotificationState, Untextable
from knocktwice_worker.notifications.store.braked import BRAKE, PUMPING, SINGLE
from knocktwice_worker.notifications.store.receipts import note_wasted
from knocktwice_worker.notifications.store.transitions import End, Onward, finish, go_on, is_in, settle_answered
from knocktwice_worker.notifications.store.trigger_sql import ANSWERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_CATEGORIES: Mapping[str, Category] = {c.value: c for c in Category}


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
  n.phone IS NOT NULL OR ph.consented_at IS NOT NULL,
  n.user_id IS NULL OR coalesce(ph.number = d.number, false),
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
        ReservedStep(str(id_), _CATEGORIES[category], bytes(fingerprint), *rest)
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


#: What stops a message at the last moment: a receipt, a cancellation or an opt-out.
_NOT_STOPPED = f"""
  NOT EXISTS (SELECT FROM events e WHERE e.notification_id = d.notification_id AND {ANSWERS})
  AND NOT EXISTS (SELECT FROM opt_outs o WHERE o.number = d.number)
  AND NOT {_OPTED_OUT_OF_CHANNEL}
"""

# Otherwise the message would wait for the end of a lease that nobody holds, and go late if its number is in again by then.
_LOOK_NOW = text("""
UPDATE deliveries SET wake_at = knocktwice_now()
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'reserved'
""")

# The claim is committed before the provider is called, so that a sender that dies leaves a trace. A message that another
# sender has tried since the choice was made is left to the next look at it: its outcome there may be unknown.
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
        settle_answered(conn, sorted(missed))
        conn.execute(_LOOK_NOW, {"ids": sorted(missed)})
    return claimed, found[0].claimed_at if found else None


@record
class ClaimedStep:
    """A message that this sender has claimed.

    Attributes:
        notification_id: whose.
        step: which step.
        channel: by which channel it goes.
        number, text, sender: as they are sent.
        provider: by which provider.
        tries: how often it was tried, this time included.
        stopped: it was answered, cancelled or opted out of since it was claimed.
        age: how long ago it was due.
        lost: how many messages of this step its provider had taken and then failed.
    """

    notification_id: str
    step: int
    channel: str
    number: str
    text: str
    sender: str | None
    provider: str
    tries: int
    stopped: bool
    age: timedelta
    lost: int


# A sender whose lease ran out finds nothing: the claim has another time by then. It may have stood still since its claim, so
# what stops a message is asked once more. Columns as in ClaimedStep.
_HOLD = text(f"""
SELECT
  d.notification_id,
  d.step,
  d.channel,
  d.number,
  d.text,
  d.sender,
  d.provider,
  d.tries,
  NOT ({_NOT_STOPPED}),
  knocktwice_now() - d.due_at,
  coalesce(cardinality(d.lost_ids), 0)
FROM deliveries d
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sending'
  AND d.claimed_at = :claimed_at
ORDER BY d.notification_id FOR UPDATE OF d
""")


def hold(conn: Connection, ids: Sequence[str], claimed_at: datetime) -> list[ClaimedStep]:
    """Lock claimed messages for the time of the provider call: while the lock is held, their sender lives."""
    found = conn.execute(_HOLD, {"ids": list(ids), "claimed_at": claimed_at}).all()
    return [ClaimedStep(str(id_), *rest) for id_, *rest in found]


_STOPPED = text(f"""
SELECT EXISTS (
  SELECT FROM deliveries d
  WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sending' AND NOT ({_NOT_STOPPED})
)
""")


def stopped(conn: Connection, ids: Sequence[str]) -> bool:
    """Return whether anything committed stops one of these claimed messages. Locks nothing."""
    return bool(conn.execute(_STOPPED, {"ids": list(ids)}).scalar_one())


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


@dataclass(frozen=True, slots=True)
class UnresolvedStep:
    """A claimed message whose sender is gone or got no clear answer.

    Attributes:
        notification_id: whose.
        category: what kind of message it is.
        step: which step.
        channel: by which channel it went.
        number, text, sender: as they were sent.
        provider: by which provider.
        tries: how often it was tried.
        reason: the unclear answer; ``None``: the sender died.
        limited_repeats: how often it was sent again in a way that is limited: its sender had died, or nobody could say.
        missed_at: when the provider's list first answered without it, since it was claimed; ``None``: not yet.
        due_at: when it was due.
        claimed_at: when it was claimed.
        now: the database's clock.
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
    reason: str | None
    limited_repeats: int
    missed_at: datetime | None
    due_at: datetime
    claimed_at: datetime
    now: datetime
    lost: int


# A sender that lives holds the lock of its message, so the message is skipped. Columns as in UnresolvedStep.
_UNRESOLVED = text("""
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
  d.reason,
  d.limited_repeats,
  d.missed_at,
  d.due_at,
  d.claimed_at,
  knocktwice_now(),
  coalesce(cardinality(d.lost_ids), 0)
FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
WHERE d.notification_id = ANY(CAST(:ids AS uuid[])) AND d.step > 0 AND d.state = 'sending'
  AND (d.reason IS NOT NULL OR d.claimed_at + :lease <= knocktwice_now())
ORDER BY d.claimed_at, d.notification_id FOR UPDATE OF d SKIP LOCKED
""")


def unresolved(conn: Connection, ids: Sequence[str], lease: timedelta) -> list[UnresolvedStep]:
    """Lock and return claimed messages whose sender is gone or got no clear answer."""
    found = conn.execute(_UNRESOLVED, {"ids": list(ids), "lease": lease}).all()
    return [UnresolvedStep(str(id_), _CATEGORIES[category], *rest) for id_, category, *rest in found]


# Reconcile may have decided to send it again.
_TAKE_BACK = text(f"""
UPDATE deliveries SET state = 'sending'
WHERE (notification_id, step) IN (SELECT * FROM {rows("r", id="uuid", step="smallint")}) AND state = 'reserved'
""")


def take_back(conn: Connection, ids: Sequence[str], steps: Sequence[int]) -> None:
    """Claim messages again that their provider has after all, although it was decided to send them again."""
    conn.execute(_TAKE_BACK, {"id": list(ids), "step": list(steps)})


@record
class StepResult:
    """What became of a claimed message.

    Attributes:
        notification_id: whose.
        state: ``sent``, ``failed``, ``unknown``; ``reserved`` to send again after ``wake_after``; ``sending`` to look
            for it in the provider's list after ``wake_after``.
        reason: why it did not go, or how its outcome became known, for people.
        provider_id: the provider's id of the message.
        wake_after: how long to wait before the next look.
        provider: who sends it next, if that changes; see :func:`may_move`.
        opted_out: the provider refused it because the recipient asked not to be texted.
        untextable: the provider refused it because of the number, and why.
        missed: the provider's list answered without it for the first time since it was claimed.
        limited: it is sent again, and such repeats are counted.
    """

    notification_id: str
    state: DeliveryState
    reason: str | None = None
    provider_id: str | None = None
    wake_after: timedelta | None = None
    provider: str | None = None
    opted_out: bool = False
    untextable: Untextable | None = None
    missed: bool = False
    limited: bool = False


# A provider's id is unique among our messages, those included that failed and were sent again.
_KNOWN_IDS = text("""
SELECT provider_id FROM deliveries WHERE provider_id = ANY(:ids) AND step > 0
UNION ALL
SELECT unnest(lost_ids) FROM deliveries WHERE lost_ids && CAST(:ids AS text[])
""")


def known_provider_ids(conn: Connection, provider_ids: Collection[str]) -> set[str]:
    """Return which of these provider's ids belong to our messages: the account may send others."""
    return {row.provider_id for row in conn.execute(_KNOWN_IDS, {"ids": list(provider_ids)})}


def with_ids_of_their_own(conn: Connection, results: Sequence[StepResult]) -> list[StepResult]:
    """Take away the ids of messages that another delivery has, too.

    A provider's id is read where the operator's provider file says it is. One wrong word in that file must not make it
    impossible to record what was sent.
    """
    taken = known_provider_ids(conn, [r.provider_id for r in results if r.provider_id])
    own: list[StepResult] = []
    for result in results:
        known = result.provider_id in taken
        own.append(replace(result, provider_id=None, reason="its id is not its own") if known else result)
        taken |= {result.provider_id} if result.provider_id else set()
    return own


# Only a claimed message is recorded: another worker may have settled it meanwhile. Nobody will report about a test.
_RECORD = text(f"""
UPDATE deliveries d SET
  state = r.state,
  reason = r.reason,
  provider_id = r.provider_id,
  wake_at = CASE WHEN r.state IN ('reserved', 'sending') THEN knocktwice_now() + r.wake_after END,
  finished_at = CASE WHEN r.state NOT IN ('reserved', 'sending') THEN knocktwice_now() END,
  reported_at = CASE WHEN r.state = 'sent' AND d.provider = '{STAND_IN}' THEN knocktwice_now() ELSE d.reported_at END
FROM {rows("r", id="uuid", state="text", reason="text", provider_id="text", wake_after="interval")}
WHERE d.notification_id = r.id AND d.step > 0 AND {is_in("d.state", "sending")}
RETURNING
  d.notification_id,
  d.step,
  d.channel,
  d.steps_left,
  d.state,
  d.reason,
  d.number,
  d.trigger,
  d.provider
""")

# The next sender tries it by another provider.
_MOVE = text(f"""
UPDATE deliveries d SET provider = r.provider
FROM {rows("r", id="uuid", provider="text")}
WHERE d.notification_id = r.id AND d.step > 0 AND d.state = 'reserved'
""")

#: What a finished message makes of its notification.
_OUTCOMES = {
    DeliveryState.SENT: NotificationState.TEXTED,
    DeliveryState.UNKNOWN: NotificationState.UNKNOWN,
    DeliveryState.FAILED: NotificationState.FAILED,
}


def record_steps(conn: Connection, results: Sequence[StepResult]) -> list[str]:
    """Write the provider's answers to claimed messages; go on to the next steps or end the notifications.

    Returns:
        The ids of those that have something before them still, which :func:`look_again` wants when this is committed.
    """
    if not results:
        return []
    found = conn.execute(
        _RECORD,
        {
            "id": [r.notification_id for r in results],
            "state": [str(r.state) for r in results],
            "reason": [r.reason for r in results],
            "provider_id": [r.provider_id for r in results],
            "wake_after": [r.wake_after or timedelta() for r in results],
        },
    ).all()
    if moves := {r.notification_id: r.provider for r in results if r.provider is not None}:
        conn.execute(_MOVE, {"id": list(moves), "provider": list(moves.values())})
    opted_out = {r.notification_id for r in results if r.opted_out}
    if opted_out:
        numbers = {row.number for row in found if str(row.notification_id) in opted_out}
        # The provider knows of a STOP that never came to us.
        opt_outs.add(conn, numbers, "provider")
    if learned := {r.notification_id: r.untextable for r in results if r.untextable is not None}:
        failed = [(row, learned[str(row.notification_id)]) for row in found if str(row.notification_id) in learned]
        untextable.learn(conn, [(row.number, row.channel, why) for row, why in failed if row.number is not None])
    settled = [row for row in found if row.state in _OUTCOMES]
    finish(conn, [_end(row, opted_out) for row in settled if not row.steps_left])
    go_on(
        conn,
        [
            Onward(str(row.notification_id), row.step, row.step, at_once=row.state == DeliveryState.FAILED)
            for row in settled
            if row.steps_left
        ],
    )
    return [
        str(row.notification_id)
        for row in found
        if row.state == DeliveryState.RESERVED or (row.steps_left and row.state in _OUTCOMES)
    ]


# Few messages are searched for, so those that are sent at once do not pay for these columns.
_NOTE_SEARCHES = text(f"""
UPDATE deliveries d SET
  missed_at = CASE WHEN r.missed THEN knocktwice_now() ELSE d.missed_at END,
  limited_repeats = d.limited_repeats + CAST(r.limited AS int)
FROM {rows("r", id="uuid", missed="boolean", limited="boolean")}
WHERE d.notification_id = r.id AND d.step > 0 AND d.state IN ('sending', 'reserved')
""")


def note_searches(conn: Connection, results: Sequence[StepResult]) -> None:
    """Remember what the search for messages found, after :func:`record_steps` in the same transaction."""
    found = [r for r in results if r.missed or r.limited]
    if found:
        conn.execute(
            _NOTE_SEARCHES,
            {
                "id": [r.notification_id for r in found],
                "missed": [r.missed for r in found],
                "limited": [r.limited for r in found],
            },
        )


def _end(row: Row[Any], opted_out: Collection[str]) -> End:
    id_ = str(row.notification_id)
    outcome = NotificationState.SUPPRESSED if id_ in opted_out else _OUTCOMES[DeliveryState(row.state)]
    follow_up = row.trigger in FOLLOW_UPS and row.state == DeliveryState.SENT
    took = "only tested" if row.provider == STAND_IN else "accepted by the provider"
    return End(id_, outcome, row.reason or f"{row.channel} {took}", follow_up)


def look_again(engine: Engine, unfinished: Sequence[str], sent: Sequence[str]) -> None:
    """Look for receipts and cancellations that came while a sender had its messages, after the commit of its record.

    Receipts and cancellations do not wait for a sender. They found nothing to end, and the sender may have looked
    before they were committed; so each side looks once more than the other can miss.

    Args:
        unfinished: those that go on: a cancellation ends them now and not only when their time comes.
        sent: those that a receipt may show to have been needless.
    """
    if unfinished:
        with engine.begin() as conn:
            settle_answered(conn, unfinished)
    if sent:
        with engine.begin() as conn:
            note_wasted(conn, sent)
