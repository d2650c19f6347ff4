"""Messages that a brake holds: found in the statements that decide, held, released and dropped.

A held message is an open step whose ``wake_at`` lies at the end of its use. A click, a cancellation or an opt-out ends
it as always. Who releases it makes it due now, and it takes the usual way.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

from knocktwice_worker.database.bulk import rows
from knocktwice_worker.lifecycle import Delay, DeliveryState, Note, PushTrouble, Refusal, TextTrouble, Verdict
from knocktwice_worker.notifications.store.ledger import Decision, write_ledger
from knocktwice_worker.notifications.store.transitions import lock_open, skip
from knocktwice_worker.notifications.store.trigger_sql import ANSWERED_BY_CLICK, ANSWERED_BY_CLICK_ONLY, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Who counts the pushes for the brake; its row in ``followers`` says until when they are counted.
WATCHER = "brake"
#: When the pushes of this moment are counted: their receipts have half a minute, and then comes the next count.
WATCHED_AFTER = timedelta(seconds=60)
#: A message waits no longer than this for the count of its push.
WATCHED_WITHIN = timedelta(minutes=2)

#: So many of the pushes that are not counted yet are looked at to tell a wave.
_GLANCE = 10_000

#: The reasons of a refused push that are about the device, and say nothing of others.
_OF_DEVICE = words(("unregistered", "device_moved", "no_device", "notifications_disabled"))


def not_of_device(reason: str) -> str:
    """Return SQL that is true if the reason of a refused push is not about its device."""
    return f"split_part(coalesce({reason}, ''), ':', 1) NOT IN {_OF_DEVICE}"


def _of_many(push: str) -> str:
    """Return SQL that is true if the step ``d`` follows a push that may have failed for many at once."""
    return f"""
    ({push}.state = 'sent' AND d.trigger IN {ANSWERED_BY_CLICK}
      OR {push}.state = 'failed' AND {not_of_device(f"{push}.reason")})
    """


#: When the push ``p`` before the step ``d`` will be counted; NULL: it is, or nobody counts.
UNSEEN_UNTIL = f"""
CASE
  WHEN d.after_step = 0 AND p.step = 0 AND {_of_many("p")}
    AND (SELECT seen_until FROM followers WHERE name = '{WATCHER}') < p.finished_at
    AND d.due_at > knocktwice_now() - interval '{WATCHED_WITHIN.total_seconds():.0f} seconds'
    AND NOT d.brake_waived
  THEN greatest(
    p.finished_at + interval '{WATCHED_AFTER.total_seconds():.0f} seconds',
    knocktwice_now() + interval '5 seconds'
  )
END
"""

# A wave comes in slices, as its rows ring and as the workers share them; each may be small. So its pushes are asked.
_WAVE = text(f"""
SELECT count(*) >= :sample FROM (
  SELECT FROM (
    SELECT notification_id, state, reason FROM deliveries
    WHERE finished_at >= (SELECT seen_until FROM followers WHERE name = '{WATCHER}')
      AND step = 0 AND state IN ('sent', 'failed')
    LIMIT {_GLANCE}
  ) q
  WHERE CASE q.state
    WHEN 'failed' THEN {not_of_device("q.reason")}
    ELSE NOT EXISTS (SELECT FROM events e WHERE e.notification_id = q.notification_id AND e.step = 0) END
  LIMIT :sample
) silent
""")


def is_wave(conn: Connection, sample: int) -> bool:
    """Return whether ``sample`` of the pushes that nobody counted yet were refused, or are not answered so far."""
    return bool(conn.execute(_WAVE, {"sample": sample}).scalar_one())


_ANY_ON = "(SELECT true FROM brakes WHERE state = 'on' LIMIT 1)"

#: The brake that holds the step ``d`` of the notification ``n``; NULL: none. While no brake is on this is one look at
#: an empty index for the whole statement. A person is concerned only with all devices, so that one that works still
#: counts.
BRAKE = f"""
CASE WHEN d.after_step = 0 AND NOT d.brake_waived AND {_ANY_ON} THEN (
  SELECT min(k.id)
  FROM brakes k
  JOIN deliveries q ON q.notification_id = d.notification_id AND q.step = 0 AND {_of_many("q")}
  WHERE k.state = 'on'
    AND k.kind <> '{TextTrouble.PUMPING}'
    AND (k.kind = '{PushTrouble.REFUSED}') = (q.state = 'failed')
    AND (k.kind <> '{PushTrouble.UNDELIVERED}' OR NOT EXISTS (
      SELECT FROM events e WHERE e.notification_id = d.notification_id AND e.kind = 'delivered' AND e.step = 0))
    AND (k.kind <> '{PushTrouble.UNCLICKED}' OR d.trigger IN {ANSWERED_BY_CLICK_ONLY})
    AND (k.template IS NULL OR k.template = (
      SELECT coalesce(t.content ->> 'template', '') FROM batches t WHERE t.id = n.batch_id))
    AND (k.platform IS NULL OR (
      SELECT bool_and(
        coalesce((SELECT v.platform FROM devices v WHERE v.registration = a.registration), 'unknown') = k.platform
        AND (k.app_version IS NULL OR k.app_version = coalesce(
          (SELECT v.app_version FROM devices v WHERE v.registration = a.registration), ''))
      )
      FROM attempts a
      WHERE a.notification_id = d.notification_id AND CASE
        WHEN k.kind = '{PushTrouble.REFUSED}' THEN a.state = 'rejected' AND {not_of_device("a.reason")}
        ELSE a.state = 'sent'
      END))
) END
"""

#: The brake of the pumping guard that covers the step ``d`` of the notification ``n``, by the step's number; NULL:
#: none. It follows whatever came before, or nothing. While no brake is on this is one look at an empty index.
PUMPING = f"""
CASE WHEN NOT d.brake_waived AND {_ANY_ON} THEN (
  SELECT min(k.id) FROM brakes k
  WHERE k.state = 'on'
    AND k.kind = '{TextTrouble.PUMPING}'
    AND starts_with({{number}}, k.prefix)
    AND k.project = coalesce(n.project, '')
    AND k.template = (SELECT coalesce(t.content ->> 'template', '') FROM batches t WHERE t.id = n.batch_id)
) END
"""

#: Whether a message of the batch ``b`` is neither a blast's nor marketing; looked up only while a brake is on.
SINGLE = f"""
CASE WHEN {_ANY_ON} THEN
  b.category <> 'marketing' AND NOT EXISTS (SELECT FROM blast_pages g WHERE g.id = b.id)
ELSE true END
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A message that a brake is to hold.

    Attributes:
        notification_id: the notification that it belongs to.
        step: the number of the step.
        brake: the brake.
        until: when the message is of no use any more.
        parts: its SMS parts, for what it would cost; ``None``: not known.
        known: the same brake holds it already.
    """

    notification_id: str
    step: int
    brake: int
    until: datetime
    parts: int | None
    known: bool


_HOLD = text(f"""
UPDATE deliveries d SET
  brake = r.brake,
  wake_at = greatest(r.until, knocktwice_now() + interval '1 second'),
  parts = coalesce(d.parts, r.parts)
FROM {rows("r", id="uuid", step="smallint", brake="bigint", until="timestamptz", parts="smallint")}
WHERE d.notification_id = r.id AND d.step = r.step AND d.step > 0 AND d.state IN ('scheduled', 'reserved')
RETURNING d.notification_id
""")

_WHY = text("SELECT id, since, why FROM brakes WHERE id = ANY(:ids)")


def keep(conn: Connection, held: Sequence[Held]) -> None:
    """Let a brake hold these messages, and write that to the ledger. Lock them before."""
    if not held:
        return
    given = {
        "id": [h.notification_id for h in held],
        "step": [h.step for h in held],
        "brake": [h.brake for h in held],
        "until": [h.until for h in held],
        "parts": [h.parts for h in held],
    }
    won = {str(row.notification_id) for row in conn.execute(_HOLD, given)}
    why = {row.id: row for row in conn.execute(_WHY, {"ids": sorted({h.brake for h in held})})}
    write_ledger(
        conn,
        [
            Decision(
                h.notification_id,
                Delay.BRAKE,
                {"brake": h.brake, "since": f"{why[h.brake].since:%Y-%m-%d %H:%M:%S} UTC", "why": why[h.brake].why},
                h.step,
            )
            for h in held
            if h.notification_id in won and not h.known
        ],
    )


# What was not used for ten seconds is not saved up.
_TURNS = text("""
WITH k AS (
  SELECT id, greatest(coalesce(next_turn_at, knocktwice_now()), knocktwice_now() - interval '10 seconds') AS at
  FROM brakes WHERE id = :id FOR UPDATE
), g AS (
  SELECT id, at, least(:wanted, greatest(0, floor(
    extract(epoch FROM knocktwice_now() - at) / extract(epoch FROM CAST(:pause AS interval)) + 1))) AS granted
  FROM k
)
UPDATE brakes b SET next_turn_at = g.at + g.granted * CAST(:pause AS interval)
FROM g WHERE b.id = g.id
RETURNING CAST(g.granted AS integer), b.next_turn_at
""")


def take_turns(conn: Connection, brake: int, wanted: int, pause: timedelta) -> tuple[int, datetime]:
    """Take turns of a brake that only slows down; its row stays locked until the end of the transaction.

    Args:
        wanted: how many messages want to go.
        pause: the time from one to the next.

    Returns:
        How many may go now, and when the next one may.
    """
    granted, next_at = conn.execute(_TURNS, {"id": brake, "wanted": wanted, "pause": pause}).one()
    return granted, next_at


_LET_GO = text(f"""
UPDATE deliveries d SET
  brake = r.brake,
  brake_waived = true
FROM {rows("r", id="uuid", step="smallint", brake="bigint")}
WHERE d.notification_id = r.id AND d.step = r.step AND d.state IN ('scheduled', 'reserved')
RETURNING d.notification_id, d.step, d.brake
""")


def let_go(conn: Connection, turns: Sequence[tuple[str, int, int]], reason: str) -> None:
    """Note that messages have had their turn, so that no brake holds them again, and write that to the ledger.

    Args:
        turns: notification, step and brake of each.
    """
    if turns:
        ids, steps, of = zip(*turns, strict=True)
        found = conn.execute(_LET_GO, {"id": list(ids), "step": list(steps), "brake": list(of)}).all()
        inputs = {"reason": reason}
        write_ledger(
            conn,
            [
                Decision(str(row.notification_id), Note.BRAKE_RELEASED, {"brake": row.brake, **inputs}, row.step)
                for row in found
            ],
        )


_PASSED = text(f"""
UPDATE brakes k SET passed = k.passed + r.n FROM {rows("r", id="bigint", n="integer")} WHERE k.id = r.id
""")


def note_passed(conn: Connection, passed: Mapping[int, int]) -> None:
    """Note how many messages each brake would have held.

    Call it last, because other decisions note theirs in the same row.
    """
    if passed:
        ids = sorted(passed)
        conn.execute(_PASSED, {"id": ids, "n": [passed[id_] for id_ in ids]})


@dataclass(frozen=True, slots=True)
class HeldFilter:
    """A choice among the held messages; what is not given does not matter.

    Attributes:
        brake: held by this brake.
        template, blast: with this template, or of the blast with this key.
        category: of this category.
        platform, app_version: of people with such a device.
        singles: only messages that are neither a blast's nor marketing.
    """

    brake: int | None = None
    template: str | None = None
    blast: str | None = None
    category: str | None = None
    platform: str | None = None
    app_version: str | None = None
    singles: bool | None = None

    @property
    def of_rows(self) -> bool:
        """Whether it picks messages of a brake, beside the brake itself."""
        return self != HeldFilter(brake=self.brake)


_DEVICE = """
EXISTS (
  SELECT FROM attempts a LEFT JOIN devices v ON v.registration = a.registration
  WHERE a.notification_id = d.notification_id AND {}
)
"""
#: Field of :class:`HeldFilter` → its condition.
_CONDITIONS = {
    "brake": "d.brake = :brake",
    "template": "coalesce(b.content ->> 'template', '') = :template",
    "blast": "bl.key = :blast",
    "category": "b.category = :category",
    "platform": _DEVICE.format("coalesce(v.platform, 'unknown') = :platform"),
    "app_version": _DEVICE.format("coalesce(v.app_version, '') = :app_version"),
    "singles": ":singles = (b.category <> 'marketing' AND bl.key IS NULL)",
}


def held_rows(wanted: HeldFilter) -> tuple[str, dict[str, Any]]:
    """Return SQL from ``FROM`` on for the held messages that are meant, ``d``, and its parameters."""
    given = {name: value for name in _CONDITIONS if (value := getattr(wanted, name)) is not None}
    conditions = "".join(f"\n  AND {_CONDITIONS[name]}" for name in given)
    return (
        f"""
FROM deliveries d
JOIN notifications n ON n.id = d.notification_id
JOIN batches b ON b.id = n.batch_id
LEFT JOIN blast_pages g ON g.id = n.batch_id
LEFT JOIN blasts bl ON bl.id = g.blast_id
WHERE d.brake IS NOT NULL AND d.wake_at IS NOT NULL AND NOT d.brake_waived
  AND d.state IN ('{DeliveryState.SCHEDULED}', '{DeliveryState.RESERVED}'){conditions}
""",
        given,
    )


#: How many are changed in one transaction.
PAGE = 500


def page(conn: Connection, wanted: HeldFilter) -> list[str]:
    """Return some notifications with a held message that is meant."""
    sql, given = held_rows(wanted)
    found = conn.execute(text(f"SELECT d.notification_id {sql} ORDER BY 1 LIMIT {PAGE}"), given)
    return [str(row.notification_id) for row in found]


_WAIVE = text("""
UPDATE deliveries SET
  brake_waived = true,
  wake_at = knocktwice_now()
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state IN ('scheduled', 'reserved')
  AND brake IS NOT NULL AND NOT brake_waived
RETURNING notification_id, step, brake
""")


def waive(conn: Connection, ids: Sequence[str], reason: str) -> int:
    """Release held messages: they are due now, and no brake holds them again. Return how many."""
    lock_open(conn, ids)
    found = conn.execute(_WAIVE, {"ids": list(ids)}).all()
    write_ledger(
        conn,
        [
            Decision(str(row.notification_id), Note.BRAKE_RELEASED, {"brake": row.brake, "reason": reason}, row.step)
            for row in found
        ],
    )
    return len(found)


_STILL_HELD = text("""
SELECT notification_id, step, brake FROM deliveries
WHERE notification_id = ANY(CAST(:ids AS uuid[])) AND step > 0 AND state IN ('scheduled', 'reserved')
  AND brake IS NOT NULL AND NOT brake_waived
""")


def drop(conn: Connection, ids: Iterable[str], reason: str) -> int:
    """End held messages and the steps behind them; return how many."""
    ids = sorted(ids)
    lock_open(conn, ids)
    found = conn.execute(_STILL_HELD, {"ids": ids}).all()
    skip(
        conn,
        [
            Decision(str(row.notification_id), Refusal.DROPPED, {"brake": row.brake, "reason": reason}, row.step)
            for row in found
        ],
    )
    return len(found)


#: The verdicts about a step that may only be a trouble of many at once.
OF_MANY = frozenset({Verdict.NOT_DELIVERED, Verdict.NOT_CLICKED, Verdict.NOT_ANSWERED, Verdict.PUSH_FAILED})
