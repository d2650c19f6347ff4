"""Steps that are due: claimed for a task, and read for the decision."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_shared.messages import When
from knocktwice_shared.records import record
from knocktwice_worker.audience import channel_opt_outs
from knocktwice_worker.audience.untextable import FORBIDS
from knocktwice_worker.lifecycle import DeliveryState, Evidence, ProviderState, Untextable
from knocktwice_worker.notifications.store.braked import BRAKE, PUMPING, UNSEEN_UNTIL
from knocktwice_worker.notifications.store.postponing import look_at
from knocktwice_worker.notifications.store.trigger_sql import IS, aborted_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

#: Words of the database → enum members. A dict is several times as fast as a call of the enum, and a batch has
#: thousands.
_STATES: Mapping[str, DeliveryState] = {s.value: s for s in DeliveryState}
_MAYBE_STATES: Mapping[str | None, DeliveryState | None] = {None: None, **{s.value: s for s in DeliveryState}}
_TRIGGERS: Mapping[str | None, When | None] = {None: None, **{w.value: w for w in When}}
_REPORTS: Mapping[str | None, ProviderState | None] = {None: None, **{s.value: s for s in ProviderState}}


@record
class Rung:
    """A delivery that a worker must look at now.

    Attributes:
        notification_id: the notification that it belongs to.
        step: the number of the step.
        state: the state of the delivery, which decides what task is published.
        late_s: how long ago it was to be looked at, in seconds.
    """

    notification_id: str
    step: int
    state: DeliveryState
    late_s: float


# A push whose sender's lease has ended becomes ``scheduled`` again, so that exactly one worker claims it. The rows are
# chosen in a CTE, which is executed once: a subquery that the planner executes for each row locks other rows each time.
# While some session keeps an old snapshot, the index keeps an entry for each time at which any row was ever due; the
# lower bound leaves them out.
_RING = text("""
WITH due AS MATERIALIZED (
  SELECT notification_id, step, wake_at FROM deliveries
  WHERE wake_at <= knocktwice_now() AND wake_at >= CAST(:since AS timestamptz) AND (step = 0 OR :later_steps)
  ORDER BY wake_at LIMIT :limit FOR UPDATE SKIP LOCKED
), rung AS (
  UPDATE deliveries d SET
    wake_at = knocktwice_now() + :lease,
    state = CASE WHEN d.step = 0 AND d.state = 'sending' THEN 'scheduled' ELSE d.state END
  FROM due
  WHERE d.notification_id = due.notification_id AND d.step = due.step
  RETURNING
    d.notification_id,
    d.step,
    d.state,
    CAST(extract(epoch FROM knocktwice_now() - due.wake_at) AS double precision) AS late_s
)
SELECT
  clock.now,
  rung.*
FROM (SELECT knocktwice_now() AS now) clock LEFT JOIN rung ON true
""")


def ring(
    conn: Connection, *, limit: int, lease: timedelta, later_steps: bool = True, since: datetime | None = None
) -> tuple[list[Rung], datetime]:
    """Claim up to ``limit`` deliveries whose time has come, those first that have waited longest.

    Each is claimed for ``lease``: if its task gets lost, the delivery is claimed again after the lease.

    Args:
        limit: the most deliveries to claim.
        lease: the time until a claimed delivery may be claimed again.
        later_steps: claim later steps, too; otherwise only pushes.
        since: only what became due at this time or later; ``None``: whenever.

    Returns:
        The deliveries, and the time of the look by the database's clock.
    """
    wanted = {"limit": limit, "lease": lease, "later_steps": later_steps, "since": since or "-infinity"}
    found = conn.execute(_RING, wanted).all()
    rung = [Rung(str(id_), step, _STATES[state], late_s) for _, id_, step, state, late_s in found if id_ is not None]
    return rung, found[0].now


@record
class DueStep:
    """The facts about a later step that is due.

    Attributes:
        notification_id: whose.
        step: which step.
        channel: by which channel it goes.
        trigger: what it waits for; ``None``: nothing, it is the first.
        due_at: when its countdown ended, which begins when the push is handed over.
        again: when to look again if the push was not handed over yet; ``None`` with any other step before it.
        after_step: the step that it follows.
        before: that step's state; ``None``: there is none. A push that some device has counts as sent, though another
            device may still get it.
        before_channel: that step's channel.
        provider_status: the provider's report about that step's message.
        params: the recipient's values for the texts.
        locale: the locale that chooses the recipient's texts among the batch's contents.
        batch_id: the batch that has the content.
        user_id: the application's id of the recipient; ``None``: only a number was given.
        number: the number in E.164; ``None``: there is none.
        opted_out: the owner of the number opted out.
        untextable: why messages of this channel do not reach the number; ``None``: they do, or it is tried again.
        consented: the person agreed to marketing, or the application gave the number with the message.
        delivered: the time of the receipt that the step before it, or a later one, was delivered.
        clicked: the time of the first click on any step.
        read: the time of the first report that a message was read.
        seen: the time of the first receipt that the person has seen elsewhere what the notification says.
        replied: the time of the first reply to a message.
        cancelled: the time at which the application cancelled the notification, or its blast was aborted.
        now: the time by the database's clock.
        brake: the brake that covers the step; ``None``: none is on.
        braked: the brake that has held it before.
        unseen_until: when the brake will have counted its push; ``None``: it has, or the push tells nothing of others.
        pumping: the brake of the pumping guard that covers its number; ``None``: none is on.
        project: the project to which the notification belongs.
        untextable_tried: like ``untextable``, with the memory that is tried where that is the longer one.
    """

    notification_id: str
    step: int
    channel: str
    trigger: When | None
    due_at: datetime
    again: datetime | None
    after_step: int
    before: DeliveryState | None
    before_channel: str | None
    provider_status: ProviderState | None
    params: Mapping[str, Any]
    locale: str | None
    batch_id: str
    user_id: str | None
    number: str | None
    opted_out: bool
    untextable: Untextable | None
    consented: bool
    delivered: datetime | None
    clicked: datetime | None
    read: datetime | None
    seen: datetime | None
    replied: datetime | None
    cancelled: datetime | None
    now: datetime
    brake: int | None
    braked: int | None
    unseen_until: datetime | None
    pumping: int | None
    project: str | None
    untextable_tried: Untextable | None


_OPTED_OUT_OF_CHANNEL = channel_opt_outs.FORBIDS.format(number="coalesce(n.phone, ph.number)", channel="d.channel")

# Locked in the order in which receipts lock, so that the two wait for each other and never deadlock. A push that waits
# for its own time starts the countdown anew when it goes out, so the step behind it is not due yet.
#
# ``due_at`` of the step behind the push counts from the push's last claim, and the countdown from the hand-over: what
# lies between is added here, so that an ordinary hand-over changes no row. Columns as in DueStep.
_DUE = text(f"""
WITH d AS (
  SELECT * FROM deliveries
  WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state = 'scheduled' AND due_at <= knocktwice_now()
  ORDER BY notification_id FOR UPDATE
)
SELECT
  d.notification_id,
  d.step,
  d.channel,
  d.trigger,
  CASE
    WHEN d.step = 1 AND p.step = 0 AND p.state = 'sent'
      THEN d.due_at + greatest(p.finished_at - p.claimed_at, interval '0')
    ELSE d.due_at
  END,
  CASE
    WHEN p.step > 0 OR p.state NOT IN ('scheduled', 'sending') THEN NULL
    WHEN d.step > 1 OR h.over THEN knocktwice_now() + interval '1 second'
    ELSE
      CASE WHEN p.state = 'scheduled' THEN greatest(p.wake_at, knocktwice_now()) ELSE knocktwice_now() END
      + greatest(d.due_at - p.claimed_at, interval '0.5 seconds')
  END,
  d.after_step,
  CASE WHEN h.over AND p.state = 'scheduled' THEN 'sent' ELSE p.state END,
  p.channel,
  p.provider_status,
  n.params,
  n.locale,
  n.batch_id,
  n.user_id,
  coalesce(n.phone, ph.number),
  o.number IS NOT NULL OR {_OPTED_OUT_OF_CHANNEL},
  CASE WHEN u.last_at > knocktwice_now() - CAST(:enforced AS interval) THEN u.reason END,
  n.phone IS NOT NULL OR ph.consented_at IS NOT NULL,
  e.delivered,
  e.clicked,
  e.read,
  e.seen,
  e.replied,
  coalesce(e.cancelled, {aborted_at("n.batch_id")}),
  knocktwice_now(),
  {BRAKE},
  d.brake,
  {UNSEEN_UNTIL},
  {PUMPING.format(number="coalesce(n.phone, ph.number)")},
  n.project,
  u.reason
FROM d
JOIN notifications n ON n.id = d.notification_id AND n.state = 'active'
LEFT JOIN deliveries p ON p.notification_id = d.notification_id AND p.step = d.after_step
LEFT JOIN phones ph ON ph.user_id = n.user_id
LEFT JOIN opt_outs o ON o.number = coalesce(n.phone, ph.number)
LEFT JOIN untextable u ON u.number = coalesce(n.phone, ph.number) AND u.channel = d.channel AND {FORBIDS}
LEFT JOIN LATERAL (
  SELECT
    min(received_at) FILTER (WHERE kind = 'delivered' AND step >= d.after_step) AS delivered,
    min(received_at) FILTER (WHERE {IS[Evidence.CLICKED]}) AS clicked,
    min(received_at) FILTER (WHERE {IS[Evidence.READ]}) AS read,
    min(received_at) FILTER (WHERE {IS[Evidence.SEEN]}) AS seen,
    min(received_at) FILTER (WHERE {IS[Evidence.REPLIED]}) AS replied,
    min(received_at) FILTER (WHERE kind = 'cancelled') AS cancelled
  FROM events e WHERE notification_id = d.notification_id
) e ON true
LEFT JOIN LATERAL (
  SELECT true AS over FROM attempts a
  WHERE p.step = 0
    AND p.state IN ('scheduled', 'sending')
    AND a.notification_id = p.notification_id
    AND a.state = 'sent'
  LIMIT 1
) h ON true
WHERE p.state IS NULL OR p.step > 0 OR p.claimed_at IS NOT NULL
ORDER BY d.due_at, d.notification_id
""")


def due(
    conn: Connection, ids: Sequence[str], *, again: timedelta = timedelta(), tried: timedelta = timedelta()
) -> list[DueStep]:
    """Lock later steps that are due by the database's clock, and return them, oldest first; the others are left out.

    Those whose push was handed over later than they thought ring again when their own time comes.

    Args:
        again: after this long a number that messages did not reach is tried once more; zero: nothing is remembered.
        tried: the same of the rules that are tried.
    """
    spans = {"enforced": again, "again": max(again, tried)}
    found = [
        DueStep(
            str(row[0]),
            row[1],
            row[2],
            _TRIGGERS[row[3]],
            row[4],
            row[5],
            row[6],
            _MAYBE_STATES[row[7]],
            row[8],
            _REPORTS[row[9]],
            row[10],
            row[11],
            str(row[12]),
            *row[13:],
        )
        for row in conn.execute(_DUE, {"ids": list(ids), **spans}).all()
    ]
    look_at(conn, {row.notification_id: row.due_at for row in found if row.due_at > row.now})
    return [row for row in found if row.due_at <= row.now]
